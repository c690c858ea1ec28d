// Pages of this site, fetched to take parts of them.

import { note } from "./notes.js";

/**
 * So long nothing may come: longer than the service waits for a turn, for its store by default and for room. Then it tells
 * itself what is wrong.
 */
const PATIENCE = 35_000;

/** The server answered, but not with the page; its own page of this address says why. */
class Refused extends Error {}

/** Comes after so many milliseconds, or with another signal: not every browser has `AbortSignal.timeout` and `.any`. */
export const limited = (patience, signal) => renewable(patience, signal).signal;

/** The same, and what begins the time anew. */
function renewable(patience, signal) {
  const limit = new AbortController();
  let timer = 0;
  const renew = () => {
    clearTimeout(timer);
    timer = setTimeout(() => limit.abort(), patience);
  };
  renew();
  signal?.addEventListener("abort", () => limit.abort());
  return { signal: limit.signal, renew };
}

/** The text of an answer, piece by piece: a long one may be long on its way. */
async function textOf(answer, came) {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    came();
    if (done) return text + decoder.decode();
    text += decoder.decode(value, { stream: true });
  }
}

/** Who reads a page. */
const readerOf = (page) => page.querySelector(".whose")?.dataset.reader;

/** Fetches a page as a document. Of another reader, who signed in meanwhile, nothing comes into this one. */
export async function fetchPage(href, { signal, patience = PATIENCE } = {}) {
  const limit = renewable(patience, signal);
  const answer = await fetch(href, { headers: { accept: "text/html" }, signal: limit.signal });
  if (!answer.ok) throw new Refused(`the server answered ${answer.status}`);
  const page = new DOMParser().parseFromString(await textOf(answer, limit.renew), "text/html");
  if (readerOf(page) !== readerOf(document)) {
    location.reload();
    // Whoever waits for the page goes with this one.
    return new Promise(() => {});
  }
  return page;
}

/** Fetches one that the reader asked for: when it comes, the trouble of what was asked for before is over. */
export async function fetchAsked(href, options) {
  const page = await fetchPage(href, options);
  note("trouble", null);
  return page;
}

/** Says why a page that the reader asked for was not fetched: in its place, or in a line when nothing came at all. */
export function tellTrouble(error, href) {
  // With a part of the page in it, the address would only lead there.
  if (error instanceof Refused) location.assign(href.split("#")[0]);
  else note("trouble", "The server does not answer. Try again in a moment.");
}

/** Whether two addresses are of one page, whatever part of it they point to. */
export const isSamePage = (a, b) => a.split("#")[0] === b.split("#")[0];
