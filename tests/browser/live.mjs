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
    // Bars that were counted late have those already: then the next ones show.
    const settled = page.locator("#new-events:not([aria-busy])");
    const total = () => page.locator("#chart .total").textContent();
    for (let turn = 0; turn < 10 && (await total()) === bars; turn += 1) {
      await pill.waitFor();
      await pill.click();
      await settled.waitFor({ state: "attached" });
    }
    assert.notEqual(await total(), bars);
    const order = await page.locator("li.event").evaluateAll((rows) => rows.map((row) => [Number(row.dataset.at), row.dataset.id]));
    assert.deepEqual(order, [...order].sort((a, b) => b[0] - a[0] || (a[1] < b[1] ? 1 : -1)));
  }));

test("pages lead to the end without a repeat or a hole while events stream in", () =>
  story({}, async (page) => {
    await enter(demo, Array.from({ length: 230 }, (_, number) => counted(number, Math.floor(number / 7))));
    await page.goto(`${demo}/audit?action=live.counted&limit=40`);
    await page.locator("li.event").first().waitFor();
    await page.waitForFunction(() => document.documentElement.dataset.live === "on");
    let next = 230;
    for (;;) {
      await enter(demo, [counted(next, 60 + next - 230)]);
      next += 1;
      const older = page.locator("#older");
      if ((await older.count()) === 0) break;
      const length = (await ids(page)).length;
      await older.click();
      await page.waitForFunction((length) => document.querySelectorAll("li.event").length > length, length);
    }
    await page.getByText("No older events match").waitFor();
    assert.equal((await ids(page)).length, 230);
    const pill = page.locator("#new-events");
    await page.waitForFunction((count) => document.querySelector("#new-events").textContent.startsWith(`${count} `), next - 230);
    await pill.click();
    await pill.waitFor({ state: "hidden" });
    const stored = await all(demo, "action=live.counted");
    assert.equal(stored.length, next);
    assert.deepEqual(await ids(page), stored.map((event) => event.id));
    // More than a page of new events: the list begins anew, because a hole would be a lie.
    await enter(demo, Array.from({ length: 90 }, (_, number) => counted(1000 + number, 100 + number)));
    await page.waitForFunction(() => document.querySelector("#new-events").textContent.startsWith("90 "));
    await pill.click();
    await page.waitForFunction(() => document.querySelectorAll("li.event").length === 40);
    assert.deepEqual(await ids(page), (await all(demo, "action=live.counted")).slice(0, 40).map((event) => event.id));
    assert.equal(await page.locator("#older").count(), 1);
    // Nor does one that stays on top, from a clock that is ahead, hide such a hole.
    await enter(demo, [counted(2000, 600)]);
    await page.waitForFunction(() => document.querySelector("#new-events").textContent.startsWith("1 "));
    await pill.click();
    await page.waitForFunction(() => document.querySelectorAll("li.event").length === 41);
    await enter(demo, Array.from({ length: 90 }, (_, number) => counted(3000 + number, 300 + number)));
    await page.waitForFunction(() => document.querySelector("#new-events").textContent.startsWith("90 "));
    await pill.click();
    await page.waitForFunction(() => document.querySelectorAll("li.event").length === 40);
    assert.deepEqual(await ids(page), (await all(demo, "action=live.counted")).slice(0, 40).map((event) => event.id));
  }));

const arrives = (page) => page.waitForFunction(() => document.documentElement.dataset.live === "on");
/** A stream that is away is away for long. */
async function lasts(page) {
  await page.waitForFunction(() => document.documentElement.dataset.live === "off");
  await page.clock.fastForward(4_000);
}
const announced = (page, text) =>
  page.waitForFunction((text) => document.querySelector("#new-events:not([hidden])")?.textContent === text, text);
const counts = (page, count) =>
  page.waitForFunction((count) => document.querySelectorAll("li.event").length === count, count);
const said = (page) => page.locator("#spoken").textContent();
const happens = (page, ...names) =>
  page.evaluate((names) => names.forEach((name) => dispatchEvent(new Event(name))), names);
const minutely = (action) => (minute) => ({
  action,
  externalId: `${action}-${minute}`,
  at: new Date(Date.UTC(2026, 10, 20) + minute * 60_000).toISOString(),
});

/** Enters events of an action, and waits until they are told of: not to a stream that is opened then. */
async function enterUnheard(events) {
  const { action, externalId } = events.at(-1);
  const stream = await fetch(`${demo}/api/v1/events/stream?action=${action}`);
  await enter(demo, events);
  let told = "";
  for await (const chunk of stream.body.pipeThrough(new TextDecoderStream())) {
    told += chunk;
    if (told.includes(`"externalId":"${externalId}"`)) break;
  }
}

