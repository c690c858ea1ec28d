// The live stream: what is entered while the page is open, and a line when nothing can come any more.

import { limited } from "./fetch.js";
import { note } from "./notes.js";

const root = document.documentElement;
const home = location.href.split("#")[0];
/** A stream that is away for a moment is not worth a word, in milliseconds. */
const LATE = 4_000;
/** The service says something every 15 seconds: after this silence the connection is dead, in milliseconds. */
const SILENCE = 40_000;

let late = null;

function isOn() {
  root.dataset.live = "on";
  sayNothing();
  note("live", null);
}

function sayNothing() {
  clearTimeout(late);
  late = null;
}

/** Says it when this lasts. */
function isOff() {
  root.dataset.live = "off";
  late ??= setTimeout(tellWhy, LATE);
}

async function tellWhy() {
  const isOut = await isSignedOut();
  late = null;
  if (root.dataset.live === "on") return;
  const { pathname, search } = new URL(home);
  if (isOut) {
    const href = `/audit/sign-in?next=${encodeURIComponent(pathname + search)}`;
    note("live", "You are signed out, so live updates have stopped.", { href, text: "Sign in again" });
  } else {
    note("live", "Live updates have stopped.", { href: home, text: "Reload" });
  }
}

/** A stream does not tell why it was refused. */
async function isSignedOut() {
  try {
    const answer = await fetch("/api/v1/events?limit=1", { signal: limited(LATE) });
    return answer.status === 401;
  } catch {
    return false;
  }
}

/**
 * Listens while the page is seen: a browser opens six connections to a server at most, and a stream
 * in every forgotten tab would use them up. `address` is asked for whenever a stream is opened,
 * `arrived` takes an event. `opened` is called when the stream stands, to find what came before: it tells
 * whether it did, and is called again until then.
 */
export function listen(address, { arrived, opened }) {
  let stream = null;
  let again = null;
  let silent = null;
  let wait = 1_000;
  let storeUp = true;
  /** The catching up that has not succeeded yet. */
  let owed = null;
  const forget = () => {
    clearTimeout(again);
    owed = null;
  };
  const drop = () => {
    forget();
    clearTimeout(silent);
    stream?.close();
    stream = null;
  };
  const later = (call) => {
    again = setTimeout(call, wait);
    wait = Math.min(wait * 2, 60_000);
  };
  const catchUp = async () => {
    const own = {};
    owed = own;
    const isFound = await opened();
    // Another stream stands meanwhile, or none.
    if (owed !== own) return;
    if (!isFound) {
      isOff();
      later(catchUp);
      return;
    }
    owed = null;
    wait = 1_000;
    if (storeUp) isOn();
  };
  const heard = () => {
    clearTimeout(silent);
    silent = setTimeout(() => {
      drop();
      open();
    }, SILENCE);
  };
  const open = () => {
    if (document.hidden || stream) return;
    clearTimeout(again);
    stream = new EventSource(address());
    // All connections may be taken, or the one that is made die: then there is no error either.
    isOff();
    heard();
    stream.addEventListener("open", () => {
      heard();
      // Nothing is wrong until that fails.
      sayNothing();
      catchUp();
    });
    stream.addEventListener("beat", (beat) => {
      heard();
      ({ storeUp } = JSON.parse(beat.data));
      // While the store is away nothing can come, though the stream stands.
      if (!storeUp) isOff();
      else if (!owed) isOn();
    });
    stream.addEventListener("message", (message) => {
      heard();
      try {
        arrived(JSON.parse(message.data));
      } catch {
        // Not an event of ours.
      }
    });
    stream.addEventListener("error", () => {
      isOff();
      forget();
      // The browser tries again by itself unless the server refused.
      if (stream?.readyState !== EventSource.CLOSED) return;
      drop();
      later(open);
    });
  };
  const close = () => {
    drop();
    sayNothing();
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}
