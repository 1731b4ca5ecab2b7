// The keyboard: rows by j and k, pages by g and a letter, the filter by a slash.

const KEYS = [
  ["/", "Go to the page's filter"],
  ["j", "Next row"],
  ["k", "Row before"],
  ["Enter", "Open the row"],
  ["← ↑ ↓ →", "Move in a heatmap"],
  ["t", "Change the colours"],
  ["?", "Show these keys"],
  ["Esc", "Close, or leave the filter"],
];

function keysDialog() {
  const row = (keys, what) =>
    h(
      "div",
      {},
      h(
        "dt",
        {},
        keys.map((key) => h("kbd", {}, key)),
      ),
      h("dd", {}, what),
    );
  const close = h(
    "button",
    { type: "button", class: "tool", "aria-label": "Close", click: () => document.getElementById("keys").close() },
    "×",
  );
  const list = h(
    "dl",
    {},
    KEYS.map(([key, what]) => row([key], what)),
    MENU.map(([, title, key]) => row(["g", key], title)),
  );
  return h(
    "dialog",
    { id: "keys", "aria-labelledby": "keys-title", click: closeOutside },
    h("div", { class: "inside" }, h("div", { class: "dialog-head" }, h("h2", { id: "keys-title" }, "Keys"), close), list),
  );
}

function closeOutside(event) {
  if (event.target === event.currentTarget) event.currentTarget.close();
}

function showKeys() {
  const dialog = document.getElementById("keys");
  if (!dialog.open) dialog.showModal();
}

function moveRow(by) {
  const rows = [...document.querySelectorAll("#main [data-row]")].filter((row) => row.getClientRects().length);
  if (!rows.length) return;
  const here = document.activeElement?.closest?.("tr, li");
  const line = here?.matches(".unfolded") ? here.previousElementSibling : here;
  const now = line ? rows.findIndex((row) => line.contains(row)) : -1;
  const next = now < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, now + by));
  rows[next].focus();
  rows[next].scrollIntoView({ block: "nearest" });
}

let waitsForPage = 0; // the time of a "g" that waits for its second letter

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const target = event.target;
  const writes = target.matches("textarea, select, input:not([type=checkbox], [type=radio])");
  if (event.key === "Escape" && writes) target.blur();
  if (writes || document.querySelector("dialog[open]")) return;
  const menu = MENU.find(([, , key]) => key === event.key);
  if (menu && event.timeStamp - waitsForPage < 1500) {
    waitsForPage = 0;
    go(address(menu[0]));
  } else {
    const action = ACTIONS[event.key];
    if (!action) return;
    action(event);
  }
  event.preventDefault();
}

const ACTIONS = {
  "/": () => document.querySelector("#main [data-filter]")?.focus(),
  "?": showKeys,
  j: () => moveRow(1),
  k: () => moveRow(-1),
  t: () => document.getElementById("theme").click(),
  g: (event) => {
    waitsForPage = event.timeStamp;
  },
};

document.addEventListener("keydown", pressed);