test("a stream that stops is told of, until it comes back", () =>
  story({ expected: /ERR_FAILED/ }, async (page) => {
    await page.clock.install();
    await page.route("**/api/v1/events/stream*", (route) => route.abort());
    await page.goto(`${demo}/audit`);
    await lasts(page);
    const line = page.locator("#state");
    await line.getByText("Live updates have stopped.").waitFor();
    assert.equal(await line.getByRole("link", { name: "Reload" }).getAttribute("href"), page.url());
    await shot(page, "stopped");
    await page.unroute("**/api/v1/events/stream*");
    await arrives(page);
    await line.getByText("Live updates have stopped.").waitFor({ state: "detached" });
  }));

test("a stream that says nothing any more is opened anew, and told of while it is not", () =>
  story({ expected: /ERR_FAILED/ }, async (page) => {
    await page.clock.install();
    await page.goto(`${demo}/audit?action=live.silent`);
    await arrives(page);
    await page.route("**/api/v1/events/stream*", (route) => route.abort());
    await page.clock.fastForward(40_000);
    await lasts(page);
    const line = page.locator("#state").getByText("Live updates have stopped.");
    await line.waitFor();
    await page.unroute("**/api/v1/events/stream*");
    await arrives(page);
    await line.waitFor({ state: "detached" });
  }));

test("a store that is away is told of, though the stream stands", () =>
  story({}, async (page) => {
    await page.addInitScript(() => {
      window.EventSource = class extends EventSource {
        constructor(address) {
          super(address);
          window.stream = this;
        }
      };
    });
    await page.goto(`${demo}/audit?action=live.silent`);
    await arrives(page);
    const hears = (storeUp) => page.waitForFunction((storeUp) => {
      window.stream.dispatchEvent(new MessageEvent("beat", { data: JSON.stringify({ storeUp }) }));
      const isTold = document.querySelector("#state").textContent.includes("Live updates have stopped.");
      return isTold !== storeUp;
    }, storeUp, { polling: 100 });
    // Again and again: the store is there, as the service itself says meanwhile.
    await hears(false);
    await hears(true);
  }));

test("whoever was signed out elsewhere is asked to sign in again", () =>
  story({ expected: /401/ }, async (page) => {
    await page.clock.install();
    await signIn(page, tokens.operator, "/audit?outcome=success");
    await arrives(page);
    await page.context().clearCookies();
    // The page is left and found again, as with a phone: its stream is opened anew.
    await happens(page, "pagehide", "pageshow");
    await lasts(page);
    await page.locator("#state").getByRole("link", { name: "Sign in again" }).click();
    await page.getByLabel("Token").fill(tokens.operator);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.waitForURL(`${guarded}/audit?outcome=success`);
  }));

test("what came while there was no stream is looked for until it is found", () =>
  story({ expected: /503/ }, async (page) => {
    const owed = minutely("live.owed");
    await enter(demo, [owed(0)]);
    await page.goto(`${demo}/audit?action=live.owed`);
    await arrives(page);
    await happens(page, "pagehide");
    await enterUnheard([owed(1)]);
    const list = /\/audit\?action=live\.owed/;
    await page.route(list, (route) => route.fulfill({ status: 503 }));
    const refused = () => page.waitForResponse((answer) => answer.status() === 503);
    await Promise.all([refused(), happens(page, "pageshow")]);
    await refused();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.live), "off");
    await page.unroute(list);
    await announced(page, "1 new event");
    await arrives(page);
  }));

test("after a long time away the button says how many came at least", () =>
  story({}, async (page) => {
    const away = minutely("live.away");
    const pill = page.locator("#new-events");
    await enter(demo, Array.from({ length: 8 }, (_, minute) => away(minute)));
    await page.goto(`${demo}/audit?action=live.away&limit=5`);
    await arrives(page);
    await happens(page, "pagehide");
    await enterUnheard(Array.from({ length: 40 }, (_, minute) => away(10 + minute)));
    await happens(page, "pageshow");
    await announced(page, "10+ new events");
    assert.match(await page.title(), /^\(10\+\) /);
    await pill.click();
    await pill.waitFor({ state: "hidden" });
    assert.equal(await said(page), "5 of 10+ events added");
    const stored = await all(demo, "action=live.away");
    assert.deepEqual(await ids(page), stored.slice(0, 5).map((event) => event.id));
  }));

