// Looking for something: conditions, ranges, bars.

import assert from "node:assert/strict";
import { test } from "node:test";
import { demo, enter, ids, shot, story } from "./browser.mjs";

test("the newest events stand on the page", () =>
  story({}, async (page) => {
    await page.goto(`${demo}/`);
    assert.equal(new URL(page.url()).pathname, "/audit");
    await page.locator("li.event").first().waitFor();
    assert.equal((await ids(page)).length, 100);
    assert.match(await page.locator("li.day").first().textContent(), /Today/);
    // When counting takes long, the bars come after the page.
    await page.locator("#chart svg a").nth(3).waitFor({ state: "attached" });
    const times = await page.locator("li.event").evaluateAll((rows) => rows.map((row) => Number(row.dataset.at)));
    assert.deepEqual(times, [...times].sort((a, b) => b - a));
    await shot(page, "timeline");
  }));

test("conditions find what they say and stand in the address", () =>
  story({}, async (page) => {
    await page.goto(`${demo}/audit`);
    const asked = [];
    page.on("request", (request) => request.isNavigationRequest() && asked.push(request.url()));
    await page.getByLabel("Outcome").selectOption("failure");
    await page.getByLabel("Source").selectOption("authentik");
    await page.getByLabel("Action").fill("authentik.login*");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.waitForURL(/action=/);
    // Arrow keys change what is chosen at every press: no choice leaves the page by itself.
    assert.deepEqual(asked, [page.url()]);
    const address = new URL(page.url());
    assert.deepEqual([...address.searchParams].sort(), [
      ["action", "authentik.login*"], ["outcome", "failure"], ["source", "authentik"],
    ]);
    const verbs = await page.locator("li.event .verb").allTextContents();
    assert.ok(verbs.length > 0 && verbs.every((verb) => verb === "authentik.login_failed"), verbs.join());
    assert.equal(await page.locator("li.event.o-failure").count(), verbs.length);
    assert.equal(await page.locator(".chips li").count(), 4);
    await shot(page, "conditions");
    await page.getByLabel("Drop the condition Action").click();
    await page.waitForURL((url) => !url.searchParams.has("action"));

    // A name leads to what it did.
    const name = page.locator("li.event .who").first();
    const email = await name.evaluate((link) => new URL(link.href).searchParams.get("actor"));
    await name.click();
    await page.waitForURL(/actor=/);
    assert.equal(new URL(page.url()).searchParams.get("actor"), email);
    await page.getByRole("link", { name: "Clear all" }).click();
    await page.waitForURL(/\/audit$/);
  }));

test("a page that one goes back to shows its own conditions", () =>
  story({ timezoneId: "Asia/Kolkata" }, async (page) => {
    const fields = () => page.locator("#filters").evaluate((form) =>
      [...form.elements].filter(({ name, value }) => name && value).map(({ name, value }) => [name, value]));
    const choose = async () => {
      // Links that drop a condition have its label too.
      await page.locator("[name=outcome]").selectOption("success");
      await page.locator("[name=source]").selectOption("ocis");
      await page.locator("[name=since]").fill("2026-11-21T10:00");
    };
    const list = `${demo}/audit?outcome=failure&since=2026-11-20T08:00`;
    await page.goto(list);
    const own = [["outcome", "failure"], ["since", "2026-11-20T08:00"]];
    assert.deepEqual(await fields(), own);
    await choose();
    await page.getByRole("button", { name: "Apply" }).click();
    await page.waitForURL(/outcome=success/);
    await page.goBack();
    await page.waitForURL(list);
    assert.deepEqual(await fields(), own);

    // As it is when a browser has kept the page whole.
    await page.goto(`${list}&tz=local`);
    const local = await fields();
    assert.deepEqual(local.slice(0, 2), [["outcome", "failure"], ["since", "2026-11-20T13:30"]]);
    await choose();
    assert.notDeepEqual(await fields(), local);
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
    assert.deepEqual(await fields(), local);
  }));

test("nothing found is said", () =>
  story({}, async (page) => {
    await page.goto(`${demo}/audit?text=no-such-thing-at-all`);
    await page.getByText("No events match").waitFor();
    await shot(page, "nothing");
    await page.goto(`${demo}/audit?range=15m`);
    assert.equal(await page.locator('.ranges a[aria-current="true"]').textContent(), "15 min");
  }));

