// Kernels: the index of all series, and one series with its history, samples, configurations and the command that repeats a run.

pages.set("kernel", {
  title: "Kernels",
  load: ({ id }) => (id ? view(`series/${id}`) : view("series")),
  render(place, data, here, meta) {
    if (here.id) renderSeries(place, data, meta);
    else renderIndex(place, data, meta);
  },
});

const GROUPS = [
  ["kernel", "Kernel"],
  ["machine", "Machine"],
  ["workload", "Workload"],
  ["none", "No group"],
];

function renderIndex(place, list, meta) {
  place.append(heading("Kernels", "Everything that is measured again and again: one series per case, size, type and machine."));
  if (!list.length) {
    place.append(measureFirst("No series yet: the store holds no run that could be read."));
    return;
  }
  const machines = new Map(meta.machines.map((machine) => [machine.id, machine.device]));
  const many = machines.size > 1;
  const columns = [
    {
      name: "case",
      title: "Case",
      kind: "grow",
      key: (row) => row.case,
      cell: (row) => [
        h("a", { href: address("kernel", row.id), "data-row": true }, row.case),
        row.variant ? h("span", { class: "aside" }, row.variant) : null,
      ],
    },
    {
      name: "kernel",
      title: "Kernel",
      kind: "line",
      key: (row) => row.kernel,
      cell: (row) => [row.kernel, row.measure === "time" ? null : h("span", { class: "aside" }, row.measure)],
    },
    { name: "size", title: "Workload", kind: "line", key: (row) => row.elements, cell: (row) => workloadOf(row) || NOTHING },
    { name: "dtype", title: "Type", kind: "line", key: typeOf, cell: (row) => typeOf(row) || NOTHING },
    ...(many
      ? [
          {
            name: "machine",
            title: "Machine",
            kind: "line",
            key: (row) => machines.get(row.machine) ?? row.machine,
            cell: (row) => machines.get(row.machine) ?? row.machine,
          },
        ]
      : []),
    { name: "trend", title: "Trend", kind: "trend", cell: (row) => sparkline(row.spark ?? []) },
    {
      name: "last",
      title: "Last",
      kind: "number",
      down: true,
      key: (row) => (row.unit === "s" ? row.last * 1000 : row.last),
      cell: (row) =>
        row.status === "done" ? quantity(amount(row.last, row.unit)) : h("span", { class: `status ${row.status}` }, row.status),
    },
    {
      name: "change",
      title: "Last change",
      kind: "number",
      down: true,
      help: "The newest change of level in this series",
      key: (row) => row.change,
      cell: (row) => changeMark(row.change),
    },
    { name: "points", title: "Runs", kind: "number", down: true, key: (row) => row.points, cell: (row) => grouped(row.points) },
  ];
  const table = dataTable({ caption: "Series", first: "case", columns, nothing: "No series has these words in it." });
  const count = h("p", { class: "muted found", role: "status" });
  const save = csvButton("the series", "series", () => seriesNumbers(list, machines));
  place.append(
    h("div", { class: "toolbar" }, filterBox("Filter series", 'Filter: "band 1" bfloat16 4 Mi…'), picker("Group by", "group", GROUPS), save, count),
    h("section", { class: "card flush", "aria-label": "Series" }, table.element),
  );
  const groups = {
    kernel: (row) => row.kernel,
    machine: (row) => machines.get(row.machine) ?? row.machine,
    workload: (row) => row.workload || "no workload",
    none: null,
  };
  live((query) => {
    const text = (row) =>
      [
        row.title,
        row.kernel,
        row.case,
        elements(row.elements),
        row.dtype,
        row.framework,
        row.variant,
        machines.get(row.machine),
        row.band === null ? "" : `band ${row.band}`,
      ].join(" ");
    const found = list.filter((row) => matches(text(row), query.get("filter"), [row.id, row.last_run]));
    count.textContent =
      found.length === list.length ? `${grouped(list.length)} series` : `${found.length} of ${grouped(list.length)} series`;
    table.show(found, groups[chosen(query, "group", GROUPS)]);
  });
}

function seriesNumbers(list, machines) {
  const columns = ["id", "case", "kernel", "measure", "framework", "workload", "elements", "dtype", "band", "variant"];
  const numbers = ["last", "unit", "status", "change", "points", "last_run", "last_date"];
  const rows = list.map((row) => [
    ...columns.map((name) => row[name]),
    machines.get(row.machine) ?? row.machine,
    ...numbers.map((name) => row[name]),
  ]);
  return { columns: [...columns, "machine", ...numbers], rows };
}

function renderSeries(place, data, meta) {
  const { series, points } = data;
  const machine = meta.machines.find((each) => each.id === series.machine);
  const bands = series.band === null || series.band === undefined ? null : `band ${series.band}`;
  const trail = [
    series.kernel,
    series.dtype,
    bands,
    series.elements ? `${elements(series.elements)} elements` : series.workload,
    machine?.name ?? series.machine,
  ];
  place.append(
    h(
      "nav",
      { class: "trail", "aria-label": "Where this series stands" },
      h("a", { href: address("kernel") }, "Kernels"),
      trail
        .filter(Boolean)
        .map((part, at) => [
          h("span", { class: "cut", "aria-hidden": "true" }, "›"),
          at ? h("span", {}, part) : h("a", { href: address("kernel", "", { filter: series.kernel }) }, part),
        ]),
    ),
    heading(
      seriesName(series),
      [workloadOf(series), typeOf(series), series.variant, plural(points.run.length, "run")].filter(Boolean).join(" · "),
    ),
  );
  if (!points.run.length) {
    place.append(measureFirst("No run measured this series yet."));
    return;
  }
  place.append(
    seriesStrip(data),
    historyCard(data),
    data.changes.length ? changesCard(data) : "",
    comparedRuns(data),
    siblingsCard(data.siblings),
  );
}

