// Times in the reader's zone: what is shown of them, and what is sent.

import assert from "node:assert/strict";
import { test } from "node:test";
import { demo, enter, story } from "./browser.mjs";

const sent = (page, name) => new URL(page.url()).searchParams.get(name);

test("a time that nobody changed is sent as it was given", () =>
  story({ timezoneId: "Europe/Berlin" }, async (page) => {
    // The hour that comes twice, and more digits than the field can hold.
    const [since, until] = ["2026-10-25T01:30:00Z", "2026-10-25T01:45:00.123456Z"];
    await page.goto(`${demo}/audit?tz=local&since=${since}&until=${until}`);
    await page.getByLabel("Outcome").selectOption("success");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.waitForURL(/outcome=success/);
    assert.deepEqual([sent(page, "since"), sent(page, "until")], [since, until]);
    await page.getByLabel("From (local)").fill("2026-10-20T10:00:00");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.waitForURL(/since=2026-10-20/);
    assert.deepEqual([sent(page, "since"), sent(page, "until")], ["2026-10-20T08:00:00.000Z", until]);
    await page.getByLabel("From (local)").fill("");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.waitForURL((url) => !url.searchParams.has("since"));
  }));

test("a time that is asked for is told in the zone of all others", () =>
  story({ timezoneId: "Asia/Kolkata" }, async (page) => {
    const asked = `${demo}/audit?action=no.such&since=2026-11-24T04:05&until=2026-11-25`;
    const told = () => page.locator(".chips .value").allTextContents();
    await page.goto(asked);
    assert.deepEqual(await told(), [
      "no.such", "Tuesday, 24 November 2026, 04:05:00 UTC", "Wednesday, 25 November 2026, 00:00:00 UTC",
    ]);
    await page.goto(`${asked}&tz=local`);
    const [, since, until] = await told();
    assert.match(since, /24 November 2026.* 09:35:00/);
    assert.match(until, /25 November 2026.* 05:30:00/);
    assert.match(await page.getByLabel("From (local)").inputValue(), /T09:35/);
    await page.setViewportSize({ width: 320, height: 700 });
    const wide = (values) => values.filter((value) => value.scrollWidth > value.clientWidth).length;
    assert.equal(await page.locator(".chips .value").evaluateAll(wide), 0);
  }));

test("at midnight today becomes yesterday, however long it was", () =>
  story({ timezoneId: "Europe/Berlin" }, async (page) => {
    await enter(demo, [{ action: "clock.changed", externalId: "clock-1", at: "2026-03-29T12:00:00Z" }]);
    // Half past eleven, of a day that had 23 hours.
    await page.clock.install({ time: new Date("2026-03-29T21:30:00Z") });
    await page.goto(`${demo}/audit?action=clock.changed&tz=local`);
    await page.locator("li.day").getByText("Today").waitFor();
    await page.clock.fastForward("01:00:00");
    await page.locator("li.day").getByText("Yesterday").waitFor();
    assert.equal(await page.locator("li.day").count(), 1);
  }));

test("bars of days keep their days west of UTC", () =>
  story({ timezoneId: "America/New_York" }, async (page) => {
    const events = ["2026-08-01", "2026-10-30"].map((day, number) =>
      ({ action: "days.counted", externalId: `day-${number}`, at: `${day}T12:00:00Z` }));
    await enter(demo, events);
    await page.goto(`${demo}/audit?action=days.counted&tz=local`);
    await page.locator("#chart svg a").first().waitFor({ state: "attached" });
    assert.equal(await page.locator(".axis text").first().textContent(), "1 Aug 2026");
  }));
