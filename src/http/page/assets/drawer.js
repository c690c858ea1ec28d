// One event beside the list. Its address is that of its own page, so that it can be passed on.

import { fetchAsked, isSamePage, tellTrouble } from "./fetch.js";
import { nameWindow, standIn } from "./list.js";
import { keepNotes, say } from "./notes.js";
import { showTimes } from "./times.js";

const home = location.href;
const title = document.title;
let drawer = null;
let opener = null;
/** The answer that is waited for. */
let asked = null;
/** The way back to the list is gone once. */
let isClosing = false;

/** A click beside a dialog closes it; one that ends there, with text selected inside, does not. */
export function closeBeside(dialog, close) {
  let pressed = null;
  dialog.addEventListener("pointerdown", ({ target }) => {
    pressed = target;
  });
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog && pressed === dialog) close();
  });
}

function build() {
  const made = document.createElement("dialog");
  made.id = "drawer";
  made.setAttribute("aria-labelledby", "event-title");
  const close = made.appendChild(document.createElement("button"));
  close.type = "button";
  close.className = "close";
  close.setAttribute("aria-label", "Close");
  close.textContent = "×";
  close.addEventListener("click", closeDrawer);
  const state = made.appendChild(document.createElement("div"));
  state.className = "state";
  state.setAttribute("role", "status");
  const spoken = made.appendChild(document.createElement("p"));
  spoken.className = "sr spoken";
  spoken.setAttribute("role", "status");
  const inside = made.appendChild(document.createElement("div"));
  inside.className = "inside";
  inside.tabIndex = -1;
  closeBeside(made, closeDrawer);
  made.addEventListener("cancel", (event) => {
    event.preventDefault();
    closeDrawer();
  });
  document.body.append(made);
  return made;
}

export const isOpen = () => drawer?.open === true;

/** Opens the event that a row's link leads to, unless another is asked for before it comes. */
export async function openEvent(link, { push = true } = {}) {
  asked?.abort();
  const own = new AbortController();
  asked = own;
  // The next key goes on from here, whenever the answer comes.
  mark(link.closest("li.event"));
  opener = link;
  try {
    const page = await fetchAsked(link.href, { signal: own.signal });
    if (own.signal.aborted) return;
    show(page);
    if (push) remember(link.href);
  } catch (error) {
    if (!own.signal.aborted) tellTrouble(error, link.href);
  }
}

function show(page) {
  drawer ??= build();
  const inside = drawer.querySelector(".inside");
  inside.replaceChildren(document.adoptNode(page.querySelector("#event")));
  showTimes(inside);
  nameWindow(page.title);
  // A dialog that opens is heard by its name.
  if (drawer.open) say(inside.querySelector("#event-title").textContent);
  else drawer.showModal();
  // Keys scroll what has the focus.
  inside.focus();
  inside.scrollTop = 0;
}

function remember(href) {
  const state = { event: href };
  if (history.state?.event) history.replaceState(state, "", href);
  else history.pushState(state, "", href);
}

function mark(row) {
  for (const former of document.querySelectorAll("li.event.current")) former.classList.remove("current");
  row?.classList.add("current");
}

function hide() {
  asked?.abort();
  if (!isOpen()) return;
  keepNotes(drawer);
  say("");
  drawer.close();
  nameWindow(title);
  const place = standIn(opener);
  place.focus({ preventScroll: true });
  // The browser goes back to where the list stood when the drawer was opened, and the reader may have walked on since.
  requestAnimationFrame(() => place.closest("li.event")?.scrollIntoView({ block: "nearest" }));
}

/** Closes it, or gives up what has not come. The address is that of the list again. */
export function closeDrawer() {
  asked?.abort();
  // On an event's own page nothing is ever asked for.
  if (!asked || isClosing) return;
  isClosing = Boolean(history.state?.event);
  if (isClosing) history.back();
  else hide();
}

/** The next or the previous event, while the drawer is open. */
export function step(row) {
  const link = row?.querySelector("a.open");
  if (link) openEvent(link);
}

/** The link that a click means: its row's, unless it is on another link or ends a selection. */
function meant({ target }) {
  const link = target.closest("a, button");
  if (link) return link.closest("li.event a.open");
  return getSelection().isCollapsed ? target.closest("li.event")?.querySelector("a.open") : null;
}

export function startDrawer() {
  document.documentElement.classList.add("rows");
  document.addEventListener("click", (event) => {
    const { ctrlKey, metaKey, shiftKey, altKey, button } = event;
    const link = ctrlKey || metaKey || shiftKey || altKey || button !== 0 ? null : meant(event);
    if (!link) return;
    event.preventDefault();
    openEvent(link);
  });
  addEventListener("popstate", () => {
    isClosing = false;
    const href = history.state?.event;
    const link = href && [...document.querySelectorAll("li.event a.open")].find((each) => each.href === href);
    if (link) openEvent(link, { push: false });
    else if (isSamePage(location.href, home)) hide();
    else location.reload();
  });
}
