// The keyboard: j and k walk, Enter opens, / searches, ? tells.

import { closeBeside, closeDrawer, isOpen, openEvent, step } from "./drawer.js";
import { showNew } from "./list.js";

const rows = () => [...document.querySelectorAll("li.event")];
const help = document.querySelector("#help");
const keysOn = document.querySelector("#keys-on");

function walk(by) {
  const all = rows();
  if (all.length === 0) return;
  const current = document.activeElement?.closest("li.event") ?? document.querySelector("li.event.current");
  const at = all.indexOf(current);
  const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
  if (isOpen()) return step(next);
  next.querySelector("a.open").focus();
  next.scrollIntoView({ block: "nearest" });
}

export function toggleTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
  root.dataset.theme = theme;
  try {
    localStorage.setItem("daybook-theme", theme);
  } catch {
    // It lasts as long as this page.
  }
}

/** Whether single characters act: speech, or a hand that slips, gives them unmeant. All windows share it. */
function areOn() {
  try {
    return localStorage.getItem("daybook-keys") !== "off";
  } catch {
    return keysOn?.checked ?? true;
  }
}

function keepKeys() {
  try {
    localStorage.setItem("daybook-keys", keysOn.checked ? "on" : "off");
  } catch {
    // It lasts as long as this page.
  }
}

function openHelp() {
  if (!help) return;
  keysOn.checked = areOn();
  help.showModal();
}

const KEYS = {
  j: () => walk(1),
  k: () => walk(-1),
  n: showNew,
  t: toggleTheme,
  "/": () => document.querySelector("#text")?.select(),
  "?": openHelp,
};

export function startKeys() {
  document.querySelector("#theme")?.addEventListener("click", toggleTheme);
  document.querySelector("#help-open")?.addEventListener("click", openHelp);
  keysOn?.addEventListener("change", keepKeys);
  if (help) closeBeside(help, () => help.close());
  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("input, select, textarea");
    if (event.key === "Escape") {
      // The browser closes the help, which lies over the drawer.
      if (help?.open) return;
      if (field) {
        // The browser would empty the search.
        event.preventDefault();
        return field.blur();
      }
      if (isOpen()) event.preventDefault();
      closeDrawer();
      return;
    }
    if (field || event.ctrlKey || event.metaKey || event.altKey || help?.open) return;
    if (event.key === "Enter" && document.activeElement === document.body) {
      const current = document.querySelector("li.event.current a.open");
      if (current) openEvent(current);
      return;
    }
    const action = KEYS[event.key];
    if (!action || !areOn()) return;
    event.preventDefault();
    action();
  });
}
