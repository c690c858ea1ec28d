// Dark and light, wide and narrow, seen and heard.

import assert from "node:assert/strict";
import { test } from "node:test";
import { demo, enter, fitsItsWidth, hasContrast, hasLabels, shot, signIn, story, tokens } from "./browser.mjs";

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

test("no sentence is cut off, however narrow", () =>
  story({}, async (page) => {
    const name = (user) => `${user.repeat(6)}@solstice.example.org`;
    await enter(demo, [{
      action: "mail.forwarded", externalId: "forwarded-1",
      actor: { name: name("milan.tana"), ip: "2001:db8:1234:5678:9abc:def0:1234:5678" }, target: { name: name("olga.papad") },
    }]);
    await page.goto(`${demo}/audit?action=mail.forwarded`);
    for (const width of [320, 768, 1024]) {
      await page.setViewportSize({ width, height: 900 });
      const cut = await page.locator(".sentence").evaluateAll((all) =>
        all.filter((sentence) => sentence.scrollHeight > sentence.clientHeight + 3).length);
      assert.equal(cut, 0, `${width}`);
      await fitsItsWidth(page);
    }
  }));

test("a narrow page has room for the button and for fingers", () =>
  story({ viewport: { width: 320, height: 740 }, hasTouch: true, isMobile: true }, async (page) => {
    await page.goto(`${demo}/audit?range=1h`);
    await page.locator("#new-events").waitFor();
    await page.locator(".legend a").first().waitFor();
    const [pill, day] = await page.evaluate(() =>
      ["#new-events", ".day h2"].map((part) => document.querySelector(part).getBoundingClientRect().toJSON()));
    assert.ok(pill.bottom <= day.top, JSON.stringify([pill, day]));
    const low = await page.locator(".small a, .legend a, .more summary").evaluateAll((all) =>
      all.filter((each) => each.checkVisibility({ contentVisibilityAuto: true }) && each.getBoundingClientRect().height < 24)
        .map((each) => each.outerHTML));
    assert.deepEqual(low, []);
  }));

test("forced colours leave what only a colour or a shadow tells", () =>
  story({ forcedColors: "active" }, async (page) => {
    await page.goto(`${demo}/audit?range=1h`);
    await page.locator(".legend a").first().waitFor();
    await page.keyboard.press("j");
    const styleOf = (part, name, pseudo) => page.locator(part).first().evaluate(
      (each, [name, pseudo]) => getComputedStyle(each, pseudo)[name], [name, pseudo]);
    assert.equal(await styleOf(".legend a", "forcedColorAdjust", "::before"), "none");
    for (const part of [".ranges a[aria-current]", ".zone a[aria-current]", "li.event:focus-within"]) {
      assert.equal(await styleOf(part, "outlineStyle"), "solid", part);
    }
    assert.equal(await styleOf("#new-events", "borderTopStyle"), "solid");
    await shot(page, "forced");
  }));

test("paper shows all that a screen scrolls or tells elsewhere, in light", () =>
  story({ colorScheme: "dark", timezoneId: "Europe/Berlin" }, async (page) => {
    const target = "n".repeat(300);
    await enter(demo, [{
      action: "paper.printed", externalId: "printed-1", actor: { name: "word ".repeat(390) }, target: { name: target },
      metadata: Object.fromEntries(Array.from({ length: 120 }, (_, number) => [`key${number}`, number])),
    }]);
    const isLight = () => page.evaluate(() => getComputedStyle(document.documentElement).colorScheme === "light");
    await page.goto(`${demo}/audit?action=paper.printed&target=${target}&range=1h&tz=local`);
    assert.equal(await isLight(), false);
    const asked = page.locator(".chips .value bdi").last();
    const isCut = () => asked.evaluate((value) => value.scrollWidth > value.clientWidth);
    assert.equal(await isCut(), true);
    await page.emulateMedia({ media: "print" });
    assert.equal(await isLight(), true);
    const told = page.locator("#printed");
    assert.ok(await told.isVisible());
    assert.match(await told.textContent(), /^All tenants\. Range: 1 hour\. As of .* CES?T\. Times are in Europe\/Berlin\.$/);
    assert.ok(await page.locator(".chips").getByText("paper.printed").isVisible());
    assert.equal(await asked.textContent(), target);
    assert.equal(await isCut(), false);

    await page.emulateMedia({ media: null });
    await page.locator("li.event a.open").click();
    await page.locator("#drawer #event").waitFor();
    const cut = () => page.locator("#drawer, .inside, .facts dd").evaluateAll((all) =>
      all.filter((part) => part.scrollHeight > part.clientHeight + 3).map((part) => part.outerHTML.slice(0, 80)));
    assert.notDeepEqual(await cut(), []);
    await page.emulateMedia({ media: "print" });
    assert.deepEqual(await cut(), []);
    // What is fixed would stand on every page.
    assert.notEqual(await page.locator("#drawer").evaluate((drawer) => getComputedStyle(drawer).position), "fixed");
    assert.equal(await page.locator("main").isVisible(), false);
    await page.goto(page.url());
    assert.deepEqual(await cut(), []);
    await shot(page, "printed");
  }));

test("paper says whose list it is, and whether it goes on", () =>
  story({ expected: /401/ }, async (page) => {
    const print = () => page.emulateMedia({ media: "print" });
    const told = page.locator("#printed");
    const leftOut = () => page.locator(".pager").evaluate((pager) =>
      pager.checkVisibility() && getComputedStyle(pager, "::after").content);
    await enter(demo, [1, 2, 3].map((number) => ({ action: "paper.listed", externalId: `listed-${number}` })));
    await page.goto(`${demo}/audit?action=paper.listed&limit=2`);
    await print();
    assert.match(await told.textContent(), /^All tenants\. As of /);
    assert.match(await leftOut(), /Older events are left out/);
    assert.equal(await page.locator(".pager a:visible").count(), 0);
    await shot(page, "printed-list");

    await page.emulateMedia({ media: null });
    await page.locator("#older").click();
    await page.locator(".pager .end").waitFor();
    await print();
    assert.doesNotMatch(await leftOut(), /Older/);
    assert.ok(await page.getByText("No older events match").isVisible());

    // As where the page breaks off among its rows.
    await page.locator(".pager").evaluate((pager) => pager.remove());
    const end = (list) => getComputedStyle(list, "::after").content;
    assert.match(await page.locator("#timeline").evaluate(end), /broke off here/);

    await page.goto(`${demo}/audit?tenant=acme`);
    assert.match(await told.textContent(), /^As of /);
    assert.ok(await page.locator(".chips").getByText("acme").isVisible());

    await page.emulateMedia({ media: null });
    await signIn(page, tokens.tenant, "/audit?action=invoice.paid");
    await page.locator("#timeline").waitFor();
    await print();
    assert.ok(await told.isVisible());
    assert.match(await told.textContent(), /^Tenant: acme\. As of /);
  }));
