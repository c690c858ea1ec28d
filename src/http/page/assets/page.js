// What the page can do with scripts. Without them it is a form and links.

import { startChart } from "./chart.js";
import { startDrawer } from "./drawer.js";
import { startKeys } from "./keys.js";
import { startList } from "./list.js";
import { localiseForm, showTimes } from "./times.js";

const filters = document.querySelector("#filters");

/** Addresses that people pass on have no empty parameters. */
function tidy(form) {
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });
  form.addEventListener("change", (event) => {
    if (event.target.matches("select")) form.requestSubmit();
  });
}

startKeys();
showTimes(document);
if (filters) {
  localiseForm(filters);
  tidy(filters);
}
if (document.querySelector("#timeline")) {
  startList();
  startChart();
  startDrawer();
} else {
  document.querySelector("[data-copy-link]")?.addEventListener("click", async (event) => {
    await navigator.clipboard?.writeText(location.href);
    event.target.textContent = "Copied";
  });
}