test("a stretch of bars becomes a range of time", () =>
  story({}, async (page) => {
    await page.goto(`${demo}/audit?source=authentik`);
    const box = await page.locator(".plot").boundingBox();
    const y = box.y + box.height / 2;
    await page.mouse.move(box.x + box.width * 0.3, y);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.4, y, { steps: 4 });
    await page.mouse.move(box.x + box.width * 0.6, y, { steps: 4 });
    assert.ok(await page.locator(".band").isVisible());
    await shot(page, "brush");
    await page.mouse.up();
    await page.waitForURL(/since=.*until=/);
    const address = new URL(page.url());
    assert.equal(address.searchParams.get("source"), "authentik");
    const [since, until] = ["since", "until"].map((name) => Date.parse(address.searchParams.get(name)));
    const times = await page.locator("li.event").evaluateAll((rows) => rows.map((row) => Number(row.dataset.at)));
    assert.ok(times.length > 0 && times.every((time) => since <= time && time < until));

    // A click is no brush: it opens the bar. Escape drops a brush.
    const bar = page.locator("#chart svg a").first();
    const href = await bar.getAttribute("href");
    await bar.locator("rect.hit").click();
    await page.waitForURL((url) => url.pathname + url.search === href);
    const plot = await page.locator(".plot").boundingBox();
    await page.mouse.move(plot.x + 20, plot.y + 20);
    await page.mouse.down();
    await page.mouse.move(plot.x + 200, plot.y + 20, { steps: 4 });
    await page.keyboard.press("Escape");
    await page.mouse.up();
    assert.equal(await page.locator(".band").isVisible(), false);
    assert.equal(new URL(page.url()).pathname + new URL(page.url()).search, href);
  }));

test("a pointer whose button was let go elsewhere brushes nothing", () =>
  story({}, async (page) => {
    await page.goto(`${demo}/audit?source=authentik`);
    const plot = await page.locator(".plot").boundingBox();
    const bottom = plot.y + plot.height;
    await page.mouse.move(plot.x + 100, bottom - 10);
    await page.mouse.down();
    await page.mouse.move(plot.x + 101, bottom + 80, { steps: 3 });
    await page.mouse.up();
    await page.mouse.move(plot.x + 400, plot.y + 20, { steps: 3 });
    assert.equal(await page.locator(".band").isVisible(), false);
  }));

test("two fingers on the bars brush nothing", () =>
  story({ viewport: { width: 390, height: 800 }, hasTouch: true, isMobile: true }, async (page) => {
    await page.goto(`${demo}/audit?source=authentik`);
    const plot = await page.locator(".plot").boundingBox();
    const session = await page.context().newCDPSession(page);
    const touch = (type, ...points) => session.send("Input.dispatchTouchEvent", {
      type, touchPoints: points.map(([x, y], id) => ({ x: plot.x + x, y: plot.y + y, id })),
    });
    const band = page.locator(".band");
    await touch("touchStart", [150, 40]);
    for (const x of [140, 130, 120]) await touch("touchMove", [x, 40]);
    await band.waitFor();
    await touch("touchStart", [120, 40], [200, 50]);
    for (const by of [10, 20, 30]) await touch("touchMove", [120 - by, 40], [200 + by, 50]);
    await band.waitFor({ state: "hidden" });
    await touch("touchEnd");
  }));

test("a stretch of bars reaches no further than what was counted", () =>
  story({}, async (page) => {
    const [since, until] = ["2026-11-24T11:00:31.000Z", "2026-11-24T12:00:15.000Z"];
    await enter(demo, [{ action: "bars.bounded", externalId: "bounded-1", at: "2026-11-24T11:30:00Z" }]);
    await page.goto(`${demo}/audit?action=bars.bounded&since=2026-11-24T11:00:31Z&until=2026-11-24T12:00:15Z`);
    const box = await page.locator(".plot").boundingBox();
    const y = box.y + box.height / 2;
    await page.mouse.move(box.x + 1, y);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width - 1, y, { steps: 4 });
    assert.match(await page.locator(".hint-of-band").textContent(), /11:00:31 – .*12:00:15/);
    await page.mouse.up();
    await page.waitForURL(({ searchParams }) => searchParams.get("since") === since && searchParams.get("until") === until);
  }));

for (const path of ["/audit", "/audit/histogram"]) {
  test(`bars are walked by keyboard on ${path}`, () =>
    story({}, async (page) => {
      await page.goto(`${demo}${path}?source=authentik`);
      const bars = page.locator("#chart svg a");
      await bars.nth(2).waitFor({ state: "attached" });
      const stops = () => page.locator('#chart svg a[tabindex="0"]').count();
      assert.equal(await stops(), 1);
      assert.equal(await page.getByRole("link", { name: /UTC: \d/ }).count(), await bars.count());
      await bars.first().focus();
      for (const [key, at] of [["ArrowRight", 1], ["ArrowRight", 2], ["ArrowLeft", 1], ["Home", 0], ["ArrowLeft", 0]]) {
        await page.keyboard.press(key);
        const focused = await bars.evaluateAll((all) => all.indexOf(document.activeElement));
        assert.equal(focused, at, key);
      }
      assert.equal(await stops(), 1);
      await page.keyboard.press("End");
      const href = await bars.last().getAttribute("href");
      await page.keyboard.press("Enter");
      await page.waitForURL((url) => url.pathname + url.search === href);
    }));
}
