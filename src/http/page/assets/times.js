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
    for (const time of part.querySelectorAll(`time[data-show="${kind}"]`)) {
      time.textContent = withoutComma(format.format(new Date(time.dateTime)));
    }
  }
}

/** Lays the headings of days between the rows of a list, as the chosen zone counts days. */
export function regroupDays(list) {
  const day = zone(DAY);
  const today = day.format(new Date());
  const yesterday = day.format(new Date(Date.now() - 86_400_000));
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

/** Lets the form speak the reader's zone. */
export function localiseForm(form) {
  if (!isLocal() || !form) return;
  const fields = [...form.querySelectorAll('input[type="datetime-local"]')];
  for (const field of fields) {
    if (field.value) field.value = toLocal(field.value);
    const name = field.closest("label").querySelector(".zone-name");
    if (name) name.textContent = "(local)";
  }
  form.addEventListener("formdata", (event) => {
    for (const field of fields) {
      if (field.value) event.formData.set(field.name, toUtc(field.value));
    }
  });
}
