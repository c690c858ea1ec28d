// Opening events faster than they come, and going back from them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { demo, enter, ids, story } from "./browser.mjs";

const list = `${demo}/audit?action=drawer.tried`;
const EVENTS = Array.from({ length: 8 }, (_, number) => ({
  action: "drawer.tried",
  externalId: `drawer-${number}`,
  at: `2026-10-20T10:0${number}:00Z`,
  actor: { name: `Reader ${number}` },
}));

const links = (page) => page.locator("li.event a.open");
const shows = (page, id) => page.locator(`#drawer[open] #event[data-id="${id}"]`).waitFor();
const isClosed = (page) => page.locator("#drawer").waitFor({ state: "hidden" });

async function openList(page) {
  await enter(demo, EVENTS);
  await page.goto(list);
  await links(page).first().waitFor();
  return ids(page);
}

/** Counts how often the page itself goes back: it takes a moment to be there. */
const countBacks = (page) =>
  page.evaluate(() => {
    const back = history.back.bind(history);
    window.backs = 0;
    history.back = () => {
      window.backs += 1;
      back();
    };
  });
const backs = (page) => page.evaluate(() => window.backs);

/** Holds what is fetched back, at first the pages of events, until it is told to let it through. */
async function hold(page, pattern = "**/audit/events/*") {
  let release;
  const released = new Promise((resolve) => {
    release = resolve;
  });
  await page.route(pattern, async (route) => {
    if (!route.request().isNavigationRequest()) await released;
    // It may have been given up meanwhile.
    await route.continue().catch(() => {});
  });
  return release;
}

test("a click on the words of a row opens its event, and the end of a selection does not", () =>
  story({}, async (page) => {
    const [, second, third] = await openList(page);
    const words = page.getByText("Drawer tried");
    // A row is marked as soon as its event is asked for.
    const marked = page.locator("li.event.current");
    const box = await words.first().boundingBox();
    const y = box.y + 12;
    await page.mouse.move(box.x + 2, y);
    await page.mouse.down();
    await page.mouse.move(box.x + 70, y, { steps: 4 });
    await page.mouse.up();
    assert.match(await page.evaluate(() => getSelection().toString()), /^Drawer/);
    assert.equal(await marked.count(), 0);
    await words.nth(1).click({ position: { x: 20, y: 12 }, modifiers: ["Control"] });
    assert.equal(await marked.count(), 0);
    assert.equal(page.url(), list);

    await words.nth(1).click({ position: { x: 20, y: 12 } });
    await shows(page, second);
    await page.keyboard.press("Escape");
    await isClosed(page);
    await page.waitForFunction((id) => document.activeElement.closest("li.event")?.dataset.id === id, second);
    await page.locator("li.event .mark").nth(2).click();
    await shows(page, third);
    await page.keyboard.press("Escape");
    await isClosed(page);
    // A name leads where it says.
    await page.locator("li.event .who").first().click();
    await page.waitForURL(/actor=/);
  }));

