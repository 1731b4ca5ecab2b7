// Convergence: what a step is worth. Loss against steps, seconds and the bytes of the state.

const AXES = [
  ["steps", "Steps"],
  ["seconds", "Seconds"],
  ["bytes", "State"],
];

pages.set("convergence", { title: "Convergence", load: () => view("convergence"), render: renderConvergence });

function renderConvergence(place, data, here, meta) {
  place.append(
    heading("Convergence", "A fast step is worth what it does to the loss: the same training, against steps, seconds and memory."),
  );
  const tasks = data.tasks.filter((task) => task.runs.length);
  if (!tasks.length) {
    place.append(measureFirst("No training run is kept yet.", [["sonew-perf train", "trains the autoencoder with SONew and its peers"]]));
    return;
  }
  const machines = new Map(meta.machines.map((machine) => [machine.id, machine.name]));
  const taskOf = (query) => tasks.find((task) => task.task === query.get("task")) ?? tasks[0];
  const runsOf = (query) => taskOf(query).runs.filter((run) => query.get("all") === "1" || run.best);
  const chart = figure({
    title: "Training loss",
    name: "convergence",
    height: 460,
    summary: () => convergenceSummary(runsOf(route().query)),
    note: h("div", { class: "key" }),
    build: (colours) => convergencePlot(taskOf(route().query), runsOf(route().query), route().query, colours),
    table: () =>
      chosen(route().query, "x", AXES) === "bytes" ? stateNumbers(runsOf(route().query)) : convergenceNumbers(runsOf(route().query)),
    tools: [
      segments("Against", "x", AXES),
      segments("Axis of the loss", "y", [
        ["linear", "Linear"],
        ["log", "Log"],
      ]),
    ],
  });
  const key = chart.element.querySelector(".key");
  const table = dataTable({ caption: "Training runs", first: "final", columns: trainingColumns(machines), limit: 100 });
  place.append(
    h(
      "div",
      { class: "toolbar" },
      tasks.length > 1
        ? picker(
            "Task",
            "task",
            tasks.map(({ task }) => [task, task]),
          )
        : h("p", { class: "muted" }, tasks[0].task),
      toggle("Every learning rate, not only the best of a method in its run", "all"),
    ),
    chart.element,
    h(
      "section",
      { class: "card flush", "aria-labelledby": "trained" },
      h("div", { class: "card-head" }, h("h2", { id: "trained" }, "Training runs")),
      table.element,
    ),
  );
  live((query) => {
    const labels = labelsOf(taskOf(query));
    const listed = new Set(runsOf(query).map((run) => run.label));
    key.replaceChildren(
      ...labels
        .filter((label) => listed.has(label))
        .map((label) =>
          h("span", {}, h("i", { class: "stroke", style: { background: `var(--${hueOf(labels, label)})` }, "aria-hidden": "true" }), label),
        ),
    );
    chart.redraw();
    table.show(runsOf(query));
  });
}

// SONew's methods take the first colours, in the order of their bands.
function labelsOf(task) {
  const first = new Map();
  for (const run of task.runs) if (!first.has(run.label)) first.set(run.label, run);
  const rank = (run) => (run.band === null || run.band === undefined ? 1000 : run.band);
  return [...first.values()].sort((a, b) => rank(a) - rank(b) || order(a.label, b.label)).map((run) => run.label);
}

const hueOf = (labels, label) => `hue-${(labels.indexOf(label) % 8) + 1}`;

const trainingName = (run) => `${plain(run.label)}, rate ${run.lr}, seed ${run.seed}<br>${plain(clipped(run.run_name, 60))}`;

function convergencePlot(task, runs, query, colours) {
  const labels = labelsOf(task);
  const against = chosen(query, "x", AXES);
  const log = query.get("y") === "log";
  const losses = runs.flatMap((run) => run.loss).filter((value) => known(value) && value > 0);
  const y = {
    title: { text: "training loss" },
    type: log ? "log" : "linear",
    fixedrange: true,
    zeroline: false,
    ...(log ? { dtick: "D2", tickformat: "~g" } : { range: lossRange(runs) }),
  };
  const titles = { steps: "step", seconds: "seconds of training", bytes: "bytes of optimizer state" };
  const x = { title: { text: titles[against] }, fixedrange: true, rangemode: "tozero", zeroline: false, showgrid: false };
  if (against === "bytes")
    return finalLosses(runs, labels, { x, y: { ...y, title: { text: "final training loss" }, range: undefined }, colours });
  const data = runs.map((run) => {
    const tone = colours[hueOf(labels, run.label)];
    const place = against === "steps" ? run.steps : run.steps.map((step) => step * (run.seconds_per_step ?? NaN));
    return {
      type: "scatter",
      mode: "lines",
      x: place,
      y: run.loss,
      line: { color: tone, width: run.band === null ? 1.25 : 1.75, dash: run.band === null ? "4px,2px" : "solid" },
      opacity: run.best ? 1 : 0.4,
      text: trainingName(run),
      hovertemplate: "<b>%{text}</b><br>%{x:.4g}: loss %{y:.4g}<extra></extra>",
    };
  });
  return {
    data,
    layout: {
      xaxis: x,
      yaxis: y,
      height: 460,
      dragmode: false,
      ...(losses.length ? {} : { annotations: [{ text: "no finite loss", showarrow: false }] }),
    },
  };
}

