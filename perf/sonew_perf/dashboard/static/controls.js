// Choices that live in the page's address.

// Buttons of which one is chosen. `options`: [value, label]; the first is what the address leaves out. A label that changes is a function.
function segments(label, parameter, options) {
  const buttons = options.map(([value]) =>
    h("button", { type: "button", click: () => setQuery({ [parameter]: value === options[0][0] ? null : value }) }),
  );
  live((query) => {
    const asked = chosen(query, parameter, options);
    options.forEach(([value, text], place) => {
      buttons[place].textContent = typeof text === "function" ? text() : text;
      buttons[place].setAttribute("aria-pressed", String(value === asked));
    });
  });
  return h("div", { class: "segments", role: "group", "aria-label": label }, buttons);
}

// The value of `segments` in a query; what is not among the options counts as the first.
const chosen = (query, parameter, options) =>
  options.some(([value]) => value === query.get(parameter)) ? query.get(parameter) : options[0][0];

function picker(label, parameter, options, fallback = options[0]?.[0] ?? "") {
  const select = h(
    "select",
    { change: () => setQuery({ [parameter]: select.value === fallback ? null : select.value }) },
    options.map(([value, text]) => h("option", { value }, text)),
  );
  live((query) => {
    const asked = query.get(parameter) ?? fallback;
    select.value = options.some(([value]) => value === asked) ? asked : fallback;
  });
  return h("label", { class: "field" }, h("span", {}, label), select);
}

function toggle(label, parameter) {
  const box = h("input", { type: "checkbox", change: () => setQuery({ [parameter]: box.checked ? "1" : null }) });
  live((query) => {
    box.checked = query.get(parameter) === "1";
  });
  return h("label", { class: "check" }, box, h("span", {}, label));
}

// The page's filter, which `/` goes to.
function filterBox(label, placeholder) {
  const box = h("input", {
    type: "search",
    placeholder,
    "aria-label": label,
    "data-filter": true,
    autocomplete: "off",
    spellcheck: "false",
    input: () => setQuery({ filter: box.value || null }, { quietly: true }),
  });
  live((query) => {
    if (box.value !== (query.get("filter") ?? "")) box.value = query.get("filter") ?? "";
  });
  return h("div", { class: "filter" }, box, h("kbd", { "aria-hidden": "true" }, "/"));
}

// The words of a filter, or phrases in quotes, each with the pattern that finds it: at a word's start, a number only as a whole.
function soughtWords(filter) {
  const found = [...(filter ?? "").toLowerCase().matchAll(/"([^"]*)"?|[^\s"]+/g)].map(([word, phrase]) => phrase ?? word);
  return found.filter(Boolean).map((word) => {
    const start = /^[\p{L}\p{N}]/u.test(word) ? (/^\d/.test(word) ? "(?<![\\p{L}\\p{N}.])" : "(?<![\\p{L}\\p{N}])") : "";
    const end = /(^|\s)\d+$/.test(word) ? "(?![\\p{L}\\p{N}]|\\.\\d)" : "";
    return { word, pattern: new RegExp(`${start}${word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}${end}`, "u") };
  });
}

let sought = { filter: null, words: [] }; // of the filter that was asked about last

// Whether a text has every word of the filter in it. `ids`: hashes and names of runs, which only a word that looks like one is held against.
function matches(text, filter, ids = []) {
  if (sought.filter !== filter) sought = { filter, words: soughtWords(filter) };
  const inside = text.toLowerCase();
  const named = (word) => word.length > 5 && /\d/.test(word) && ids.some((id) => id.toLowerCase().startsWith(word));
  return sought.words.every(({ word, pattern }) => pattern.test(inside) || named(word));
}

// A list as a file: `make()` gives {columns, rows}.
function csvButton(what, name, make) {
  const save = () => {
    const { columns, rows } = make();
    download(`${name}.csv`, csvOf(columns, rows), "text/csv;charset=utf-8");
  };
  return h("button", { type: "button", class: "quiet", "aria-label": `Download ${what} as CSV`, click: save }, "CSV");
}

const REMEDIES = [
  ["make bench", "measures this checkout and keeps the run"],
  ["sonew-perf run --effort quick", "the same from an installed package"],
];

function emptyState(text, ...below) {
  return h("div", { class: "card empty" }, emblem(), h("p", {}, text), below);
}

function measureFirst(text, remedies = REMEDIES) {
  return emptyState(
    text,
    h(
      "dl",
      { class: "remedies" },
      remedies.map(([line, what]) => h("div", {}, h("dt", {}, command(line)), h("dd", {}, what))),
    ),
  );
}

// Words between backquotes are code.
const withCode = (text) => text.split("`").map((part, place) => (place % 2 ? h("code", {}, part) : part));

function failureState(error) {
  const text = error instanceof ViewError ? error.message : `This page could not be drawn: ${error.message}. The console says more.`;
  return h(
    "div",
    { class: "card failure", role: "alert" },
    icon("failure"),
    h("p", {}, withCode(text)),
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", class: "button", click: () => follow({ again: true }) }, "Try again"),
      h("a", { href: address("overview") }, "Overview"),
    ),
  );
}

function notice(kind, ...content) {
  return h("div", { class: `notice ${kind}` }, icon("warning"), h("div", {}, content));
}

// Said while the server still looks for changes of level.
function analysing({ analysed }) {
  if (!analysed || analysed.done >= analysed.total) return "";
  return notice("calm", `Histories are being analysed: ${analysed.done} of ${analysed.total}. Changes of level may still be missing here.`);
}

function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

// What two records say, name by name: what differs first, what is the same on request.
function differences(caption, left, right, titles) {
  const names = [...new Set([...Object.keys(left), ...Object.keys(right)])].sort();
  const text = (side, name) => (Object.hasOwn(side, name) && side[name] !== null && side[name] !== "" ? String(side[name]) : NOTHING);
  const differing = names.filter((name) => text(left, name) !== text(right, name));
  const same = names.filter((name) => !differing.includes(name));
  const row = (name, differs) =>
    h(
      "tr",
      { class: differs ? "differs" : "agrees" },
      h("th", { scope: "row" }, name),
      differs ? [h("td", {}, text(left, name)), h("td", {}, text(right, name))] : h("td", { colspan: 2 }, text(left, name)),
    );
  const body = h(
    "tbody",
    {},
    differing.length ? differing.map((name) => row(name, true)) : h("tr", {}, h("td", { colspan: 3, class: "muted" }, "Nothing differs.")),
  );
  const table = h(
    "table",
    { class: "differences" },
    h("caption", { class: "visually-hidden" }, caption),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "Name"),
        titles.map((title) => h("th", { scope: "col" }, title)),
      ),
    ),
    body,
  );
  const rest = h(
    "button",
    {
      type: "button",
      class: "button",
      click: () => {
        body.append(...same.map((name) => row(name, false)));
        rest.remove();
      },
    },
    `${same.length} the same: show`,
  );
  return h(
    "div",
    {},
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table),
    same.length ? h("div", { class: "more" }, rest) : null,
  );
}
