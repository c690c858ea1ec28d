// Everything works without a script.

import assert from "node:assert/strict";
import { test } from "node:test";
import { demo, fitsItsWidth, guarded, ids, shot, story, tokens } from "./browser.mjs";

test("without scripts the page is a form and links", () =>
  story({ javaScriptEnabled: false }, async (page) => {
    await page.goto(`${demo}/audit`);
    await page.getByLabel("Source").selectOption("ocis");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.waitForURL(/source=ocis/);
    assert.equal(page.url(), `${demo}/audit?source=ocis`);
    assert.equal(await page.locator("button.tool:visible, #new-events:visible, .zone:visible").count(), 0);
    await shot(page, "plain");
    await page.getByLabel("Actor", { exact: true }).fill("nobody-of-this-name");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.waitForURL(`${demo}/audit?source=ocis&actor=nobody-of-this-name`);

    await page.goto(`${demo}/audit?source=authentik&limit=20`);
    const first = await ids(page);
    await page.getByRole("link", { name: "Older events" }).click();
    await page.waitForURL(/before=/);
    const second = await ids(page);
    assert.equal(new Set([...first, ...second]).size, 40);
    await page.getByRole("link", { name: "Newest events" }).click();
    await page.waitForURL((url) => !url.searchParams.has("before"));

    const count = page.getByRole("link", { name: "Count these events" });
    // A link stands in the place of bars that take long to count.
    if (await count.isVisible()) await count.click();
    await page.locator("#chart svg a").last().evaluate((bar) => bar.getAttribute("href")).then((href) => page.goto(demo + href));
    assert.match(page.url(), /since=.*until=/);
    assert.ok((await ids(page)).length > 0);
    // Not every event has an address, so not always the newest one.
    const { events } = await (await fetch(`${demo}/api/v1/events?source=authentik`)).json();
    const { actor } = events.find(({ actor }) => actor?.ip);
    await page.goto(`${demo}/audit?ip=${encodeURIComponent(actor.ip)}`);
    await page.locator("li.event a.open").first().click();
    await page.waitForURL(/\/audit\/events\//);
    await page.getByRole("link", { name: "Same IP address" }).waitFor();
    await page.getByRole("link", { name: "← Timeline" }).click();
    await page.waitForURL(/\/audit\?/);
  }));

for (const javaScriptEnabled of [false, true]) {
  test(`a condition that no field can hold is kept with${javaScriptEnabled ? "" : "out"} scripts`, () =>
    story({ javaScriptEnabled }, async (page) => {
      const odd = "a\u0000b\r\nc\r";
      await page.goto(`${demo}/audit?actor=${encodeURIComponent(odd)}`);
      await page.getByLabel("Outcome").selectOption("failure");
      await page.getByRole("button", { name: "Apply" }).click();
      await page.waitForURL(/outcome=failure/);
      const asked = [...new URL(page.url()).searchParams].sort();
      assert.deepEqual(asked, [["actor", odd], ["outcome", "failure"]]);
      assert.equal(await page.locator(".kept .value").textContent(), "aNULbCRLFcCR");
      await fitsItsWidth(page);
      await page.locator(".kept").getByLabel("Drop the condition Actor").click();
      await page.waitForURL(`${demo}/audit?outcome=failure`);
      assert.equal(await page.locator(".kept").count(), 0);
    }));
}

test("one signs in without scripts", () =>
  story({ javaScriptEnabled: false, expected: /401/ }, async (page) => {
    await page.goto(`${guarded}/audit?outcome=success`);
    await page.getByLabel("Token").fill(tokens.operator);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.waitForURL(`${guarded}/audit?outcome=success`);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByText("You are signed out").waitFor();
  }));
