// Dark and light, wide and narrow, seen and heard.

import assert from "node:assert/strict";
import { test } from "node:test";
import { demo, fitsItsWidth, hasContrast, hasLabels, shot, story } from "./browser.mjs";

const PAGES = [
  ["list", "/audit"],
  ["failed", "/audit?outcome=failure&actor=akadmin&since=2026-01-01"],
  ["none", "/audit?text=no-such-thing"],
  ["wrong", "/audit?since=yesterday"],
];

/** Rows as they are when they have just come, of sources of every kind that are named beside. */
const flash = (page) =>
  page.evaluate((kinds) => {
    for (const [number, row] of document.querySelectorAll("li.event").entries()) {
      row.className = `event fresh k-${kinds[number % kinds.length]}`;
      row.querySelector(".verb").classList.add("source");
    }
    for (const animation of document.getAnimations()) {
      animation.pause();
      animation.currentTime = 0;
    }
  }, ["authentik", "ocis", "stalwart", "recorder", "daybook"]);

for (const colorScheme of ["light", "dark"]) {
  test(`everything is legible in ${colorScheme}`, () =>
    story({ colorScheme, expected: /400|404/ }, async (page) => {
      for (const [name, path] of PAGES) {
        await page.goto(demo + path);
        await hasContrast(page);
        await hasLabels(page);
        if (name !== "list") continue;
        await shot(page, `list-${colorScheme}`);
        await flash(page);
        await hasContrast(page);
      }
      await page.goto(`${demo}/audit?source=authentik`);
      await page.locator("li.event a.open").first().click();
      await page.locator("#drawer #event").waitFor();
      await hasContrast(page);
      await shot(page, `drawer-${colorScheme}`);
      await page.goto(page.url());
      await hasContrast(page);
      await hasLabels(page);
      await page.keyboard.press("?");
      await hasContrast(page);
      await page.goto(`${demo}/audit/events/none`);
      await page.getByText("Nothing here").waitFor();
      await hasContrast(page);
    }));
}

test("a chosen theme stays chosen", () =>
  story({ colorScheme: "light" }, async (page) => {
    await page.goto(`${demo}/audit`);
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.getByLabel("Dark or light").click();
    const dark = await ground();
    assert.notEqual(dark, light);
    await page.reload();
    assert.equal(await ground(), dark);
    await page.keyboard.press("t");
    assert.equal(await ground(), light);
  }));

for (const javaScriptEnabled of [true, false]) {
  test(`no condition has to be unfolded where there is room${javaScriptEnabled ? "" : ", or without scripts"}`, () =>
    story({ javaScriptEnabled }, async (page) => {
      const fields = page.locator(".folded input");
      for (const width of [1280, 900, 899, 390]) {
        await page.setViewportSize({ width, height: 900 });
        await page.goto(`${demo}/audit`);
        const isOpen = width >= 900 || !javaScriptEnabled;
        assert.equal(await page.getByText("More conditions").isVisible(), !isOpen, `${width}`);
        for (const field of await fields.all()) assert.equal(await field.isVisible(), isOpen, `${width}`);
        await fitsItsWidth(page);
        await hasLabels(page);
        if (!isOpen) continue;
        const rows = await fields.evaluateAll((all) => new Set(all.map((field) => field.getBoundingClientRect().top)).size);
        assert.equal(rows, { 1280: 1, 900: 1, 899: 2, 390: 6 }[width], `${width}`);
        await page.getByRole("button", { name: "Apply" }).focus();
        await page.keyboard.press("Tab");
        assert.equal(await page.evaluate(() => document.activeElement.name), "action");
      }
      await shot(page, `conditions-${javaScriptEnabled ? "folded" : "plain"}`);
    }));
}

test("a phone shows it without scrolling sideways", () =>
  story({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, expected: /400/ }, async (page) => {
    for (const [name, path] of PAGES) {
      await page.goto(demo + path);
      await fitsItsWidth(page);
      await hasLabels(page);
      await shot(page, `phone-${name}`);
    }
    await page.goto(`${demo}/audit`);
    await page.getByText("More conditions").click();
    await fitsItsWidth(page);
    await hasLabels(page);
    await page.locator("li.event a.open").first().click();
    await page.locator("#drawer #event").waitFor();
    await fitsItsWidth(page);
    await hasLabels(page);
    await shot(page, "phone-drawer");
    await page.goto(page.url());
    await fitsItsWidth(page);
    await shot(page, "phone-event");
  }));