// The first steps fall from so high that they would flatten the rest: the axis begins where nine tenths of the losses lie.
function lossRange(runs) {
  const losses = runs
    .flatMap((run) => run.loss)
    .filter(known)
    .sort((a, b) => a - b);
  if (!losses.length) return [0, 1];
  const top = losses[Math.floor(0.9 * (losses.length - 1))];
  const pad = (top - losses[0]) * 0.08 || 1;
  return [losses[0] - pad, top + 3 * pad];
}

function finalLosses(runs, labels, { x, y, colours }) {
  const with_state = runs.filter((run) => known(run.state_bytes) && known(run.final));
  const scale = byteScale(Math.max(...with_state.map((run) => run.state_bytes), 1));
  const data = [
    {
      type: "scatter",
      mode: "markers",
      x: with_state.map((run) => run.state_bytes * scale.factor),
      y: with_state.map((run) => run.final),
      text: with_state.map(trainingName),
      hovertemplate: `<b>%{text}</b><br>%{x:.4g} ${scale.unit}: final loss %{y:.4g}<extra></extra>`,
      marker: { size: 12, color: with_state.map((run) => colours[hueOf(labels, run.label)]), line: { color: colours.card, width: 1.5 } },
    },
  ];
  return { data, layout: { xaxis: { ...x, title: { text: `optimizer state (${scale.unit})` } }, yaxis: y, height: 460, dragmode: false } };
}

function convergenceSummary(runs) {
  const ended = runs.filter((run) => known(run.final)).sort((a, b) => a.final - b.final);
  const [best] = ended;
  const lowest = best ? `; lowest final loss ${digits(best.final)} by ${best.label} at rate ${best.lr}` : ", none with a final loss";
  return `${plural(runs.length, "run")}${lowest}`;
}

function convergenceNumbers(runs) {
  const rows = runs.flatMap((run) =>
    run.steps.map((step, place) => [
      run.label,
      run.lr,
      run.seed,
      step,
      known(run.seconds_per_step) ? step * run.seconds_per_step : null,
      run.state_bytes,
      run.loss[place],
      run.run,
    ]),
  );
  return { columns: ["method", "rate", "seed", "step", "seconds", "state bytes", "loss", "run"], rows };
}

// Against the state stands one final loss of each training run, and so does its table.
function stateNumbers(runs) {
  const rows = runs
    .filter((run) => known(run.state_bytes) && known(run.final))
    .map((run) => [run.label, run.lr, run.seed, run.state_bytes, run.final, run.run]);
  return { columns: ["method", "rate", "seed", "state bytes", "final loss", "run"], rows };
}

function trainingColumns(machines) {
  return [
    {
      name: "label",
      title: "Method",
      kind: "grow",
      key: (run) => run.label,
      cell: (run) => [h("span", {}, run.label), run.best ? h("span", { class: "tag" }, "best rate of its run") : null],
    },
    { name: "lr", title: "Learning rate", kind: "number", key: (run) => run.lr, cell: (run) => String(run.lr) },
    { name: "seed", title: "Seed", kind: "number", key: (run) => run.seed, cell: (run) => String(run.seed ?? NOTHING) },
    { name: "final", title: "Final loss", kind: "number", key: (run) => run.final, cell: (run) => digits(run.final) },
    {
      name: "step",
      title: "Step",
      kind: "number",
      down: true,
      key: (run) => run.seconds_per_step,
      cell: (run) => quantity(duration(run.seconds_per_step * 1000)),
    },
    {
      name: "optimizer",
      title: "Its optimizer",
      kind: "number",
      down: true,
      key: (run) => run.optimizer_seconds_per_step,
      cell: (run) => (known(run.optimizer_seconds_per_step) ? quantity(duration(run.optimizer_seconds_per_step * 1000)) : NOTHING),
    },
    {
      name: "state",
      title: "State",
      kind: "number",
      down: true,
      key: (run) => run.state_bytes,
      cell: (run) => (known(run.state_bytes) ? quantity(bytes(run.state_bytes)) : NOTHING),
    },
    {
      name: "machine",
      title: "Machine",
      kind: "line",
      key: (run) => machines.get(run.machine) ?? run.machine,
      cell: (run) => machines.get(run.machine) ?? run.machine,
    },
    {
      name: "run",
      title: "Run",
      key: (run) => run.date,
      cell: (run) => [
        h("a", { href: address("runs", "", { run: run.run }), "data-row": true }, run.run_name),
        h("small", {}, day(run.date)),
      ],
    },
  ];
}
