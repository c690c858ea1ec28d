// Who sees what, and for how long.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fitsItsWidth, guarded, hasContrast, hasLabels, ids, shot, signIn, story, tokens } from "./browser.mjs";

test("an operator signs in where they wanted to go, and out", () =>
  story({ expected: /401/ }, async (page) => {
    await page.goto(`${guarded}/audit?outcome=success`);
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await shot(page, "sign-in");
    await hasContrast(page);
    await hasLabels(page);
    await page.getByLabel("Token").fill("not-a-token");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").getByText("This token is unknown or has expired.").waitFor();
    await hasContrast(page);
    await page.getByLabel("Token").fill(tokens.operator);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.waitForURL(`${guarded}/audit?outcome=success`);
    await page.getByText("all tenants", { exact: true }).waitFor();
    const cookies = await page.context().cookies();
    assert.deepEqual(cookies.map(({ name, httpOnly, sameSite }) => [name, httpOnly, sameSite]), [["daybook_session", true, "Strict"]]);
    assert.ok(cookies[0].value !== tokens.operator);
    assert.equal(await page.evaluate(() => document.cookie), "");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByText("You are signed out").waitFor();
    assert.deepEqual(await page.context().cookies(), []);
    await page.goto(`${guarded}/audit`);
    await page.getByLabel("Token").waitFor();
  }));

test("a tenant sees its own timeline", () =>
  story({ expected: /40[13]/ }, async (page) => {
    await signIn(page, tokens.tenant);
    await page.locator(".whose .tenant").getByText("acme").waitFor();
    assert.equal(await page.getByLabel("Tenant").count(), 0);
    assert.equal(await page.getByText("elsewhere").count(), 0);
    await page.goto(`${guarded}/audit?tenant=other`);
    await page.getByRole("heading", { name: "Not yours to see" }).waitFor();
    await shot(page, "refused");
    for (const width of [390, 320]) {
      await page.setViewportSize({ width, height: 844 });
      await fitsItsWidth(page);
      assert.ok(await page.locator(".whose .tenant").evaluate((name) => name.scrollWidth <= name.clientWidth), `${width}`);
    }
  }));

test("a page that is open becomes that of whoever signs in beside it", () =>
  story({ expected: /401|ERR_INCOMPLETE_CHUNKED_ENCODING/ }, async (page) => {
    const beside = await page.context().newPage();
    const isOf = (each, whose) => each.locator(".whose").getByText(whose, { exact: true }).waitFor();
    const arrives = () => page.waitForFunction(() => document.documentElement.dataset.live === "on");
    const change = async (token, whose) => {
      await beside.goto(`${guarded}/audit`);
      await beside.getByRole("button", { name: "Sign out" }).click();
      await beside.getByText("You are signed out").waitFor();
      await signIn(beside, token);
      await isOf(beside, whose);
    };
    await signIn(page, tokens.operator, "/audit?limit=1");
    await isOf(page, "all tenants");
    await arrives();
    await change(tokens.tenant, "acme");
    // Its stream is opened anew, as when a tab is seen again.
    await page.evaluate(() => ["pagehide", "pageshow"].forEach((name) => dispatchEvent(new Event(name))));
    await isOf(page, "acme");

    await arrives();
    // No stream is open that could find out before.
    await page.evaluate(() => dispatchEvent(new Event("pagehide")));
    await change(tokens.operator, "all tenants");
    await page.locator("#older").click();
    await isOf(page, "all tenants");
    await page.locator("#older").waitFor();
    assert.equal((await ids(page)).length, 1);
  }));

test("a recorder does not sign in", () =>
  story({ expected: /40[13]/ }, async (page) => {
    await signIn(page, tokens.recorder);
    await page.getByRole("alert").getByText("reads nothing").waitFor();
  }));

test("a link in somebody's mail opens the view that it names", () =>
  story({ expected: /401/ }, async (page) => {
    await signIn(page, tokens.operator);
    await page.locator(".whose").waitFor();
    const target = `${guarded}/audit?outcome=success`;
    await page.route("http://mail.test/", (route) =>
      route.fulfill({ contentType: "text/html", body: `<link rel="icon" href="data:,"><a href="${target}">Look at this</a>` }));
    await page.goto("http://mail.test/");
    await page.getByText("Look at this").click();
    await page.waitForURL(target);
    await page.getByText("all tenants", { exact: true }).waitFor();
    // And whoever has no session is asked for one.
    await page.context().clearCookies();
    await page.goto("http://mail.test/");
    await page.getByText("Look at this").click();
    await page.getByLabel("Token").waitFor();
  }));
