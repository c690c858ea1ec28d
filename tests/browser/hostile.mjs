// Whoever can make an event can write anything into it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { demo, enter, fitsItsWidth, shot, story } from "./browser.mjs";

const EVIL = [
  "<script>alert(1)</script>",
  "\"><img src=x onerror=alert(1)>",
  "<svg onload=alert(1)>",
  "javascript:alert(1)",
  "\u202egnp.exe\u2066",
  "a\u0000b\u001b[31mc\u0007",
  "zero\u200bwidth\u00ad",
  "Z\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308\u0309\u030a\u030b\u030c".repeat(20),
  "wide".repeat(500),
  "𝒳".repeat(2000),
  "مرحبا שלום",
];

/** Marks that are stacked on letters stay within its place. */
const keepsMarks = async (part) =>
  assert.equal(await part.first().evaluate((each) => getComputedStyle(each).contain), "paint", `${part}`);

test("hostile events are shown and do nothing", () =>
  story({}, async (page) => {
    await enter(demo, EVIL.map((evil, number) => ({
      action: "hostile.tried",
      externalId: `hostile-${number}`,
      actor: { name: evil, email: evil, id: evil, ip: evil.slice(0, 100) },
      target: { type: evil, name: evil, id: evil },
      metadata: { [evil.slice(0, 200)]: [evil, { [evil.slice(0, 100)]: evil }] },
    })));
    await page.goto(`${demo}/audit?action=hostile.tried`);
    assert.equal(await page.locator("li.event").count(), EVIL.length);
    await shot(page, "hostile");
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: 900 });
      await fitsItsWidth(page);
      const heights = await page.locator("li.event").evaluateAll((rows) => rows.map((row) => row.offsetHeight));
      await keepsMarks(page.locator("li.event"));
      assert.ok(Math.max(...heights) < 260, `a row is ${Math.max(...heights)} pixels high`);
    }
    const text = await page.locator("#events").textContent();
    for (const hidden of ["\u202e", "\u2066", "\u200b", "\u00ad", "\u001b", "\u0000"]) {
      assert.ok(!text.includes(hidden), JSON.stringify(hidden));
    }
    assert.ok(text.includes("U+202E") && text.includes("aNULbESC[31mcBEL"));
    await shot(page, "hostile-phone");
    await page.setViewportSize({ width: 1280, height: 900 });
    for (let row = 0; row < EVIL.length; row += 1) {
      await page.locator("li.event a.open").nth(row).click();
      await page.locator("#drawer #event").waitFor();
      await page.locator(`#drawer #event[data-id="${await page.locator("li.event").nth(row).getAttribute("data-id")}"]`).waitFor();
      if (row === 2) await shot(page, "hostile-drawer");
      for (const part of ["h1", ".tree dt", ".tree dd", ".tree li"]) await keepsMarks(page.locator(`#drawer ${part}`));
      const fits = await page.locator("#drawer .inside").evaluate((part) => part.scrollWidth <= part.clientWidth);
      assert.ok(fits, `row ${row} makes the drawer wider than it is`);
      await page.keyboard.press("Escape");
      await page.locator("#drawer").waitFor({ state: "hidden" });
    }
    assert.equal(await page.evaluate(() => document.querySelectorAll("#events script, #events img, #events svg[onload]").length), 0);
    // What is in an event can be asked for, however long it is.
    for (const [number, shown] of [[5, "aNULbESC[31mcBEL"], [8, EVIL[8]], [9, EVIL[9]]]) {
      await page.goto(`${demo}/audit?action=hostile.tried&actor=${encodeURIComponent(EVIL[number])}`);
      assert.equal(await page.locator("li.event").count(), 1);
      assert.equal(await page.locator(".chips .value").last().textContent(), shown);
      await fitsItsWidth(page);
    }
  }));

test("a deep payload stays within the drawer", () =>
  story({ viewport: { width: 320, height: 640 } }, async (page) => {
    const deep = (levels) => (levels === 0 ? "bottom" : { down: [deep(levels - 1)] });
    await enter(demo, [{ action: "hostile.deep", externalId: "deep-1", metadata: deep(45) }]);
    await page.goto(`${demo}/audit?action=hostile.deep`);
    await page.locator("li.event a.open").click();
    const inside = page.locator("#drawer .inside");
    await inside.getByText("levels deep are left out").waitFor();
    assert.ok(await inside.evaluate((part) => part.scrollWidth <= part.clientWidth));
  }));
