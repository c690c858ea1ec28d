// Lines that say what is wrong, seen and heard, and words that are heard alone, over the list or in the drawer
// that covers it.

const place = () => document.querySelector("#drawer[open] .state") ?? document.querySelector("#state");

/** Says something to whoever does not see it; what lies under the drawer is not heard. */
export function say(text) {
  const voice = document.querySelector("#drawer[open] .spoken") ?? document.querySelector("#spoken");
  voice.textContent = text;
}

/** Shows a line under a name, and a link that helps; without a text it takes the line away. */
export function note(name, text, link) {
  const former = document.querySelector(`[data-note="${name}"]`);
  if (!text) return former?.remove();
  const line = document.createElement("p");
  line.className = "said";
  line.dataset.note = name;
  line.textContent = text;
  if (link) {
    const helps = document.createElement("a");
    helps.href = link.href;
    helps.textContent = link.text;
    line.append(" ", helps);
  }
  // What is said already is not said again.
  if (former?.isEqualNode(line)) return;
  former?.remove();
  place()?.append(line);
}

/** Lines stay when the drawer that shows them closes. */
export function keepNotes(drawer) {
  document.querySelector("#state").append(...drawer.querySelectorAll("[data-note]"));
}
