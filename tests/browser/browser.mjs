// A real browser, and what every story holds it to: nothing on the console, no violated policy.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { chromium } from "playwright-core";

const wanted = (name) => {
  const value = process.env[name];
  assert.ok(value, `${name} is not set: tests/page_browser.rs runs these stories`);
  return value;
};

/** The demo, open to everyone; and a Daybook that asks for tokens. */
export const demo = wanted("DEMO_URL");
export const guarded = wanted("GUARDED_URL");
export const tokens = {
  operator: wanted("OPERATOR_TOKEN"),
  tenant: wanted("TENANT_TOKEN"),
  recorder: wanted("RECORDER_TOKEN"),
};
const screenshots = wanted("SCREENSHOTS");
mkdirSync(screenshots, { recursive: true });

let browser;

export async function openBrowser() {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
}

export async function closeBrowser() {
  await browser?.close();
}

/**
 * Opens a page in a profile of its own and tells a story with it. `expected` matches console errors
 * that belong to the story: Chromium reports every refused document as one.
 */
export async function story(options, tell) {
  const { expected, ...context } = options;
  const profile = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...context });
  profile.setDefaultTimeout(30_000);
  const trouble = [];
  const watch = (page) => {
    page.on("console", (message) => {
      const text = message.text();
      if (message.type() === "error" && !expected?.test(text)) trouble.push(`console: ${text}`);
    });
    page.on("pageerror", (error) => trouble.push(`exception: ${error.message}`));
    page.on("dialog", (dialog) => {
      trouble.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
  };
  profile.on("page", watch);
  await profile.exposeFunction("violated", (policy) => trouble.push(`policy: ${policy}`));
  if (context.javaScriptEnabled !== false) {
    await profile.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => {
        window.violated(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
      });
    });
  }
  const page = await profile.newPage();
  try {
    await tell(page);
    assert.deepEqual(trouble, []);
  } finally {
    await profile.close();
  }
}

export const shot = (page, name) => page.screenshot({ path: `${screenshots}/${name}.png` });

/** Enters events as a service would. */
export async function enter(base, events, token = tokens.recorder) {
  const answer = await fetch(`${base}/api/v1/events`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ events }),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  // What the store was slow to take stands in the journal, and on no page yet.
  const journal = async () => (await fetch(`${base}/metrics`)).text();
  const limit = Date.now() + 60_000;
  while (!/^daybook_journal_bytes 0$/m.test(await journal())) {
    assert.ok(Date.now() < limit, "the journal is not drained");
    await pause(50);
  }
  return answer.json();
}

/** All events that a query finds, by way of the API. */
export async function all(base, query, token = tokens.operator) {
  const found = [];
  let before = "";
  do {
    const answer = await fetch(`${base}/api/v1/events?${query}&limit=1000${before}`, {
      headers: { authorization: `Bearer ${token}` },
    });
    assert.equal(answer.status, 200);
    const { events, next } = await answer.json();
    found.push(...events);
    before = next ? `&before=${next}` : "";
  } while (before);
  return found;
}

export async function signIn(page, token, path = "/audit") {
  await page.goto(guarded + path);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
}

export const ids = (page) =>
  page.locator("li.event").evaluateAll((rows) => rows.map((row) => row.dataset.id));

export async function fitsItsWidth(page) {
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= room, `${wide} pixels wide in ${room}: ${page.url()}`);
}

/** Every text that can be seen has the contrast that WCAG AA wants. */
export async function hasContrast(page) {
  const faint = await page.evaluate(() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      return [r, g, b, a / 255];
    };
    const over = (top, under) => top.slice(0, 3).map((part, i) => part * top[3] + under[i] * (1 - top[3]));
    const ground = (element) => {
      const layers = [];
      for (let each = element; each; each = each.parentElement) {
        const color = rgba(getComputedStyle(each).backgroundColor);
        layers.push(color);
        if (color[3] === 1) break;
      }
      return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
    };
    const luminance = (color) => {
      const [r, g, b] = color.map((part) => {
        const c = part / 255;
        return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (a, b) => {
      const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
      return (high + 0.05) / (low + 0.05);
    };
    const modal = document.querySelector("dialog[open]");
    const faint = [];
    const texts = document.createTreeWalker(modal ?? document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const element = texts.currentNode.parentElement;
      if (!texts.currentNode.data.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
      if (element.closest("script, style, noscript, option, .sr, .skip, svg")) continue;
      const style = getComputedStyle(element);
      const size = parseFloat(style.fontSize);
      const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      const under = ground(element);
      const found = ratio(over(rgba(style.color), under), under);
      if (found < (isLarge ? 3 : 4.5)) faint.push(`${found.toFixed(2)} ${texts.currentNode.data.trim().slice(0, 40)} (${element.className})`);
    }
    return [...new Set(faint)];
  });
  assert.deepEqual(faint, [], page.url());
}

/** Whoever hears the page hears what each field and button is for. */
export async function hasLabels(page) {
  const nameless = await page.evaluate(() =>
    [...document.querySelectorAll("input:not([type=hidden]), select, textarea, button, a[href]")]
      .filter((control) => control.checkVisibility({ contentVisibilityAuto: true }))
      .filter((control) => {
        // What is not shown is not heard; a bar has a title.
        const label = control.labels?.[0]?.innerText ?? "";
        const own = control.matches("button, a") ? control.innerText ?? control.querySelector("title")?.textContent ?? "" : "";
        return !(label + own + (control.getAttribute("aria-label") ?? "")).trim();
      })
      .map((control) => control.outerHTML.slice(0, 120)),
  );
  assert.deepEqual(nameless, [], page.url());
}
