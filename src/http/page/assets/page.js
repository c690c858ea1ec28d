// What the page can do with scripts. Without them it is a form and links.

import { startChart } from "./chart.js";
import { startDrawer } from "./drawer.js";
import { isSamePage } from "./fetch.js";
import { startKeys } from "./keys.js";
import { startList } from "./list.js";
import { localiseForm, showTimes } from "./times.js";

const filters = document.querySelector("#filters");

/** Addresses that people pass on have no empty parameters. */
function tidy(form) {
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });
}

async function copyLink(button) {
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy it from the address bar";
  }
}

/** A list that was left within its own document comes back only when it is loaded. */
function startEvent() {
  const own = location.href;
  addEventListener("popstate", () => {
    if (!isSamePage(location.href, own)) location.reload();
  });
}

startKeys();
showTimes(document);
if (filters) {
  localiseForm(filters);
  tidy(filters);
  // A page that a browser kept whole shows what was chosen before it was left.
  addEventListener("pageshow", ({ persisted }) => persisted && filters.reset());
}
startChart();
if (document.querySelector("#timeline")) {
  startList();
  startDrawer();
} else {
  startEvent();
}
document.addEventListener("click", (event) => {
  const copy = event.target.closest("[data-copy-link]");
  if (copy) copyLink(copy);
});
