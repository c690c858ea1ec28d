// One event beside the list, the keyboard, time zones.

import assert from "node:assert/strict";
import { test } from "node:test";
import { demo, ids, shot, story } from "./browser.mjs";

test("an event opens beside the list under an address of its own", () =>
  story({}, async (page) => {
    await page.goto(`${demo}/audit?source=authentik`);
    const home = page.url();
    // Not every event has all that others can share with it.
    const hasAll = ({ actor, target }) => (actor?.id || actor?.email) && actor.ip && target?.id;
    let whole;
    for (const id of await ids(page)) {
      whole = await (await fetch(`${demo}/api/v1/events/${id}`)).json();
      if (hasAll(whole)) break;
    }
    const link = page.locator(`li.event[data-id="${whole.id}"] a.open`);
    const href = await link.getAttribute("href");
    await link.click();
    await page.locator("#drawer #event").waitFor();
    assert.equal(new URL(page.url()).pathname + new URL(page.url()).search, href);
    assert.match(await page.locator("#drawer .tree").textContent(), /client_ip/);
    const sentence = await page.locator("#drawer h1").textContent();
    // Whatever arrives meanwhile: a count may stand before it.
    await page.locator("#new-events").waitFor();
    assert.match(await page.title(), /^\(\d+\) /);
    assert.ok((await page.title()).includes(sentence.trim().slice(0, 20)));
    await shot(page, "drawer");
    const related = page.locator("#drawer .related a");
    assert.deepEqual(await related.allTextContents(), ["Same actor", "Same IP address", "Same target", "Around this time ± 5 min"]);
    await page.locator("#drawer .close").click();
    await page.waitForURL(home);
    assert.equal(await page.locator("#drawer[open]").count(), 0);

    // Forward, back and a reload lead where their addresses say.
    await page.goForward();
    await page.locator("#drawer #event").waitFor();
    await page.reload();
    await page.locator("main #event").waitFor();
    assert.equal((await page.locator("main h1").textContent()).trim(), sentence.trim());
    await shot(page, "event");
    await page.getByRole("link", { name: "Around this time ± 5 min" }).click();
    await page.waitForURL(/since=.*until=/);
    const [since, until] = ["since", "until"].map((name) => Date.parse(new URL(page.url()).searchParams.get(name)));
    assert.equal(until - since, 600_000);
    assert.equal((since + until) / 2, Date.parse(whole.at));
  }));

test("hands stay on the keyboard", () =>
  story({}, async (page) => {
    await page.goto(`${demo}/audit?source=authentik`);
    const home = page.url();
    const at = () => page.evaluate(() => [...document.querySelectorAll("li.event")].indexOf(document.activeElement.closest("li.event")));
    for (const [key, row] of [["j", 0], ["j", 1], ["j", 2], ["k", 1]]) {
      await page.keyboard.press(key);
      assert.equal(await at(), row);
    }
    await page.keyboard.press("Enter");
    await page.locator("#drawer #event").waitFor();
    const first = await page.locator("#drawer #event").getAttribute("data-id");
    await page.keyboard.press("j");
    await page.waitForFunction((first) => document.querySelector("#drawer #event").dataset.id !== first, first);
    assert.equal(await page.locator("li.event.current").getAttribute("data-id"), await page.locator("#drawer #event").getAttribute("data-id"));
    await page.keyboard.press("Escape");
    await page.waitForURL(home);
    await page.waitForFunction(() => document.activeElement.closest("li.event"));
    assert.equal(await at(), 2);
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.id), "text");
    await page.keyboard.type("j?");
    assert.equal(await page.getByLabel("Search").inputValue(), "j?");
    await page.keyboard.press("Escape");
    assert.equal(await page.getByLabel("Search").inputValue(), "j?");
    await page.keyboard.press("?");
    await page.locator("#help[open]").waitFor();
    await shot(page, "help");
    await page.keyboard.press("Escape");
    await page.locator("#help").waitFor({ state: "hidden" });
    await page.locator("#new-events").waitFor();
    const before = await ids(page);
    await page.keyboard.press("n");
    // Where more came than a page holds the list begins anew, and no row is marked as fresh.
    await page.waitForFunction(
      (before) => [...document.querySelectorAll("li.event")].some((row) => !before.includes(row.dataset.id)),
      before,
    );
  }));

test("keys can be turned off and on", () =>
  story({ colorScheme: "light" }, async (page) => {
    await page.goto(`${demo}/audit?limit=5`);
    const keys = page.getByRole("switch", { name: "Keys on" });
    const help = page.locator("#help");
    const isOnRow = () => page.evaluate(() => document.activeElement.closest("li.event") !== null);
    await page.keyboard.press("?");
    assert.ok(await keys.isChecked());
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Space");
    assert.equal(await keys.isChecked(), false);
    await page.keyboard.press("Escape");
    await help.waitFor({ state: "hidden" });
    for (const reload of [false, true]) {
      if (reload) await page.reload();
      for (const key of ["j", "t", "/", "?"]) await page.keyboard.press(key);
      assert.equal(await help.isVisible(), false);
      assert.equal(await isOnRow(), false);
      // The closed dialog's switch loses the focus with the next frame.
      await page.waitForFunction(() => document.activeElement.id + document.documentElement.dataset.theme === "undefined");
    }
    await page.getByRole("button", { name: "Keys" }).click();
    assert.equal(await keys.isChecked(), false);
    await page.getByText("Keys on").click();
    await page.getByRole("button", { name: "Close" }).click();
    await page.keyboard.press("j");
    assert.ok(await isOnRow());
  }));

test("times are shown in the reader's zone and sent in UTC", () =>
  story({ timezoneId: "Asia/Kolkata" }, async (page) => {
    await page.goto(`${demo}/audit?source=authentik`);
    const clock = (zone) => page.locator("li.event time").first().evaluate((time, zone) =>
      [time.textContent, new Date(time.dateTime).toLocaleTimeString("en-GB", { timeZone: zone })], zone);
    let [shown, wanted] = await clock("UTC");
    assert.equal(shown, wanted);
    await page.getByRole("link", { name: "Local" }).click();
    await page.waitForURL(/tz=local/);
    [shown, wanted] = await clock("Asia/Kolkata");
    assert.equal(shown, wanted);
    await page.getByLabel("From (local)").fill("2026-01-02T03:04:05");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.waitForURL(/since=/);
    assert.equal(new URL(page.url()).searchParams.get("since"), "2026-01-01T21:34:05.000Z");
    assert.match(await page.getByLabel("From (local)").inputValue(), /^2026-01-02T03:04:05/);
  }));
