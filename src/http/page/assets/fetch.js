// Pages of this site, fetched to take parts of them.

import { note } from "./notes.js";

/** Longer than the service waits for a turn, for its store by default and for room: then it tells itself what is wrong. */
const PATIENCE = 35_000;

/** The server answered, but not with the page; its own page of this address says why. */
class Refused extends Error {}

/** Comes after so many milliseconds, or with another signal: not every browser has `AbortSignal.timeout` and `.any`. */
export function limited(patience, signal) {
  const limit = new AbortController();
  setTimeout(() => limit.abort(), patience);
  signal?.addEventListener("abort", () => limit.abort());
  return limit.signal;
}

/** Who reads a page. */
const readerOf = (page) => page.querySelector(".whose")?.dataset.reader;

/** Fetches a page as a document. Of another reader, who signed in meanwhile, nothing comes into this one. */
export async function fetchPage(href, { signal, patience = PATIENCE } = {}) {
  const answer = await fetch(href, { headers: { accept: "text/html" }, signal: limited(patience, signal) });
  if (!answer.ok) throw new Refused(`the server answered ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (readerOf(page) !== readerOf(document)) {
    location.reload();
    // Whoever waits for the page goes with this one.
    return new Promise(() => {});
  }
  note("trouble", null);
  return page;
}

/** Says why a page was not fetched: in its place, or in a line when nothing came at all. */
export function tellTrouble(error, href) {
  // With a part of the page in it, the address would only lead there.
  if (error instanceof Refused) location.assign(href.split("#")[0]);
  else note("trouble", "The server does not answer. Try again in a moment.");
}

/** Whether two addresses are of one page, whatever part of it they point to. */
export const isSamePage = (a, b) => a.split("#")[0] === b.split("#")[0];
