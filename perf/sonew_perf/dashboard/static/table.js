// Tables that sort by their headings, filter and open their rows; the order stands in the page's address.

function order(a, b) {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

// What is not known comes last whichever way the rest is sorted, and what is `late` after that.
function sorted(rows, column, down, late) {
  const keyed = rows.map((row) => [column.key(row), row]);
  const blank = ([key]) => key === null || key === undefined || key === "";
  const listed = [...keyed.filter((each) => !blank(each)).sort(([a], [b]) => (down ? order(b, a) : order(a, b))), ...keyed.filter(blank)];
  const ordered = listed.map(([, row]) => row);
  return [...ordered.filter((row) => !late(row)), ...ordered.filter(late)];
}

function headingCell(column, sortedBy, choose) {
  const attributes = { scope: "col", class: column.kind ?? null, title: column.help ?? null };
  if (column.head) return h("th", attributes, column.head());
  if (!column.key) return h("th", attributes, column.hidden ? h("span", { class: "visually-hidden" }, column.title) : column.title);
  const mine = sortedBy.name === column.name;
  const direction = mine ? (sortedBy.down ? "descending" : "ascending") : null;
  return h(
    "th",
    { ...attributes, "aria-sort": direction },
    h("button", { type: "button", class: "sort", click: () => choose(column) }, column.title),
  );
}

// `columns`: {name, title, key(row), cell(row), kind: "number"|"grow"|…, down: sorts downwards first}. `groupOf(row)` makes a row group.
// Rows that are `late` stand behind all others. Gives {element, show(rows)}, of which a page calls `show` in a watcher: it sorts.
function dataTable({
  caption,
  columns,
  first,
  groupOf = null,
  limit = 250,
  nothing = "No rows.",
  parameter = "sort",
  mark = () => null,
  late = () => false,
}) {
  const head = h("thead");
  const table = h("table", {}, h("caption", { class: "visually-hidden" }, caption), head);
  const more = h("div", { class: "more" });
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
  const element = h("div", {}, scroll, more);
  let rows = [];
  let all = false;

  function sorting() {
    const asked = route().query.get(parameter) ?? first;
    const down = asked.startsWith("-");
    const name = down ? asked.slice(1) : asked;
    return columns.some((column) => column.name === name && column.key)
      ? { name, down }
      : { name: first.replace(/^-/, ""), down: first.startsWith("-") };
  }

  function choose(column) {
    const { name, down } = sorting();
    const next = name === column.name ? !down : Boolean(column.down);
    setQuery({ [parameter]: `${next ? "-" : ""}${column.name}` });
    [...head.querySelectorAll("th")].at(columns.indexOf(column)).querySelector("button")?.focus();
  }

  const rowOf = (row) =>
    h(
      "tr",
      { class: mark(row) },
      columns.map((column, place) => h(place ? "td" : "th", { scope: place ? null : "row", class: column.kind ?? null }, column.cell(row))),
    );

  function bodies(listed, ordered) {
    if (!listed.length) return [h("tbody", {}, h("tr", {}, h("td", { colspan: columns.length, class: "muted" }, nothing)))];
    if (!groupOf) return [h("tbody", {}, listed.map(rowOf))];
    const groups = new Map();
    for (const row of listed) groups.set(groupOf(row), [...(groups.get(groupOf(row)) ?? []), row]);
    const counts = new Map();
    for (const row of ordered) counts.set(groupOf(row), (counts.get(groupOf(row)) ?? 0) + 1);
    const title = (name, count) =>
      h(
        "tr",
        { class: "group" },
        h("th", { colspan: columns.length, scope: "rowgroup" }, name, h("span", { class: "count" }, grouped(count))),
      );
    return [...groups].map(([name, members]) => h("tbody", {}, title(name, counts.get(name)), members.map(rowOf)));
  }

  function write() {
    const by = sorting();
    head.replaceChildren(
      h(
        "tr",
        {},
        columns.map((column) => headingCell(column, by, choose)),
      ),
    );
    const ordered = sorted(
      rows,
      columns.find((column) => column.name === by.name),
      by.down,
      late,
    );
    const listed = all ? ordered : ordered.slice(0, limit);
    for (const body of [...table.tBodies]) body.remove();
    table.append(...bodies(listed, ordered));
    for (const button of table.querySelectorAll("[data-reopen]")) button.click();
    const rest = ordered.length - listed.length;
    more.replaceChildren(
      ...(rest
        ? [
            h(
              "button",
              {
                type: "button",
                class: "button",
                click: () => {
                  all = true;
                  write();
                },
              },
              `Show ${plural(rest, "more row")}`,
            ),
          ]
        : []),
    );
  }

  return {
    element,
    show(next, grouping = groupOf) {
      rows = next;
      groupOf = grouping;
      write();
    },
  };
}

// A button in a row that unfolds what `inside()` makes in a row of its own below. Rows whose `key` is in the set `opened` are unfolded
// again when their table is written anew.
function unfold(label, inside, columns, opened = new Set(), key = null) {
  const button = h(
    "button",
    { type: "button", class: "unfold", "aria-expanded": "false", "data-row": true, "data-reopen": opened.has(key), click: toggle },
    icon("next"),
    h("span", {}, label),
  );
  let below = null;
  function toggle() {
    delete button.dataset.reopen;
    if (below) {
      below.remove();
      below = null;
    } else {
      below = h("tr", { class: "unfolded" }, h("td", { colspan: columns }, h("div", { class: "inside" }, inside())));
      button.closest("tr").after(below);
    }
    if (below) opened.add(key);
    else opened.delete(key);
    button.setAttribute("aria-expanded", String(Boolean(below)));
  }
  return button;
}
