// One event beside the list. Its address is that of its own page, so that it can be passed on.

import { fetchPage, nameWindow } from "./list.js";
import { showTimes } from "./times.js";

const home = location.href;
const title = document.title;
let drawer = null;
let opener = null;

function build() {
  const made = document.createElement("dialog");
  made.id = "drawer";
  made.setAttribute("aria-label", "Event");
  const close = made.appendChild(document.createElement("button"));
  close.type = "button";
  close.className = "close";
  close.setAttribute("aria-label", "Close");
  close.textContent = "×";
  close.addEventListener("click", closeDrawer);
  made.appendChild(document.createElement("div")).className = "inside";
  // A click beside the drawer closes it.
  made.addEventListener("click", (event) => {
    if (event.target === made) closeDrawer();
  });
  made.addEventListener("cancel", (event) => {
    event.preventDefault();
    closeDrawer();
  });
  document.body.append(made);
  return made;
}

export const isOpen = () => drawer?.open === true;

/** Opens the event that a row's link leads to. */
export async function openEvent(link, { push = true } = {}) {
  try {
    const page = await fetchPage(link.href);
    drawer ??= build();
    const inside = drawer.querySelector(".inside");
    inside.replaceChildren(document.adoptNode(page.querySelector("#event")));
    showTimes(inside);
    mark(link.closest("li.event"));
    opener = link;
    if (push) {
      const state = { event: link.href };
      if (history.state?.event) history.replaceState(state, "", link.href);
      else history.pushState(state, "", link.href);
    }
    nameWindow(page.title);
    if (!drawer.open) drawer.showModal();
    inside.scrollTop = 0;
  } catch {
    location.assign(link.href);
  }
}

function mark(row) {
  for (const former of document.querySelectorAll("li.event.current")) former.classList.remove("current");
  row?.classList.add("current");
}

function hide() {
  drawer?.close();
  nameWindow(title);
  opener?.focus();
}

/** Closes it, and the address is that of the list again. */
export function closeDrawer() {
  if (!isOpen()) return;
  if (history.state?.event) history.back();
  else hide();
}

/** The next or the previous event, while the drawer is open. */
export function step(row) {
  const link = row?.querySelector("a.open");
  if (link) openEvent(link);
}

async function copyLink(button) {
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy it from the address bar";
  }
}

export function startDrawer() {
  document.addEventListener("click", (event) => {
    const copy = event.target.closest("[data-copy-link]");
    if (copy) return copyLink(copy);
    const link = event.target.closest("li.event a.open");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    openEvent(link);
  });
  addEventListener("popstate", () => {
    const href = history.state?.event;
    const link = href && [...document.querySelectorAll("li.event a.open")].find((each) => each.href === href);
    if (link) openEvent(link, { push: false });
    else if (location.href === home) hide();
    else location.reload();
  });
}
