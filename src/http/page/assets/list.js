// The list: older pages are appended, new events wait behind a button so that nothing jumps.

import { fetchPage, tellTrouble } from "./fetch.js";
import { listen } from "./live.js";
import { regroupDays, showTimes } from "./times.js";

const timeline = document.querySelector("#timeline");
const spoken = document.querySelector("#spoken");
const list = () => timeline.querySelector("#events");
const rows = () => [...timeline.querySelectorAll("li.event")];
const isNew = (id) => !timeline.querySelector(`li.event[data-id="${CSS.escape(id)}"]`);
const isComplete = () => !timeline.querySelector("#older");
/** How many rows new events may make of a list. */
const MOST_ROWS = 500;

function say(text) {
  spoken.textContent = text;
}

const placeOf = (row) => ({ at: Number(row.dataset.at), id: row.dataset.id });

/** Newest first by (time, id), as the server sorts. */
function comesBefore(a, b) {
  return a.at === b.at ? a.id > b.id : a.at > b.at;
}

function refreshed() {
  if (list()) {
    showTimes(list());
    regroupDays(list());
  }
}

// ---- older pages

let loading = false;
/** How many rows the reader asked for. */
let wanted = timeline ? rows().length : 0;

async function loadOlder(event) {
  const link = event.target.closest("#older");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  if (loading) return;
  loading = true;
  link.setAttribute("aria-busy", "true");
  try {
    const page = await fetchPage(link.href);
    // The list may end elsewhere meanwhile, where another link stands.
    if (!link.isConnected) return;
    const added = [...page.querySelectorAll("#events li.event")].filter((row) => isNew(row.dataset.id));
    list().append(...added.map((row) => document.adoptNode(row)));
    timeline.querySelector(".pager").replaceWith(document.adoptNode(page.querySelector(".pager")));
    // This list begins with the newest events, unlike the page that was fetched.
    for (const newest of timeline.querySelectorAll(".pager a:not(#older)")) {
      if (!new URLSearchParams(location.search).has("before")) newest.remove();
    }
    wanted = rows().length;
    refreshed();
    say(`${added.length} older events`);
    added[0]?.querySelector("a.open").focus({ preventScroll: true });
  } catch (error) {
    link.removeAttribute("aria-busy");
    tellTrouble(error, link.href);
  } finally {
    loading = false;
  }
}

// ---- new events

const pill = timeline?.querySelector("#new-events");
const waiting = new Set();
const home = location.href;
let name = document.title;

const counted = (count) => (count === 1 ? "1 new event" : `${count} new events`);

function showCount() {
  const count = waiting.size;
  pill.hidden = count === 0;
  pill.textContent = counted(count);
  document.title = count === 0 ? name : `(${count}) ${name}`;
}

/** What the window is called, beside how many events wait. */
export function nameWindow(other) {
  name = other;
  showCount();
}

/** Whether it stands on the newest page, which is what the button brings. */
function isOnNewestPage(place) {
  const known = rows();
  const limit = Number(timeline.dataset.limit);
  const last = known.length < limit && isComplete() ? null : known[Math.min(limit, known.length) - 1];
  return !last || comesBefore(place, placeOf(last));
}

function arrived(place) {
  if (!isNew(place.id) || !isOnNewestPage(place)) return;
  waiting.add(place.id);
  showCount();
}

/** Puts the newest page into the list, where its rows belong. */
export async function showNew() {
  if (!pill || pill.hidden || pill.hasAttribute("aria-busy")) return;
  pill.setAttribute("aria-busy", "true");
  try {
    const promised = [...waiting];
    const page = await fetchPage(home);
    const shown = merge(page);
    for (const id of promised) waiting.delete(id);
    for (const id of [...waiting]) if (!isNew(id)) waiting.delete(id);
    showCount();
    say(`${shown < promised.length ? `${shown} of ${counted(promised.length)}` : counted(shown)} shown`);
  } catch (error) {
    tellTrouble(error, home);
  } finally {
    pill.removeAttribute("aria-busy");
  }
}

/** Tells how many rows came. */
function merge(page) {
  const all = [...page.querySelectorAll("#events li.event")];
  const fresh = all.filter((row) => isNew(row.dataset.id));
  const meets = !page.querySelector("#older") || !fresh.includes(all.at(-1));
  // More is new than a page holds (or nothing was here): a list without a hole begins anew.
  if (!meets || !list()) beginAnew(page.querySelector("#timeline"));
  else insert(fresh);
  const chart = page.querySelector("#chart");
  if (chart) {
    document.querySelector("#chart")?.replaceWith(document.adoptNode(chart));
    document.dispatchEvent(new Event("daybook:chart"));
  }
  refreshed();
  return fresh.length;
}

function beginAnew(fresh) {
  for (const old of timeline.querySelectorAll("#events, .pager, .empty")) old.remove();
  timeline.append(...[...fresh.querySelectorAll("#events, .pager, .empty")].map((part) => document.adoptNode(part)));
  wanted = rows().length;
}

function insert(fresh) {
  const known = rows();
  let place = 0;
  for (const row of fresh) {
    while (place < known.length && comesBefore(placeOf(known[place]), placeOf(row))) place += 1;
    const adopted = document.adoptNode(row);
    adopted.classList.add("fresh");
    if (place < known.length) known[place].before(adopted);
    else list().append(adopted);
  }
  dropOldest(Math.max(MOST_ROWS, wanted));
}

/** The older events begin below the last row that stays. */
function dropOldest(most) {
  const [last, ...dropped] = rows().slice(most - 1);
  if (dropped.length === 0) return;
  for (const row of dropped) row.remove();
  const href = new URL(home);
  href.hash = "";
  href.searchParams.set("before", last.dataset.key);
  const older = document.createElement("a");
  Object.assign(older, { id: "older", className: "button", rel: "next", href, textContent: "Older events" });
  timeline.querySelector(".pager").replaceChildren(older);
}

/** What was entered between the rendering of this page and the opening of the stream. */
async function catchUp() {
  try {
    const page = await fetchPage(home);
    for (const row of page.querySelectorAll("#events li.event")) arrived(placeOf(row));
  } catch {
    // The stream tells of what comes next; a reload shows everything.
  }
}

export function startList() {
  if (!timeline) return;
  refreshed();
  timeline.addEventListener("click", loadOlder);
  pill.addEventListener("click", showNew);
  if (timeline.dataset.stream) {
    listen(timeline.dataset.stream, {
      arrived: ({ id, at }) => arrived({ id, at: Date.parse(at) }),
      opened: catchUp,
    });
  }
}
