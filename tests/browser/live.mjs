// Events come in while somebody reads.

import assert from "node:assert/strict";
import { test } from "node:test";
import { all, demo, enter, guarded, ids, shot, signIn, story, tokens } from "./browser.mjs";

const counted = (number, minute) => ({
  action: "live.counted",
  externalId: `live-${number}`,
  at: `2026-11-20T${String(4 + Math.floor(minute / 60)).padStart(2, "0")}:${String(minute % 60).padStart(2, "0")}:00Z`,
  actor: { name: `Counter ${number}` },
});

test("new events wait behind a button and nothing jumps", () =>
  story({}, async (page) => {
    await page.goto(`${demo}/audit`);
    const before = await ids(page);
    const pill = page.locator("#new-events");
    await pill.waitFor();
    assert.match(await pill.textContent(), /^\d+ new events?$/);
    assert.deepEqual(await ids(page), before);
    await shot(page, "pill");
    const bars = await page.locator("#chart .total").textContent();
    await pill.click();
    // Not necessarily above all others: Authentik's events are read a moment after they happened.
    await page.waitForFunction(
      (before) => [...document.querySelectorAll("li.event")].some((row) => !before.includes(row.dataset.id)),
      before,
    );
    const after = await ids(page);
    assert.ok(after.length >= 100);
    assert.equal(new Set(after).size, after.length);
    await page.waitForFunction((bars) => document.querySelector("#chart .total")?.textContent !== bars, bars);
    const order = await page.locator("li.event").evaluateAll((rows) => rows.map((row) => [Number(row.dataset.at), row.dataset.id]));
    assert.deepEqual(order, [...order].sort((a, b) => b[0] - a[0] || (a[1] < b[1] ? 1 : -1)));
  }));

test("pages lead to the end without a repeat or a hole while events stream in", () =>
  story({ expected: /401/ }, async (page) => {
    await enter(guarded, Array.from({ length: 230 }, (_, number) => counted(number, Math.floor(number / 7))));
    await signIn(page, tokens.operator, "/audit?action=live.counted&limit=40");
    await page.locator("li.event").first().waitFor();
    await page.waitForFunction(() => document.documentElement.dataset.live === "on");
    let next = 230;
    for (;;) {
      await enter(guarded, [counted(next, 60 + next - 230)]);
      next += 1;
      const older = page.locator("#older");
      if ((await older.count()) === 0) break;
      const length = (await ids(page)).length;
      await older.click();
      await page.waitForFunction((length) => document.querySelectorAll("li.event").length > length, length);
    }
    await page.getByText("The timeline begins here").waitFor();
    assert.equal((await ids(page)).length, 230);
    const pill = page.locator("#new-events");
    await page.waitForFunction((count) => document.querySelector("#new-events").textContent.startsWith(`${count} `), next - 230);
    await pill.click();
    await pill.waitFor({ state: "hidden" });
    const stored = await all(guarded, "action=live.counted");
    assert.equal(stored.length, next);
    assert.deepEqual(await ids(page), stored.map((event) => event.id));
    // More than a page of new events: the list begins anew, because a hole would be a lie.
    await enter(guarded, Array.from({ length: 90 }, (_, number) => counted(1000 + number, 100 + number)));
    await page.waitForFunction(() => document.querySelector("#new-events").textContent.startsWith("90 "));
    await pill.click();
    await page.waitForFunction(() => document.querySelectorAll("li.event").length === 40);
    assert.deepEqual(await ids(page), (await all(guarded, "action=live.counted")).slice(0, 40).map((event) => event.id));
    assert.equal(await page.locator("#older").count(), 1);
  }));
