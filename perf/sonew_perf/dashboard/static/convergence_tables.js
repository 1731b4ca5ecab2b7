// The numbers of a race: its standings, its lines and its runs.

// A share of what the baseline needs; a method may need many times as much.
const shareText = (share) => (share >= 3 ? `${digits(share)}×` : percentText(share));

function shareCell(share) {
  if (!share) return NOTHING;
  const range = share.low !== share.high ? `${shareText(share.low)} to ${shareText(share.high)} over the seeds` : null;
  return h("span", { class: share.mean < 1 ? "less" : null, title: range }, shareText(share.mean));
}

const settingsOf = (line) => Object.entries(line.settings).map(([name, value]) => `${name} ${value.replace(/e([-+])0+/, "e$1")}`);

const step = (name) => (line) => known(line[name]) ? quantity(duration(line[name] * 1000)) : NOTHING;

function standingColumns(raceOf) {
  const share = (name, title, help) => ({
    name,
    title,
    help,
    kind: "number",
    key: (line) => line.shares?.[name]?.mean,
    cell: (line) => shareCell(line.shares?.[name]),
  });
  return [
    {
      name: "label",
      title: "Method",
      kind: "grow",
      key: (line) => line.label,
      cell: (line) => [
        h("span", { class: "method" }, swatch(strokeOf(raceOf(), line.label)), line.label),
        h(
          "small",
          {},
          settingsOf(line).flatMap((each, place) => [place ? ", " : "", h("span", { class: "whole" }, each)]),
        ),
      ],
    },
    {
      name: "final",
      title: "Final loss",
      kind: "number",
      key: (line) => line.final,
      cell: (line) => [
        lossText(line.final),
        h(
          "small",
          { class: "range" },
          line.final_low === line.final_high
            ? plural(line.seeds.length, "seed")
            : `${lossText(line.final_low)} to ${lossText(line.final_high)}, ${plural(line.seeds.length, "seed")}`,
        ),
      ],
    },
    { name: "lr", title: "Rate", kind: "number", key: (line) => line.lr, cell: (line) => String(line.lr) },
    {
      name: "reached",
      title: "To Adam's best",
      help: "Where its training loss is first at or below the mean of Adam's seeds at their end, on a straight line between recorded means",
      kind: "number",
      key: (line) => line.reached,
      cell: (line) => (known(line.reached) ? quantity(`${grouped(Math.round(line.reached))} steps`) : line.baseline ? "never" : NOTHING),
    },
    share("steps", "of its steps", "Of the steps that Adam needs"),
    share("wall", "of its wall time", "Of the wall time that Adam needs"),
    share("optimizer", "of its optimizer", "Of the time that Adam spends in its optimizer"),
    {
      name: "step",
      title: "Step",
      help: "Its optimizer, and the rest of a step, which is the same work for every method: the least of all runs",
      kind: "number",
      key: (line) => line.seconds_per_step,
      cell: step("seconds_per_step"),
    },
    {
      name: "inside",
      title: "Its optimizer",
      help: "The least of its runs' medians: other work on the machine only adds to it",
      kind: "number",
      key: (line) => line.optimizer_seconds_per_step,
      cell: step("optimizer_seconds_per_step"),
    },
    {
      name: "state",
      title: "State",
      kind: "number",
      key: (line) => line.state_bytes,
      cell: (line) => quantity(bytes(line.state_bytes)),
    },
  ];
}

function standingNumbers(lines) {
  const shares = ["steps", "wall", "optimizer"];
  return {
    columns: [
      ...["method", "rate", "settings", "seeds", "final loss", "lowest", "highest", "steps to the baseline's best", "baseline"],
      ...["share of steps", "share of wall time", "share of optimizer time"],
      ...["seconds per step", "optimizer seconds per step", "state bytes"],
    ],
    rows: lines.map((line) => [
      ...[line.label, line.lr, settingsOf(line).join(", "), line.seeds.length, line.final, line.final_low, line.final_high],
      ...[line.reached ?? null, line.baseline ?? null, ...shares.map((name) => line.shares?.[name]?.mean ?? null)],
      ...[line.seconds_per_step, line.optimizer_seconds_per_step, line.state_bytes],
    ]),
  };
}

function convergenceNumbers(lines) {
  const after = (line, name, at) => (known(line[name]) ? at * line[name] : null);
  const rows = lines.flatMap((line) =>
    line.steps.map((at, place) => [
      ...[line.label, line.lr, line.seeds.length, at],
      ...[after(line, "seconds_per_step", at), after(line, "optimizer_seconds_per_step", at), line.state_bytes],
      ...[line.loss[place], line.low?.[place] ?? line.loss[place], line.high?.[place] ?? line.loss[place]],
    ]),
  );
  const columns = ["method", "rate", "seeds", "step", "seconds", "optimizer seconds", "state bytes", "loss", "lowest", "highest"];
  return { columns, rows };
}

// Against the state stands one final loss of each line, and so does its table.
function stateNumbers(lines) {
  const rows = lines
    .filter((line) => known(line.state_bytes) && known(line.final))
    .map((line) => [line.label, line.lr, line.seeds.length, line.state_bytes, line.final, line.final_low, line.final_high]);
  return { columns: ["method", "rate", "seeds", "state bytes", "final loss", "lowest", "highest"], rows };
}

function trainingColumns(all) {
  return [
    {
      name: "label",
      title: "Method",
      kind: "grow",
      key: (run) => run.label,
      cell: (run) => [h("span", {}, run.label), all() && run.best ? h("span", { class: "tag" }, "best setting") : null],
    },
    { name: "lr", title: "Rate", kind: "number", key: (run) => run.lr, cell: (run) => String(run.lr) },
    { name: "seed", title: "Seed", kind: "number", key: (run) => run.seed, cell: (run) => String(run.seed) },
    { name: "loss", title: "Final loss", kind: "number", key: (run) => run.final, cell: (run) => lossText(run.final) },
    { name: "step", title: "Step", kind: "number", key: (run) => run.seconds_per_step, cell: step("seconds_per_step") },
    {
      name: "inside",
      title: "Its optimizer",
      kind: "number",
      key: (run) => run.optimizer_seconds_per_step,
      cell: step("optimizer_seconds_per_step"),
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

function trainingNumbers(runs) {
  const columns = ["method", "rate", "seed", "final loss", "seconds per step", "optimizer seconds per step", "state bytes", "run"];
  const rows = runs.map((run) => [
    ...[run.label, run.lr, run.seed, run.final, run.seconds_per_step, run.optimizer_seconds_per_step, run.state_bytes, run.run],
  ]);
  return { columns, rows };
}