const lastOf = (values, wanted = known) => values.findLast(wanted) ?? null;

function seriesStrip({ series, points, threshold, judged, reason, levels, changes }) {
  const done = points.median.findLastIndex(known);
  const status = points.status.at(-1);
  const spread =
    done >= 0 && known(points.q1[done]) && points.q3[done] > points.q1[done]
      ? `half within ${amount(points.q1[done], series.unit).split(" ")[0]} – ${amount(points.q3[done], series.unit)}`
      : "";
  const ratios = Object.entries(points.ratio ?? {})
    .map(([name, values]) => [name, lastOf(values)])
    .filter(([, value]) => known(value));
  const moved = (points.gbps ?? []).findLastIndex(known);
  const copy = points.copy_gbps?.[moved];
  const change = changes.at(-1);
  return h(
    "dl",
    { class: "tiles" },
    fact(
      "Last",
      done >= 0 ? quantity(amount(points.median[done], series.unit)) : NOTHING,
      status === "done" ? spread : `the newest run ${status}: ${points.reason.at(-1) || "no reason kept"}`,
    ),
    ratios
      .slice(0, 2)
      .map(([name, value]) =>
        fact(
          `Time ÷ ${name}`,
          ratioText(value),
          name === "copy"
            ? "beside a plain copy of as many elements"
            : value === 1
              ? "the same time"
              : h("span", { class: `change ${value < 1 ? "faster" : "slower"}` }, value < 1 ? "▼ faster" : "▲ slower"),
        ),
      ),
    moved < 0
      ? null
      : fact(
          "Moved",
          quantity(`${digits(points.gbps[moved])} GB/s`),
          known(copy) ? `${percentText(points.gbps[moved] / copy)} of a copy in the same run` : "",
        ),
    fact(
      "Last change",
      change ? changeMark(change.ratio) : "none",
      levels.length ? `level ${amount(levels.at(-1).level, series.unit)}` : "",
    ),
    fact(
      "Alarm above",
      known(threshold) && judged ? `±${percentText(threshold)}` : NOTHING,
      judged ? "from this series' own noise" : reason,
    ),
  );
}

function changesCard({ changes, points, series }) {
  const at = new Map(points.run.map((run, place) => [run, place]));
  const table = dataTable({
    caption: "Changes of level",
    first: "-when",
    parameter: "changes",
    columns: [
      {
        name: "change",
        title: "Change",
        key: (row) => row.ratio,
        cell: (row) => unfold(changeMark(row.ratio), () => changeInside(row), 4),
      },
      {
        name: "when",
        title: "Since",
        key: (row) => row.index,
        cell: (row) => (at.has(row.first_bad) ? stamp(points.date[at.get(row.first_bad)]) : NOTHING),
      },
      { name: "range", title: "Last good … first bad", cell: commitRange },
      {
        name: "ticket",
        title: "Ticket",
        cell: (row) =>
          row.ticket ? h("a", { href: address("regressions", "", { filter: series.id }) }, stateTag(row.ticket.state)) : NOTHING,
      },
    ],
  });
  live(() => table.show(changes));
  return h(
    "section",
    { class: "card flush", "aria-labelledby": "changes" },
    h("div", { class: "card-head" }, h("h2", { id: "changes" }, "Changes of level")),
    table.element,
  );
}

function commitRange(row) {
  const name = (commit, run) => h("code", {}, shortCommit(commit) || run);
  return h("span", { class: "range" }, name(row.good_commit, row.last_good), " … ", name(row.bad_commit, row.first_bad));
}

function changeInside(row) {
  return [
    row.bisect
      ? command(row.bisect, "the bisect command")
      : h("p", { class: "muted" }, "The commits of these runs are not known, so there is nothing to bisect."),
    row.ticket?.note ? h("p", {}, row.ticket.note) : null,
  ];
}

const stateTag = (state) => h("span", { class: `tag ${["open", "accepted", "fixed", "ignored"].includes(state) ? state : ""}` }, state);

function siblingsCard(siblings) {
  if (!siblings.length) return "";
  const short = siblings.map(({ title }) => title.split(": ")[0]);
  const named = siblings.map(({ id, title }, at) => [id, short.indexOf(short[at]) === short.lastIndexOf(short[at]) ? short[at] : title]);
  return h(
    "section",
    { class: "card", "aria-labelledby": "siblings" },
    h("h2", { id: "siblings" }, "Beside it"),
    h("p", { class: "sub" }, "Other bands and cases of the same kernel, workload and machine."),
    h(
      "ul",
      { class: "links" },
      named.map(([id, name]) => h("li", {}, h("a", { href: address("kernel", id) }, name))),
    ),
  );
}