test("a page that was opened unseen finds what came before it was seen", () =>
  story({}, async (page) => {
    const unseen = minutely("live.unseen");
    await page.addInitScript(() => Object.defineProperty(document, "hidden", { get: () => !window.isSeen }));
    await enter(demo, [0, 1, 2, 3, 4].map(unseen));
    await page.goto(`${demo}/audit?action=live.unseen&limit=5`);
    await counts(page, 5);
    // One stands between two rows, which the others push off the first page.
    await enterUnheard([0.5, 5, 6, 7, 8].map(unseen));
    await page.evaluate(() => {
      window.isSeen = true;
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await announced(page, "5 new events");
  }));

test("what came late among rows that others push off the page is not passed over", () =>
  story({}, async (page) => {
    const pushed = minutely("live.pushed");
    await enter(demo, [0, 1, 2, 3, 4].map(pushed));
    await page.goto(`${demo}/audit?action=live.pushed&limit=5`);
    await arrives(page);
    await happens(page, "pagehide");
    // The last two stand behind the end of the page that is asked for, of ten.
    await enterUnheard([8, 7, 6, 5, 3.6, 3.3, 0.6, 0.3].map(pushed));
    await happens(page, "pageshow");
    await announced(page, "6+ new events");
    await page.locator("#new-events").click();
    await page.locator("#new-events").waitFor({ state: "hidden" });
    const stored = await all(demo, "action=live.pushed");
    assert.deepEqual(await ids(page), stored.slice(0, 5).map((event) => event.id));
  }));

test("a list that is refused is shown as such, whatever part of it the address leads to", () =>
  story({ expected: /503/ }, async (page) => {
    const refused = minutely("live.refused");
    const list = `${demo}/audit?action=live.refused`;
    await enter(demo, [refused(0)]);
    await page.goto(`${list}#timeline`);
    await arrives(page);
    await enter(demo, [refused(1)]);
    await announced(page, "1 new event");
    await page.route(/\/audit\?action=live\.refused/, (route) => route.fulfill({ status: 503 }), { times: 1 });
    await page.locator("#new-events").click();
    // The address itself is asked for, and answered by now.
    await page.waitForURL(({ href }) => href === list);
    await counts(page, 2);
  }));

const dated = (name, at) => ({ action: "live.dated", externalId: `dated-${name}`, at, actor: { name } });

test("the button promises what it shows, and says what it showed", () =>
  story({}, async (page) => {
    const day = Array.from({ length: 12 }, (_, number) => dated(`d${number}`, `2026-11-20T04:00:${10 + number}Z`));
    await enter(demo, day);
    await page.goto(`${demo}/audit?action=live.dated&limit=10`);
    await arrives(page);
    const pill = page.locator("#new-events");
    // One that stands on an older page, then one that stands here: they come in this order.
    await enter(demo, [dated("old", "2026-11-20T03:00:00Z")]);
    await enter(demo, [dated("new", "2026-11-20T05:00:00Z")]);
    await pill.waitFor();
    assert.equal(await pill.textContent(), "1 new event");
    await pill.click();
    await page.waitForFunction(() => document.querySelectorAll("li.event").length === 11);
    assert.equal(await said(page), "1 event added");
    // Whoever looks for the button by its words does not find it any more.
    assert.doesNotMatch(await page.locator("body").textContent(), /\d+ new/);

    const many = Array.from({ length: 30 }, (_, number) => dated(`m${number}`, `2026-11-20T06:00:${10 + number}Z`));
    await enter(demo, many);
    await page.waitForFunction(() => document.querySelector("#new-events").textContent.startsWith("30 "));
    await pill.click();
    await page.waitForFunction(() => document.querySelectorAll("li.event").length === 10);
    assert.equal(await said(page), "10 of 30 events added");

    // A list that is whole takes what is older than all of it.
    await page.goto(`${demo}/audit?action=live.dated`);
    await arrives(page);
    await enter(demo, [dated("oldest", "2026-11-20T02:00:00Z")]);
    await pill.click();
    await page.waitForFunction(() => document.querySelectorAll("li.event").length === 45);
    const stored = await all(demo, "action=live.dated");
    assert.deepEqual(await ids(page), stored.map((event) => event.id));
  }));

const piled = (number) => ({
  action: "live.piled",
  externalId: `piled-${number}`,
  at: new Date(Date.UTC(2026, 10, 20) + number * 1000).toISOString(),
});

test("new events do not pile up for ever, and older ones go on where the list ends", () =>
  story({}, async (page) => {
    const add = (from, count) => enter(demo, Array.from({ length: count }, (_, number) => piled(from + number)));
    await add(0, 310);
    await page.goto(`${demo}/audit?action=live.piled&limit=300`);
    await arrives(page);
    await add(310, 250);
    await announced(page, "250 new events");
    await page.locator("#new-events").click();
    await page.locator("#new-events").waitFor({ state: "hidden" });
    assert.equal((await ids(page)).length, 500);
    await page.locator("#older").click();
    await page.getByText("No older events match").waitFor();
    const stored = await all(demo, "action=live.piled");
    assert.deepEqual(await ids(page), stored.map((event) => event.id));
  }));

const late = minutely("live.late");

test("what is entered late stands where it belongs", () =>
  story({}, async (page) => {
    const list = "/audit?action=live.late";
    const pill = page.locator("#new-events");
    const isStored = async (count) => {
      await counts(page, count);
      const stored = await all(demo, "action=live.late");
      assert.deepEqual(await ids(page), stored.slice(0, count).map((event) => event.id));
    };
    await enter(demo, Array.from({ length: 60 }, (_, minute) => late(minute)));
    await page.goto(`${demo}${list}&limit=20`);
    await arrives(page);
    await page.locator("#older").click();
    await counts(page, 40);
    // Below the rows that stand, and between two of them, and above.
    await enter(demo, [late(10.5), late(30.5)]);
    await announced(page, "1 new event");
    await enter(demo, [late(60)]);
    await announced(page, "2 new events");
    await pill.click();
    await isStored(42);
    assert.equal(await said(page), "2 events added");

    // What came while nobody looked is found too.
    await happens(page, "pagehide");
    await enter(demo, [late(25.5)]);
    await happens(page, "pageshow");
    await announced(page, "1 new event");
    await pill.click();
    await isStored(43);

    // Too many pages down the list begins anew.
    await page.goto(`${demo}${list}&limit=1`);
    await arrives(page);
    for (let count = 2; count <= 6; count += 1) {
      await page.locator("#older").click();
      await counts(page, count);
    }
    await enter(demo, [late(55.5)]);
    await announced(page, "1 new event");
    await pill.click();
    await isStored(1);
    assert.equal(await said(page), "0 of 1 event added");
  }));

test("more than some thousand new events are only counted", () =>
  story({}, async (page) => {
    await enter(demo, Array.from({ length: 6 }, (_, minute) => late(minute)));
    const events = Array.from({ length: 5_001 }, (_, number) => `data: {"id":"f${number}","at":"2026-11-21T00:00:00Z"}\n\n`);
    await page.route("**/api/v1/events/stream*", (route) =>
      route.fulfill({ contentType: "text/event-stream", body: events.join("") }), { times: 1 });
    await page.goto(`${demo}/audit?action=live.late&limit=3`);
    await announced(page, "5000+ new events");
    assert.match(await page.title(), /^\(5000\+\) /);
    await page.locator("#older").click();
    await counts(page, 6);
    await page.locator("#new-events").click();
    await counts(page, 3);
    await page.locator("#new-events").waitFor({ state: "hidden" });
    assert.equal(await said(page), "0 of 5000+ events added");
  }));

const pressed = minutely("live.pressed");

test("the keyboard goes on where the new events are", () =>
  story({}, async (page) => {
    const pill = page.locator("#new-events");
    const focused = () => page.evaluate(() => document.activeElement.closest("li.event")?.dataset.id ?? document.activeElement.id);
    const add = async (...minutes) => {
      await enter(demo, minutes.map(pressed));
      await page.waitForFunction((count) => document.querySelector("#new-events:not([hidden])")?.textContent.startsWith(`${count} `), minutes.length);
    };
    await enter(demo, [0, 1, 2, 3].map(pressed));
    await page.goto(`${demo}/audit?action=live.pressed&limit=3`);
    await arrives(page);
    await add(4, 5);
    await pill.focus();
    await page.keyboard.press("Enter");
    await pill.waitFor({ state: "hidden" });
    const [first] = await ids(page);
    assert.equal(await focused(), first);

    // A list that begins anew takes no row from under whoever is on it.
    await add(6, 4.5);
    await page.keyboard.press("n");
    await pill.waitFor({ state: "hidden" });
    const anew = await ids(page);
    assert.deepEqual([anew.length, anew[1]], [3, first]);
    assert.equal(await focused(), first);
    await add(7, 8, 9);
    await page.keyboard.press("n");
    await pill.waitFor({ state: "hidden" });
    assert.equal(await focused(), "main");
  }));

test("whoever presses the button far down is led to what is new", () =>
  story({}, async (page) => {
    const deep = minutely("live.deep");
    const pill = page.locator("#new-events");
    const add = (from, count) => enter(demo, Array.from({ length: count }, (_, minute) => deep(from + minute)));
    await add(0, 100);
    await page.goto(`${demo}/audit?action=live.deep&limit=60`);
    await arrives(page);
    // The second time more came than a page holds: the list begins anew.
    for (const [from, count] of [[100, 2], [200, 70]]) {
      await page.evaluate(() => scrollTo(0, 1_500));
      await add(from, count);
      await announced(page, `${count} new events`);
      await pill.click();
      await pill.waitFor({ state: "hidden" });
      const [top, bottom, room] = await page.locator("li.event").first().evaluate((row) => {
        const box = row.getBoundingClientRect();
        return [box.top, box.bottom, innerHeight];
      });
      assert.ok(top >= 0 && bottom <= room, `${count}: ${top} to ${bottom} of ${room}`);
    }
  }));

test("whoever walks the bars stays on them when new events are shown", () =>
  story({}, async (page) => {
    const barred = minutely("live.barred");
    await enter(demo, [0, 10].map(barred));
    await page.goto(`${demo}/audit?action=live.barred`);
    await arrives(page);
    const bars = page.locator("#chart svg a");
    await bars.nth(1).waitFor({ state: "attached" });
    await bars.nth(1).focus();
    await enter(demo, [barred(20)]);
    await announced(page, "1 new event");
    // Bars that take long to count come after their page, and are not waited for: here they stand in it.
    const alone = await (await fetch(`${demo}/audit/histogram?action=live.barred`)).text();
    const [chart] = alone.match(/<figure[^>]* id="chart".*?<\/figure>/s);
    await page.route(/\/audit\?action=live\.barred/, async (route) => {
      const answer = await route.fetch();
      const body = (await answer.text()).replace(/<(div|figure)[^>]* id="chart".*?<\/\1>/s, () => chart);
      await route.fulfill({ response: answer, body });
    });
    await page.keyboard.press("n");
    await page.locator("#new-events").waitFor({ state: "hidden" });
    assert.equal(await bars.count(), 3);
    assert.ok(await page.evaluate(() => document.activeElement.matches('#chart a[tabindex="0"]')));
  }));

test("events leave a range that moves on with the clock", () =>
  story({}, async (page) => {
    const add = (...ages) => enter(demo, ages.map((age) => (
      { action: "live.ranged", externalId: `ranged-${age}`, at: new Date(Date.now() - age * 60_000).toISOString() })));
    // What is fetched later on is the page as of three quarters of an hour later.
    await page.route(/range=1h/, (route) => {
      const [url, isLater] = [route.request().url(), route.request().resourceType() === "fetch"];
      return route.continue({ url: isLater ? url.replace("range=1h", "range=15m") : url });
    });
    const list = `${demo}/audit?action=live.ranged&range=1h`;
    await add(5, 4, 3);
    await add(30, 29);
    await page.goto(`${list}&limit=3`);
    await arrives(page);
    await page.locator("#older").waitFor();
    const sinceOf = (href) => Date.parse(new URL(href, demo).searchParams.get("since"));
    const exported = async () => sinceOf(await page.locator(".exports a").first().getAttribute("href"));
    const former = await exported();
    await add(2);
    await page.locator("#new-events").click();
    await counts(page, 4);
    assert.equal(await page.locator("#older").count(), 1);
    // What is exported has moved on too, and so has a stream that is opened anew.
    const since = await exported();
    assert.ok(since - former >= 45 * 60_000, `${former} to ${since}`);
    const [opened] = await Promise.all([
      page.waitForRequest(/events\/stream/),
      page.waitForResponse(/limit=7/),
      happens(page, "pagehide", "pageshow"),
    ]);
    assert.equal(sinceOf(opened.url()), since);

    await page.goto(`${list}&limit=5`);
    await arrives(page);
    await page.locator("#older").waitFor();
    await add(1);
    await page.locator("#new-events").click();
    await counts(page, 5);
    await page.getByText("No older events match").waitFor();
    assert.equal(await page.locator("#older").count(), 0);

    // A stream that was opened before tells of what has left since.
    await add(31);
    await add(0.5);
    await announced(page, "1 new event");
    await page.locator("#new-events").click();
    await counts(page, 6);
    assert.equal(await said(page), "1 event added");
  }));
