// Regressions as tickets: what got slower, since when, how to find the commit, and what people decided about it.

const STATES = [
  ["open", "Open"],
  ["accepted", "Accepted"],
  ["fixed", "Fixed"],
  ["ignored", "Ignored"],
];
const TICKET_GROUPS = [
  ["none", "No group"],
  ["kernel", "Kernel"],
  ["machine", "Machine"],
];

pages.set("regressions", {
  title: "Regressions",
  async load() {
    const [tickets, series] = await Promise.all([view("regressions"), view("series")]);
    return { tickets, series: new Map(series.map((each) => [each.id, each])) };
  },
  render: renderRegressions,
});

function renderRegressions(place, { tickets, series }, here, meta) {
  place.append(
    heading("Regressions", "Changes of level beyond a series' own noise. Each stays here, whatever is decided about it."),
    analysing(meta),
  );
  if (!tickets.length) {
    place.append(
      emptyState(
        "No series changed its level beyond its own noise.",
        h(
          "p",
          { class: "muted" },
          "A change is judged once a series has enough runs on one machine: measure now and then, after every commit that touches a kernel for instance.",
        ),
        command("sonew-perf run"),
      ),
    );
    return;
  }
  const machines = new Map(meta.machines.map((machine) => [machine.id, machine.device]));
  const columns = ticketColumns(series, machines, () => columns.length);
  const table = dataTable({ caption: "Regressions", first: "-ms", columns, nothing: "No ticket is left by this filter." });
  const states = h("div");
  const found = h("p", { class: "muted found", role: "status" });
  place.append(
    h(
      "div",
      { class: "toolbar" },
      stateFilter(tickets),
      filterBox("Filter regressions", "Filter by case, machine, note"),
      picker("Group by", "group", TICKET_GROUPS),
      found,
    ),
    h("section", { class: "card flush", "aria-label": "Regressions" }, table.element),
    states,
  );
  if (MODE === "export")
    place.append(
      h(
        "p",
        { class: "muted" },
        "This file is a copy: states and notes are changed in the live dashboard, ",
        h("code", {}, "sonew-perf dashboard"),
        ".",
      ),
    );
  const groups = { none: null, kernel: (row) => row.kernel, machine: (row) => machines.get(row.machine) ?? row.machine };
  live((query) => {
    const state = query.get("state") ?? "all";
    const text = (row) => `${row.title} ${row.note} ${row.author} ${row.id} ${row.series} ${row.kernel} ${machines.get(row.machine)}`;
    const listed = tickets.filter((row) => (state === "all" || row.state === state) && matches(text(row), query.get("filter")));
    found.textContent = `${listed.length} of ${plural(tickets.length, "ticket")}`;
    table.show(listed, groups[chosen(query, "group", TICKET_GROUPS)]);
  });
}

function stateFilter(tickets) {
  const count = (state) => tickets.filter((row) => row.state === state).length;
  return segments("State", "state", [
    ["all", `All ${tickets.length}`],
    ...STATES.map(([state, word]) => [state, `${word} ${count(state)}`]),
  ]);
}

function ticketColumns(series, machines, width) {
  return [
    {
      name: "title",
      title: "Series",
      kind: "wide",
      key: (row) => row.title,
      cell: (row) => [
        unfold(shortName(series.get(row.series), row.title), () => ticketInside(row), width()),
        h(
          "small",
          {},
          [workloadOf(series.get(row.series) ?? {}), typeOf(series.get(row.series) ?? {}), machines.get(row.machine) ?? row.machine]
            .filter(Boolean)
            .join(" · "),
        ),
      ],
    },
    { name: "change", title: "Change", kind: "number", down: true, key: (row) => row.ratio, cell: (row) => changeMark(row.ratio) },
    {
      name: "ms",
      title: "Time",
      kind: "number",
      down: true,
      help: "Absolute difference",
      key: (row) => row.ms,
      cell: (row) => signedDuration(known(row.ms) ? (row.direction === "faster" ? -Math.abs(row.ms) : Math.abs(row.ms)) : null),
    },
    { name: "trend", title: "Trend", kind: "trend", cell: (row) => sparkline(series.get(row.series)?.spark ?? []) },
    { name: "range", title: "Good … bad", cell: commitRange },
    { name: "date", title: "Since", down: true, key: (row) => row.date, cell: (row) => stamp(row.date) },
    { name: "state", title: "State", key: (row) => STATES.findIndex(([state]) => state === row.state), cell: (row) => stateCell(row) },
  ];
}

function stateCell(row) {
  if (MODE === "export") return [stateTag(row.state), row.note ? h("small", {}, row.note) : null];
  const select = h(
    "select",
    {
      "aria-label": `State of ${row.title}`,
      class: `state ${row.state}`,
      "data-ticket": row.id,
      change: () => keepTicket(row, select.value, row.note ?? "", select),
    },
    STATES.map(([value, word]) => h("option", { value }, word)),
  );
  select.value = row.state;
  return [select, row.note ? h("small", { class: "note" }, row.note) : null];
}

async function keepTicket(row, state, note, control) {
  control.disabled = true;
  try {
    await saveTicket(row.id, state, note);
    Object.assign(row, { state, note });
    announce(`Kept: ${row.title} is ${state}`);
    tell();
    document.querySelector(`[data-ticket="${CSS.escape(row.id)}"]`)?.focus();
  } catch (error) {
    announce(error.message);
    control.closest("td")?.append(h("small", { class: "wrong", role: "alert" }, error.message));
    if (control.matches("select")) control.value = row.state;
  } finally {
    control.disabled = false;
  }
}

function ticketInside(row) {
  const note = h("textarea", { rows: 2, "aria-label": `Note on ${row.title}`, placeholder: "Why is it so, who looks at it?" });
  note.value = row.note ?? "";
  const save = h("button", { type: "button", class: "button", click: () => keepTicket(row, row.state, note.value, save) }, "Keep the note");
  const written = row.note ? h("p", {}, row.note) : h("p", { class: "muted" }, "No note.");
  const by = row.author ? h("p", { class: "muted" }, `${row.author}${row.since ? `, ${day(row.since)}` : ""}`) : null;
  return h(
    "div",
    { class: "halves" },
    h(
      "div",
      {},
      h("h3", {}, "Find the commit"),
      row.bisect
        ? command(row.bisect, "the bisect command")
        : h("p", { class: "muted" }, "The commits of these runs are not known, so there is nothing to bisect."),
      h(
        "p",
        {},
        h("a", { href: address("kernel", row.series, { run: row.first_bad, against: row.last_good }) }, "History, with both runs picked →"),
      ),
    ),
    h("div", {}, h("h3", {}, "Note"), MODE === "export" ? written : [note, save], by),
  );
}
