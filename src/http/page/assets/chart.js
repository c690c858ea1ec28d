// The bars: fetched when the page did not wait for them, and brushed to choose a range of time.

import { fetchPage } from "./fetch.js";
import { showTimes } from "./times.js";

/** Below so many pixels it was a click on a bar. */
const CLICK = 4;
/** Counting may take long, in milliseconds. */
const PATIENCE = 120_000;

/** No event is later, and nothing later can be asked for. */
const LAST = Date.UTC(9999, 11, 30, 22, 0, 0, 999);

async function fetchBars(place) {
  try {
    const page = await fetchPage(place.dataset.source, { patience: PATIENCE });
    const chart = page.querySelector("#chart");
    if (!place.isConnected) return;
    place.replaceWith(document.adoptNode(chart));
    startChart();
  } catch {
    place.firstElementChild.textContent = "These events could not be counted now.";
  }
}

/** Ends the brushing of the bars that are shown. */
let stopBrushing = () => {};

function brush(chart) {
  const svg = chart.querySelector("svg");
  const plot = chart.querySelector(".plot");
  const [first, bucket, bars] = ["first", "bucket", "bars"].map((name) => Number(chart.dataset[name]));
  const { since = -Infinity, until = LAST } = chart.dataset;
  const band = plot.appendChild(document.createElement("div"));
  band.className = "band";
  band.hidden = true;
  const hint = plot.appendChild(document.createElement("output"));
  hint.className = "hint-of-band";
  hint.hidden = true;
  let from = null;
  let moved = false;

  const barAt = (x) => {
    const box = svg.getBoundingClientRect();
    return Math.min(bars - 1, Math.max(0, Math.floor(((x - box.left) / box.width) * bars)));
  };
  const span = (x) => {
    const [a, b] = [barAt(from), barAt(x)];
    return [Math.min(a, b), Math.max(a, b) + 1];
  };
  const stop = () => {
    from = null;
    band.hidden = true;
    hint.hidden = true;
  };
  const time = (number) => new Date(Math.min(until, Math.max(since, first + number * bucket)));
  const told = new Intl.DateTimeFormat("en-GB", {
    day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
    ...(document.documentElement.dataset.tz === "local" ? {} : { timeZone: "UTC" }),
  });

  plot.addEventListener("pointerdown", (event) => {
    // Two fingers pinch.
    if (!event.isPrimary) return stop();
    if (event.button !== 0) return;
    from = event.clientX;
    moved = false;
  });
  plot.addEventListener("pointermove", (event) => {
    if (from === null) return;
    // Let go elsewhere.
    if (event.buttons === 0) return stop();
    if (!moved && Math.abs(event.clientX - from) < CLICK) return;
    if (!moved) plot.setPointerCapture(event.pointerId);
    moved = true;
    const [start, end] = span(event.clientX);
    band.hidden = false;
    band.style.left = `${(100 * start) / bars}%`;
    band.style.width = `${(100 * (end - start)) / bars}%`;
    hint.hidden = false;
    hint.textContent = `${told.format(time(start))} – ${told.format(time(end))}`;
  });
  plot.addEventListener("pointerup", (event) => {
    if (from === null || !moved) return stop();
    const [start, end] = span(event.clientX);
    stop();
    const view = new URL(location.href);
    for (const gone of ["range", "before"]) view.searchParams.delete(gone);
    view.searchParams.set("since", time(start).toISOString());
    view.searchParams.set("until", time(end).toISOString());
    location.assign(view);
  });
  plot.addEventListener("pointercancel", stop);
  plot.addEventListener("dragstart", (event) => event.preventDefault());
  // A brush that ends on a bar is no click on it.
  plot.addEventListener("click", (event) => {
    if (moved) event.preventDefault();
    moved = false;
  }, true);
  stopBrushing = stop;
}

/** Tab reaches one bar, and arrows lead from it to the others. */
function walk(chart) {
  const svg = chart.querySelector("svg");
  svg.querySelectorAll("a").forEach((bar, number) => bar.setAttribute("tabindex", number === 0 ? "0" : "-1"));
  svg.addEventListener("keydown", (event) => {
    const bars = [...svg.querySelectorAll("a")];
    const at = bars.indexOf(event.target.closest("a"));
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: bars.length - 1 }[event.key];
    if (!bars[next] || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    event.preventDefault();
    bars[at].setAttribute("tabindex", "-1");
    bars[next].setAttribute("tabindex", "0");
    bars[next].focus();
  });
}

export function startChart() {
  const chart = document.querySelector("#chart");
  if (!chart) return;
  if (chart.dataset.source) return fetchBars(chart);
  showTimes(chart);
  if (!chart.dataset.bars) return;
  brush(chart);
  walk(chart);
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") stopBrushing();
});
document.addEventListener("daybook:chart", startChart);
