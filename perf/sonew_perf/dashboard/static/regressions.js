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

// What the reader unfolded and wrote, by ticket: it outlives that the table is sorted, filtered or loaded again.
const openedTickets = new Set();
const noteDrafts = new Map();

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
  const table = dataTable({
    caption: "Regressions",
    first: "-ms",
    columns,
    nothing: "No ticket is left by this filter.",
    late: (row) => segmentOf(row) === "recovered",
  });
  const found = h("p", { class: "muted found", role: "status" });
  place.append(
    h(
      "div",
      { class: "toolbar" },
      stateFilter(tickets),
      filterBox("Filter regressions", "Filter by case, machine, note"),
      picker("Group by", "group", TICKET_GROUPS),
      csvButton("the regressions", "regressions", () => ticketNumbers(tickets, machines)),
      found,
    ),
    h("section", { class: "card flush", "aria-label": "Regressions" }, table.element),
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
    const state = chosen(query, "state", SEGMENTS);
    const text = (row) => `${row.title} ${row.note} ${row.author} ${row.kernel} ${machines.get(row.machine)}`;
    const ids = (row) => [row.id, row.series, row.first_bad, row.last_good, row.bad_commit, row.good_commit];
    const listed = tickets.filter(
      (row) => (state === "all" || segmentOf(row) === state) && matches(text(row), query.get("filter"), ids(row)),
    );
    found.textContent = `${listed.length} of ${plural(tickets.length, "ticket")}`;
    table.show(listed, groups[chosen(query, "group", TICKET_GROUPS)]);
  });
}

const SEGMENTS = [["all", "All"], STATES[0], ["recovered", "Recovered"], ...STATES.slice(1)];

// Where a ticket is counted: one that nobody settled but that a later level made good again is no open one.
const segmentOf = (row) => (row.state === "open" && row.recovered ? "recovered" : row.state);

function stateFilter(tickets) {
  const count = (state) => (state === "all" ? tickets.length : tickets.filter((row) => segmentOf(row) === state).length);
  return segments(
    "State",
    "state",
    SEGMENTS.map(([state, word]) => [state, () => `${word} ${count(state)}`]),
  );
}

function ticketNumbers(tickets, machines) {
  const columns = ["series", "machine", "ratio", "ms", "since", "last good", "first bad", "good commit", "bad commit"];
  const rows = tickets.map((row) => [
    row.title,
    machines.get(row.machine) ?? row.machine,
    row.ratio,
    row.ms,
    row.date,
    row.last_good,
    row.first_bad,
    row.good_commit,
    row.bad_commit,
    row.state,
    row.recovered,
    row.note,
  ]);
  return { columns: [...columns, "state", "recovered in", "note"], rows };
}

function ticketColumns(series, machines, width) {
  return [
    {
      name: "title",
      title: "Series",
      kind: "wide",
      key: (row) => row.title,
      cell: (row) => [
        unfold(shortName(series.get(row.series), row.title), () => ticketInside(row), width(), openedTickets, row.id),
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
    { name: "state", title: "State", key: (row) => SEGMENTS.findIndex(([state]) => state === segmentOf(row)), cell: stateCell },
  ];
}

const recoveredTag = (row) =>
  row.recovered
    ? h("a", { class: "tag recovered", href: address("runs", "", { run: row.recovered }) }, `recovered in ${row.recovered}`)
    : null;

function stateCell(row) {
  if (MODE === "export") return [stateTag(row.state), recoveredTag(row), row.note ? h("small", {}, row.note) : null];
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
  return [select, recoveredTag(row), row.note ? h("small", { class: "note" }, row.note) : null];
}

async function keepTicket(row, state, note, control) {
  control.disabled = true;
  const own = control.matches("select") ? "select" : "button";
  const controls = () => [...document.querySelectorAll(`#main ${own}[data-ticket]`)];
  const place = controls().indexOf(control);
  try {
    Object.assign(row, await saveTicket(row.id, state, note));
    announce(`Kept: ${row.title} is ${state}`);
    tell();
    const left = controls();
    (left.find((each) => each.dataset.ticket === row.id) ?? left[place] ?? left.at(-1) ?? document.querySelector("#main [data-filter]"))?.focus();
  } catch (error) {
    announce(error.message);
    control.closest("td")?.append(h("small", { class: "wrong", role: "alert" }, error.message));
    if (control.matches("select")) control.value = row.state;
  } finally {
    control.disabled = false;
  }
}

function ticketInside(row) {
  const note = h("textarea", {
    rows: 2,
    "aria-label": `Note on ${row.title}`,
    placeholder: "Why is it so, who looks at it?",
    input: () => noteDrafts.set(row.id, note.value),
  });
  note.value = noteDrafts.get(row.id) ?? row.note ?? "";
  const keep = async () => {
    const written = note.value;
    await keepTicket(row, row.state, written, save);
    if (row.note === written && note.value === written) noteDrafts.delete(row.id);
  };
  const save = h("button", { type: "button", class: "button", "data-ticket": row.id, click: keep }, "Keep the note");
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
