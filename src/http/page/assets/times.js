// Times in the reader's zone. The server renders UTC and marks every time with what to show of it.

const root = document.documentElement;
const isLocal = () => root.dataset.tz === "local";

const zone = (options) =>
  new Intl.DateTimeFormat("en-GB", { ...options, ...(isLocal() ? {} : { timeZone: "UTC" }) });

const FORMATS = {
  time: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
  minute: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
  date: { day: "numeric", month: "short", year: "numeric" },
  moment: {
    weekday: "long", day: "numeric", month: "long", year: "numeric",
    hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
    timeZoneName: "short",
  },
};
const DAY = { weekday: "long", day: "numeric", month: "long", year: "numeric" };

const withoutComma = (text) => text.replace(/^(\w+), /, "$1, ");

/** Shows every time below `part` in the chosen zone. */
export function showTimes(part) {
  if (!isLocal()) return;
  for (const [kind, options] of Object.entries(FORMATS)) {
    const format = zone(options);
    for (const time of part.querySelectorAll(`[data-show="${kind}"]`)) {
      // A drawing has no element for times.
      time.textContent = withoutComma(format.format(new Date(time.dateTime ?? time.dataset.at)));
    }
  }
  for (const name of part.querySelectorAll("[data-zone]")) name.textContent = zone().resolvedOptions().timeZone;
}

/** A moment of the day before, however long that was. */
function yesterdayOf(now) {
  const noon = new Date(now);
  if (isLocal()) noon.setHours(12, 0, 0, 0);
  else noon.setUTCHours(12, 0, 0, 0);
  return new Date(noon - 86_400_000);
}

/** Lays the headings of days between the rows of a list, as the chosen zone counts days. */
export function regroupDays(list) {
  const day = zone(DAY);
  const now = new Date();
  const today = day.format(now);
  const yesterday = day.format(yesterdayOf(now));
  for (const heading of list.querySelectorAll("li.day")) heading.remove();
  let former = null;
  for (const row of [...list.children]) {
    const name = day.format(new Date(Number(row.dataset.at)));
    if (name !== former) {
      const heading = document.createElement("li");
      heading.className = "day";
      const h2 = heading.appendChild(document.createElement("h2"));
      const near = name === today ? "Today" : name === yesterday ? "Yesterday" : null;
      if (near) {
        h2.appendChild(document.createElement("strong")).textContent = near;
        h2.append(" ");
      }
      h2.appendChild(document.createElement("span")).textContent = name;
      row.before(heading);
    }
    former = name;
  }
}

/**
 * Calls when another day has begun: midnight is a full minute in every zone, and a timer until then
 * would stand still while the machine sleeps.
 */
export function onNewDay(call) {
  const day = zone(DAY);
  let former = day.format(new Date());
  const look = () => {
    const today = day.format(new Date());
    if (today === former) return;
    former = today;
    call();
  };
  const arm = () => setTimeout(tick, 60_000 - (Date.now() % 60_000));
  const tick = () => {
    look();
    arm();
  };
  arm();
  document.addEventListener("visibilitychange", look);
}

const pad = (number, digits = 2) => String(number).padStart(digits, "0");

/** A field's local time as the UTC that the server reads. */
function toUtc(value) {
  const date = new Date(value);
  return Number.isNaN(date.valueOf()) ? value : date.toISOString();
}

/** A field's UTC as local time. */
function toLocal(value) {
  const date = new Date(`${value}Z`);
  if (Number.isNaN(date.valueOf())) return value;
  const day = `${pad(date.getFullYear(), 4)}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return `${day}T${time}.${pad(date.getMilliseconds(), 3)}`;
}

/** What a field holds until somebody changes it. */
const untouched = (field) => Object.assign(field.cloneNode(), { value: field.defaultValue }).value;

/** Lets the form speak the reader's zone. What nobody changed is sent as it was given. */
export function localiseForm(form) {
  const fields = [...form.querySelectorAll('input[type="datetime-local"]')];
  for (const field of isLocal() ? fields : []) {
    const typed = field.value !== untouched(field) && field.value;
    field.defaultValue &&= toLocal(field.defaultValue);
    // The form can be filled in before scripts run: until then it spoke UTC.
    field.value = typed ? toLocal(typed) : field.defaultValue;
    const name = field.closest("label").querySelector(".zone-name");
    if (name) name.textContent = "(local)";
  }
  const shown = new Map(fields.map((field) => [field, untouched(field)]));
  form.addEventListener("formdata", ({ formData }) => {
    for (const field of fields) {
      if (field.value === shown.get(field)) formData.set(field.name, field.dataset.given ?? "");
      else if (field.value && isLocal()) formData.set(field.name, toUtc(field.value));
    }
  });
}
