// Every story, one after the other, in one browser.

import { after, before } from "node:test";
import { closeBrowser, openBrowser } from "./browser.mjs";

before(openBrowser);
after(closeBrowser);

await import("./timeline.mjs");
await import("./live.mjs");
await import("./reading.mjs");
await import("./drawer.mjs");
await import("./times.mjs");
await import("./plain.mjs");
await import("./signing_in.mjs");
await import("./hostile.mjs");
await import("./appearance.mjs");
