// The list: older pages are appended, new events wait behind a button so that nothing jumps.

import { fetchAsked, fetchPage, tellTrouble } from "./fetch.js";
import { listen } from "./live.js";
import { say } from "./notes.js";
import { onNewDay, regroupDays, showTimes } from "./times.js";

const main = document.querySelector("#main");
const timeline = document.querySelector("#timeline");
const list = () => timeline.querySelector("#events");
const rows = () => [...timeline.querySelectorAll("li.event")];
const rowOf = (id) => timeline.querySelector(`li.event[data-id="${CSS.escape(id)}"]`);
const isNew = (id) => !rowOf(id);
const linkOf = (row) => row?.querySelector("a.open");
const rowsOf = (page) => [...page.querySelectorAll("#events li.event")];
const olderThan = (page) => page.querySelector("#older");
/** How many rows new events may make of a list. */
const MOST_ROWS = 500;
/** How many pages are fetched for what belongs far down. */
const MOST_PAGES = 5;
/** How many events a page may be asked for. */
const MOST_LIMIT = 1_000;
/** How many new events are kept in mind. */
const MOST_WAITING = 5_000;
/** How long an event may wait to be counted, in milliseconds. */
const COUNTED_EVERY = 100;

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
    const page = await fetchAsked(link.href);
    // The list may end elsewhere meanwhile, where another link stands.
    if (!link.isConnected) return;
    const added = rowsOf(page).filter((row) => isNew(row.dataset.id));
    list().append(...added.map((row) => document.adoptNode(row)));
    timeline.querySelector(".pager").replaceWith(document.adoptNode(page.querySelector(".pager")));
    // This list begins with the newest events, unlike the page that was fetched.
    for (const newest of timeline.querySelectorAll(".pager a:not(#older)")) {
      if (!new URLSearchParams(location.search).has("before")) newest.remove();
    }
    wanted = rows().length;
    refreshed();
    say(`${added.length} older events`);
    linkOf(added[0])?.focus({ preventScroll: true });
  } catch (error) {
    link.removeAttribute("aria-busy");
    tellTrouble(error, link.href);
  } finally {
    loading = false;
    forgetSettled();
  }
}

// ---- new events

const pill = timeline?.querySelector("#new-events");
/** What is announced: places by id, and whether there are more, which are not told apart. */
const nothing = () => ({ places: new Map(), isMore: false });
let waiting = nothing();
let counting = null;
const home = location.href;
let name = document.title;

const numbered = ({ places, isMore }) => `${places.size}${isMore ? "+" : ""}`;
const eventsOf = (number) => (number === "1" ? "event" : "events");

function showCount() {
  clearTimeout(counting);
  counting = null;
  const number = numbered(waiting);
  pill.hidden = number === "0";
  pill.textContent = pill.hidden ? "" : `${number} new ${eventsOf(number)}`;
  document.title = pill.hidden ? name : `(${number}) ${name}`;
}

/** What the window is called, beside how many events wait. */
export function nameWindow(other) {
  name = other;
  showCount();
}

/** Where what is shown begins, if anywhere: a range moves on with the clock. */
const beginning = () => Date.parse(new URL(timeline.dataset.stream, home).searchParams.get("since"));

/** Whether its place is among the rows that stand; below them it comes with an older page. */
function belongs(place) {
  // A stream that is open tells of what a range has left, too.
  if (place.at < beginning()) return false;
  const last = list()?.lastElementChild;
  return !last || !olderThan(timeline) || comesBefore(place, placeOf(last));
}

function arrived(place) {
  // Where the list will end is not known while an older page is on its way.
  if (waiting.isMore || !isNew(place.id) || !(loading || belongs(place))) return;
  waiting.places.set(place.id, place);
  waiting.isMore = waiting.places.size >= MOST_WAITING;
  // Thousands come at once when a source catches up.
  counting ??= setTimeout(showCount, COUNTED_EVERY);
}

/** Forgets what stands in the list by now, or belongs below it. */
function forgetSettled() {
  const { places } = waiting;
  for (const [id, place] of places) if (!isNew(id) || !belongs(place)) places.delete(id);
  waiting.isMore &&= places.size > 0;
  showCount();
}

/** Puts what is new into the list, where it belongs. */
export async function showNew() {
  if (!pill || pill.hidden || pill.hasAttribute("aria-busy")) return;
  pill.setAttribute("aria-busy", "true");
  const promised = waiting;
  waiting = nothing();
  try {
    const pages = await fetchNew(promised);
    const focused = document.activeElement;
    const fresh = merge(pages, promised);
    keepFocus(focused, fresh);
    const isAll = fresh.length >= promised.places.size;
    const all = isAll ? `${fresh.length}` : numbered(promised);
    say(`${isAll ? all : `${fresh.length} of ${all}`} ${eventsOf(all)} added`);
  } catch (error) {
    const { places, isMore } = waiting;
    waiting = promised;
    for (const place of places.values()) arrived(place);
    waiting.isMore ||= isMore;
    tellTrouble(error, home);
  } finally {
    forgetSettled();
    pill.removeAttribute("aria-busy");
  }
}

/** Whether the list goes on where a page ends, without a hole. */
const meets = (page) => !olderThan(page) || !isNew(rowsOf(page).at(-1).dataset.id);

/** Whether it does, or a page that follows another ends below the whole list. */
const meetsOrPasses = (page) =>
  meets(page) || comesBefore(placeOf(list().lastElementChild), placeOf(rowsOf(page).at(-1)));