test("back leads from an event to its list, after a reload and after a link", () =>
  story({}, async (page) => {
    const [, second] = await openList(page);
    await links(page).nth(1).click();
    await shows(page, second);
    await page.reload();
    await page.locator("main #event").waitFor();
    await page.goBack();
    // Its script may come after its rows.
    await page.locator(`html.rows li.event[data-id="${second}"]`).waitFor();
    assert.equal(page.url(), list);

    await links(page).nth(1).click();
    await shows(page, second);
    await page.locator("#drawer").getByRole("link", { name: "Same actor" }).click();
    await page.waitForURL(/actor=/);
    await page.goBack();
    await page.waitForURL(/\/audit\/events\//);
    await page.locator("#event").waitFor();
    await page.goBack();
    await page.waitForURL(list);
    await page.locator(`li.event[data-id="${second}"]`).waitFor();
    await page.locator("main #event").waitFor({ state: "detached" });
  }));

test("a drawer that is closed twice leads back once", () =>
  story({}, async (page) => {
    const [first, second] = await openList(page);
    await countBacks(page);
    await links(page).first().click();
    await shows(page, first);
    await page.evaluate(() => {
      for (let clicked = 0; clicked < 2; clicked += 1) document.querySelector("#drawer .close").click();
    });
    await isClosed(page);
    assert.equal(await backs(page), 1);
    assert.equal(page.url(), list);
    await links(page).nth(1).click();
    await shows(page, second);
    await page.keyboard.press("Escape");
    await isClosed(page);
    assert.equal(page.url(), list);
  }));

test("a click beside the drawer closes it, and the end of a selection does not", () =>
  story({}, async (page) => {
    const [first] = await openList(page);
    await countBacks(page);
    await links(page).first().click();
    await shows(page, first);
    // No link: that would be dragged.
    const text = page.locator("#drawer .facts dt").first();
    await text.scrollIntoViewIfNeeded();
    const box = await text.boundingBox();
    const y = box.y + box.height / 2;
    await page.mouse.move(box.x + box.width - 2, y);
    await page.mouse.down();
    for (const x of [box.x + 2, 100]) await page.mouse.move(x, y, { steps: 4 });
    await page.mouse.up();
    assert.notEqual(await page.evaluate(() => getSelection().toString()), "");
    assert.equal(await backs(page), 0);
    await page.mouse.click(100, y);
    await isClosed(page);
    assert.equal(page.url(), list);
  }));

test("the way past the conditions loads nothing anew", () =>
  story({}, async (page) => {
    await openList(page);
    await page.evaluate(() => { window.isSame = true; });
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForURL(/#timeline$/);
    await page.waitForFunction(() => document.activeElement.id === "timeline");
    assert.equal(await page.evaluate(() => window.isSame), true);
    await page.keyboard.press("Tab");
    assert.ok(await links(page).first().evaluate((link) => link === document.activeElement));
  }));

test("a page that the browser has translated opens events", () =>
  story({}, async (page) => {
    const [first] = await openList(page);
    await page.evaluate(() => {
      window.isSame = true;
      document.querySelector(".whose").textContent = "alle Mandanten";
    });
    await links(page).first().click();
    await shows(page, first);
    assert.equal(await page.evaluate(() => window.isSame), true);
  }));

test("an event that is not waited for any more stays away", () =>
  story({}, async (page) => {
    const shown = await openList(page);
    await links(page).first().click();
    await shows(page, shown[0]);
    const release = await hold(page);
    for (let pressed = 0; pressed < 4; pressed += 1) await page.keyboard.press("j");
    assert.equal(await page.locator("li.event.current").getAttribute("data-id"), shown[4]);
    release();
    await shows(page, shown[4]);

    const late = await hold(page);
    const asked = page.waitForRequest((request) => request.url().includes(shown[5]));
    await page.keyboard.press("j");
    await asked;
    await page.keyboard.press("Escape");
    await isClosed(page);
    late();
    // Whatever was on its way would have come before this one.
    await page.evaluate((href) => fetch(href), await links(page).nth(5).getAttribute("href"));
    await isClosed(page);
    assert.equal(page.url(), list);
  }));

test("whoever goes forward to an event and does not wait for it, or in vain, is on the list", () =>
  story({ expected: /ERR_FAILED/ }, async (page) => {
    const [first] = await openList(page);
    await links(page).first().click();
    await shows(page, first);
    await page.keyboard.press("Escape");
    await isClosed(page);
    const release = await hold(page);
    const asked = page.waitForRequest((request) => request.url().includes(first));
    await page.goForward();
    await asked;
    assert.notEqual(page.url(), list);
    await page.keyboard.press("Escape");
    await page.waitForURL(list);
    release();
    // Whatever was on its way would have come before this one.
    await page.evaluate((href) => fetch(href), await links(page).first().getAttribute("href"));
    await isClosed(page);
    assert.equal(page.url(), list);

    await page.route(`**/audit/events/${first}*`, (route) => route.abort());
    await page.goForward();
    await page.locator("#state").getByText("The server does not answer").waitFor();
    await page.keyboard.press("Escape");
    await page.waitForURL(list);
  }));

test("the event that was asked for last is shown", () =>
  story({}, async (page) => {
    const shown = await openList(page);
    const release = await hold(page, `**/audit/events/${shown[0]}*`);
    await links(page).nth(0).click();
    await links(page).nth(3).click();
    await shows(page, shown[3]);
    release();
    await page.evaluate((href) => fetch(href), await links(page).nth(0).getAttribute("href"));
    await shows(page, shown[3]);
  }));

test("who does not see the drawer hears which event it shows", () =>
  story({}, async (page) => {
    const shown = await openList(page);
    await links(page).first().click();
    await shows(page, shown[0]);
    await page.getByRole("dialog", { name: /Reader 7/ }).waitFor();
    const spoken = page.locator("#drawer .spoken");
    assert.equal(await spoken.textContent(), "");
    await page.keyboard.press("j");
    await spoken.filter({ hasText: "Reader 6" }).waitFor({ state: "attached" });
    await page.keyboard.press("Escape");
    await isClosed(page);
    assert.equal(await spoken.textContent(), "");
  }));

const renewed = (minute) => ({
  action: "drawer.renewed",
  externalId: `renewed-${minute}`,
  at: new Date(Date.UTC(2026, 9, 21) + minute * 60_000).toISOString(),
});

test("an event that was opened from a former list leads back to its row", () =>
  story({}, async (page) => {
    const pill = page.locator("#new-events");
    const add = async (...minutes) => {
      await enter(demo, minutes.map(renewed));
      await page.waitForFunction((count) => document.querySelector("#new-events:not([hidden])")?.textContent.startsWith(`${count} `), minutes.length);
      await page.keyboard.press("n");
      await pill.waitFor({ state: "hidden" });
    };
    await enter(demo, [0, 1, 2, 3].map(renewed));
    await page.goto(`${demo}/audit?action=drawer.renewed&limit=3`);
    await page.waitForFunction(() => document.documentElement.dataset.live === "on");
    const [opened] = await ids(page);
    await links(page).first().click();
    await shows(page, opened);
    // The newest page ends with an event that the list has not: it begins anew.
    await add(4, 2.5);
    const [above, beside] = await ids(page);
    assert.equal(beside, opened);
    await page.keyboard.press("Escape");
    await isClosed(page);
    await page.waitForFunction((id) => document.activeElement.closest("li.event")?.dataset.id === id, opened);

    // The next key goes on from it too.
    await page.keyboard.press("Enter");
    await shows(page, opened);
    await add(2.7);
    assert.equal((await ids(page)).length, 3);
    await page.keyboard.press("k");
    await shows(page, above);
    await page.keyboard.press("j");
    await shows(page, opened);

    // Its row is not there any more.
    await add(5, 6, 7);
    assert.ok(!(await ids(page)).includes(opened));
    await page.keyboard.press("Escape");
    await isClosed(page);
    await page.waitForFunction(() => document.activeElement.id === "main");
  }));

test("the keyboard scrolls an event, and finds the row to which it walked", () =>
  story({ viewport: { width: 1280, height: 400 } }, async (page) => {
    await enter(demo, Array.from({ length: 30 }, (_, minute) =>
      ({ ...renewed(minute), action: "drawer.walked", externalId: `walked-${minute}` })));
    await page.goto(`${demo}/audit?action=drawer.walked`);
    const [first, ...others] = await ids(page);
    const scrolls = async () => {
      await page.keyboard.press("PageDown");
      await page.waitForFunction(() => document.querySelector("#drawer .inside").scrollTop > 0);
    };
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await shows(page, first);
    await scrolls();
    for (const id of others) {
      await page.keyboard.press("j");
      await shows(page, id);
    }
    await scrolls();
    await page.keyboard.press("Escape");
    await isClosed(page);
    await page.waitForFunction((id) => {
      const row = document.activeElement.closest("li.event");
      const { top, bottom } = document.activeElement.getBoundingClientRect();
      return row?.dataset.id === id && top >= 0 && bottom <= innerHeight;
    }, others.at(-1));
  }));

test("escape closes the help before the drawer", () =>
  story({}, async (page) => {
    const shown = await openList(page);
    await links(page).first().click();
    await shows(page, shown[0]);
    await page.keyboard.press("?");
    await page.locator("#help[open]").waitFor();
    await page.keyboard.press("Escape");
    await page.locator("#help").waitFor({ state: "hidden" });
    await shows(page, shown[0]);
    await page.keyboard.press("Escape");
    await isClosed(page);
  }));

test("an event that does not come is told of, in the list and in the drawer", () =>
  story({ expected: /ERR_FAILED/ }, async (page) => {
    const shown = await openList(page);
    await page.route(`**/audit/events/${shown[1]}*`, (route) => route.abort());
    await links(page).nth(1).click();
    await page.locator("#state").getByText("The server does not answer").waitFor();
    await links(page).nth(0).click();
    await shows(page, shown[0]);
    assert.equal(await page.getByText("The server does not answer").count(), 0);
    await page.keyboard.press("j");
    await page.locator("#drawer .state").getByText("The server does not answer").waitFor();
    await shows(page, shown[0]);
  }));

test("what the page fetches by itself does not take back that an event did not come", () =>
  story({ expected: /ERR_FAILED/ }, async (page) => {
    const release = await hold(page, ({ pathname }) => pathname === "/audit");
    const [first] = await openList(page);
    await page.route(`**/audit/events/${first}*`, (route) => route.abort());
    await links(page).first().click();
    const told = page.locator("#state").getByText("The server does not answer");
    await told.waitFor();
    release();
    // Then it knows what came before it listened.
    await page.locator("html[data-live=on]").waitFor();
    assert.equal(await told.count(), 1);
  }));

test("waiting for an event has an end", () =>
  story({}, async (page) => {
    await page.clock.install();
    const [first] = await openList(page);
    const release = await hold(page);
    const asked = page.waitForRequest((request) => request.url().includes(first));
    await links(page).first().click();
    await asked;
    await page.clock.fastForward(35_000);
    await page.getByText("The server does not answer").waitFor();
    release();
  }));

test("a browser that knows only the oldest of signals opens events", () =>
  story({}, async (page) => {
    await page.addInitScript(() => {
      delete AbortSignal.any;
      delete AbortSignal.timeout;
    });
    const [first] = await openList(page);
    await links(page).first().click();
    await shows(page, first);
    assert.deepEqual(await page.evaluate(() => [AbortSignal.any, AbortSignal.timeout]), [undefined, undefined]);
  }));

test("a link that cannot be copied is not said to be", () =>
  story({}, async (page) => {
    await page.addInitScript(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
    await openList(page);
    await page.goto(new URL(await links(page).first().getAttribute("href"), demo).href);
    await page.locator("[data-copy-link]").click();
    await page.getByText("Copy it from the address bar").waitFor();
  }));
