// The list: older pages are appended, new events wait behind a button so that nothing jumps.

import { regroupDays, showTimes } from "./times.js";

const timeline = document.querySelector("#timeline");
const spoken = document.querySelector("#spoken");
const list = () => timeline.querySelector("#events");
const rows = () => [...timeline.querySelectorAll("li.event")];
const isNew = (id) => !timeline.querySelector(`li.event[data-id="${CSS.escape(id)}"]`);

/** Fetches a page of this site as a document. */
export async function fetchPage(href) {
  const answer = await fetch(href, { headers: { accept: "text/html" } });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

export function say(text) {
  spoken.textContent = text;
}

/** Newest first by (time, id), as the server sorts. */
function comesBefore(a, b) {
  const [timeA, timeB] = [Number(a.dataset.at), Number(b.dataset.at)];
  return timeA === timeB ? a.dataset.id > b.dataset.id : timeA > timeB;
}

function refreshed() {
  if (list()) {
    showTimes(list());
    regroupDays(list());
  }
}

// ---- older pages

let loading = false;

async function loadOlder(event) {
  const link = event.target.closest("#older");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  if (loading) return;
  loading = true;
  link.setAttribute("aria-busy", "true");
  try {
    const page = await fetchPage(link.href);
    const added = [...page.querySelectorAll("#events li.event")].filter((row) => isNew(row.dataset.id));
    list().append(...added.map((row) => document.adoptNode(row)));
    timeline.querySelector(".pager").replaceWith(document.adoptNode(page.querySelector(".pager")));
    // This list begins with the newest events, unlike the page that was fetched.
    for (const newest of timeline.querySelectorAll(".pager a:not(#older)")) {
      if (!new URLSearchParams(location.search).has("before")) newest.remove();
    }
    refreshed();
    say(`${added.length} older events`);
    added[0]?.querySelector("a.open").focus({ preventScroll: true });
  } catch {
    location.assign(link.href);
  } finally {
    loading = false;
  }
}

// ---- new events

const pill = timeline?.querySelector("#new-events");
const waiting = new Set();
const home = location.href;
let name = document.title;

function showCount() {
  const count = waiting.size;
  pill.hidden = count === 0;
  pill.textContent = count === 1 ? "1 new event" : `${count} new events`;
  document.title = count === 0 ? name : `(${count}) ${name}`;
}

/** What the window is called, beside how many events wait. */
export function nameWindow(other) {
  name = other;
  showCount();
}

function arrived(id) {
  if (!isNew(id)) return;
  waiting.add(id);
  showCount();
}

/** Puts the newest page into the list, where its rows belong. */
export async function showNew() {
  if (!pill || pill.hidden) return;
  pill.setAttribute("aria-busy", "true");
  try {
    const before = new Set(waiting);
    merge(await fetchPage(home));
    for (const id of before) waiting.delete(id);
    for (const id of [...waiting]) if (!isNew(id)) waiting.delete(id);
    showCount();
    say(`${before.size} new events shown`);
  } catch {
    // Signed out, or the store is away: the page itself says which.
    location.reload();
  } finally {
    pill.removeAttribute("aria-busy");
  }
}

function merge(page) {
  const fetched = [...page.querySelectorAll("#events li.event")];
  const known = rows();
  const meets = fetched.some((row) => !isNew(row.dataset.id));
  if (!meets || !list()) {
    // More is new than a page holds (or nothing was here): a list without a hole begins anew.
    const fresh = page.querySelector("#timeline");
    for (const old of timeline.querySelectorAll("#events, .pager, .empty")) old.remove();
    timeline.append(...[...fresh.querySelectorAll("#events, .pager, .empty")].map((part) => document.adoptNode(part)));
  } else {
    let place = 0;
    for (const row of fetched.filter((row) => isNew(row.dataset.id))) {
      while (place < known.length && comesBefore(known[place], row)) place += 1;
      const adopted = document.adoptNode(row);
      adopted.classList.add("fresh");
      if (place < known.length) known[place].before(adopted);
      // What is older than everything here stands on the next page anyway.
    }
  }
  const chart = page.querySelector("#chart");
  if (chart) {
    document.querySelector("#chart")?.replaceWith(document.adoptNode(chart));
    document.dispatchEvent(new Event("daybook:chart"));
  }
  refreshed();
}

/** What was entered between the rendering of this page and the opening of the stream. */
async function catchUp() {
  try {
    const page = await fetchPage(home);
    const last = rows().at(-1);
    for (const row of page.querySelectorAll("#events li.event")) {
      if (!last || comesBefore(row, last)) arrived(row.dataset.id);
    }
  } catch {
    // The stream tells of what comes next; a reload shows everything.
  }
}

/**
 * Listens while the page is seen: a browser opens six connections to a server at most, and a stream
 * in every forgotten tab would use them up.
 */
function listen(href) {
  let stream = null;
  let wait = 1000;
  const open = () => {
    if (document.hidden || stream) return;
    stream = new EventSource(href);
    stream.addEventListener("open", () => {
      document.documentElement.dataset.live = "on";
      wait = 1000;
      catchUp();
    });
    stream.addEventListener("message", (message) => {
      try {
        arrived(JSON.parse(message.data).id);
      } catch {
        // Not an event of ours.
      }
    });
    stream.addEventListener("error", () => {
      document.documentElement.dataset.live = "off";
      // The browser tries again by itself unless the server refused.
      if (stream?.readyState !== EventSource.CLOSED) return;
      stream = null;
      setTimeout(open, wait);
      wait = Math.min(wait * 2, 60_000);
    });
  };
  const close = () => {
    stream?.close();
    stream = null;
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}

export function startList() {
  if (!timeline) return;
  refreshed();
  timeline.addEventListener("click", loadOlder);
  pill.addEventListener("click", showNew);
  if (timeline.dataset.stream) listen(timeline.dataset.stream);
}