/** Whether it does, and nothing that was promised belongs below. */
function reaches(page, promised) {
  if (!meetsOrPasses(page) || promised.isMore) return false;
  if (!olderThan(page)) return true;
  const end = placeOf(rowsOf(page).at(-1));
  return [...promised.places.values()].every((place) => !comesBefore(end, place));
}

/** The newest page, and those that follow it as far down as something was promised. */
async function fetchNew(promised) {
  const pages = [await fetchAsked(home)];
  if (!meets(pages[0]) || promised.isMore) return pages;
  while (pages.length < MOST_PAGES && !reaches(pages.at(-1), promised)) {
    pages.push(await fetchAsked(olderThan(pages.at(-1)).href));
  }
  return pages;
}

/** The rows that came. */
function merge(pages, promised) {
  const newest = pages[0];
  moveOn(newest);
  const goesOn = list() && rowsOf(newest).length > 0 && reaches(pages.at(-1), promised);
  const isWhole = !olderThan(newest);
  const fresh = (goesOn ? pages : [newest]).flatMap(rowsOf).filter((row) =>
    isNew(row.dataset.id) && (!goesOn || isWhole || belongs(placeOf(row))));
  // More is new, or further down, than was fetched (or nothing was here): a list without a hole begins anew.
  if (!goesOn) beginAnew(newest.querySelector("#timeline"));
  else {
    insert(fresh);
    dropLeft();
    if (isWhole) endHere(newest);
    dropOldest(Math.max(MOST_ROWS, wanted));
  }
  const chart = newest.querySelector("#chart");
  if (chart) {
    document.querySelector("#chart")?.replaceWith(document.adoptNode(chart));
    document.dispatchEvent(new Event("daybook:chart"));
  }
  refreshed();
  return fresh;
}

/** Whoever asks for the new events is led to them; rows go, but not from under whoever is there. */
function keepFocus(focused, fresh) {
  // A click on no control focuses what lies around it.
  if ([pill, timeline, main, document.body].includes(focused)) {
    const first = fresh.find((row) => row.isConnected) ?? rows()[0];
    (linkOf(first) ?? main).focus();
  } else if (focused.closest("li.event")) standIn(focused).focus({ preventScroll: true });
  else if (!focused.isConnected) {
    const stop = focused.closest("#chart") ? '#chart a[tabindex="0"]' : "#older";
    (document.querySelector(stop) ?? main).focus({ preventScroll: true });
  }
}

/** A link of a row, or when that is gone the row of the same event. */
export function standIn(link) {
  return link.isConnected ? link : linkOf(rowOf(link.closest("li.event").dataset.id)) ?? main;
}

function beginAnew(fresh) {
  const current = timeline.querySelector("li.event.current")?.dataset.id;
  for (const old of timeline.querySelectorAll("#events, .pager, .empty")) old.remove();
  timeline.append(...[...fresh.querySelectorAll("#events, .pager, .empty")].map((part) => document.adoptNode(part)));
  if (current) rowOf(current)?.classList.add("current");
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
}

/** What is exported or printed, and what a stream that is opened anew tells of, begins where the newest page does. */
function moveOn(newest) {
  const { stream } = newest.querySelector("#timeline").dataset;
  if (stream) timeline.dataset.stream = stream;
  const printed = document.querySelector("#printed");
  printed.replaceChildren(...document.adoptNode(newest.querySelector("#printed")).childNodes);
  showTimes(printed);
  const exports = newest.querySelectorAll(".exports a");
  document.querySelectorAll(".exports a").forEach((link, number) => {
    link.href = exports[number].href;
  });
}

/** What a range has left goes. */
function dropLeft() {
  const since = beginning();
  for (const row of rows()) if (placeOf(row).at < since) row.remove();
}

/** Nothing older is to be asked for, as this page says. */
function endHere(page) {
  const end = [...page.querySelectorAll(".pager .end")].map((part) => document.adoptNode(part));
  timeline.querySelector(".pager").replaceChildren(...end);
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

/** So long after it was asked for a page is old, in milliseconds. */
const OLD = 10_000;

/** Whether it may be long since this page was rendered: while it is hidden it does not listen. */
let isOld = document.hidden;

/**
 * What was entered between the rendering of this page and the opening of the stream, or while there was
 * none: then it may stand anywhere among the rows, and new ones push those down. Whether it is known now.
 */
async function catchUp() {
  const beyond = new URL(home);
  beyond.searchParams.set("limit", Math.min(MOST_LIMIT, rows().length + Number(timeline.dataset.limit)));
  const pages = isOld || performance.now() > OLD ? [beyond] : [new URL(home), beyond];
  isOld = true;
  try {
    let places = [];
    let isMore = true;
    while (isMore && pages.length > 0) {
      const page = await fetchPage(pages.shift());
      places = rowsOf(page).map(placeOf);
      // New ones have pushed rows off its end, and among those there may be more.
      isMore = olderThan(page) !== null && belongs(places.at(-1)) && places.some(({ id }) => isNew(id));
    }
    for (const place of places) arrived(place);
    waiting.isMore ||= isMore;
    return true;
  } catch {
    return false;
  }
}

export function startList() {
  if (!timeline) return;
  refreshed();
  onNewDay(refreshed);
  timeline.addEventListener("click", loadOlder);
  pill.addEventListener("click", () => {
    // Not every browser focuses a button that is clicked.
    pill.focus({ preventScroll: true });
    showNew();
  });
  if (timeline.dataset.stream) {
    listen(() => timeline.dataset.stream, {
      arrived: ({ id, at }) => arrived({ id, at: Date.parse(at) }),
      opened: catchUp,
    });
  }
}
