// Runs: every call of the measuring command, and what differs between the machines of two of them.

pages.set("runs", { title: "Runs", load: () => view("runs"), render: renderRuns });

function renderRuns(place, runs, here, meta) {
  place.append(
    heading("Runs", "Each is one file of the store and is never changed. Pick two to see what differs between their environments."),
  );
  if (meta.problems.length) place.append(problemsNotice(meta.problems));
  if (!runs.length) {
    place.append(measureFirst("The store holds no run yet."));
    return;
  }
  const byId = new Map(runs.map((run) => [run.id, run]));
  const columns = runColumns();
  const table = dataTable({
    caption: "Runs",
    first: "-date",
    columns,
    nothing: "No run has these words in it.",
    mark: (run) => (run.id === route().query.get("run") ? "picked" : null),
  });
  const environment = h("div");
  const count = h("p", { class: "muted found", role: "status" });
  place.append(
    environment,
    h(
      "div",
      { class: "toolbar" },
      filterBox("Filter runs", "Filter by label, commit, machine"),
      csvButton("the runs", "runs", () => runNumbers(runs)),
      count,
    ),
    h("section", { class: "card flush", "aria-label": "Runs" }, table.element),
  );
  live((query) => {
    const text = (run) => `${run.label} ${run.command} ${run.branch} ${run.machine_name} ${run.origin}`;
    const found = runs.filter((run) => matches(text(run), query.get("filter"), [run.id, run.commit]));
    count.textContent = found.length === runs.length ? plural(runs.length, "run") : `${found.length} of ${plural(runs.length, "run")}`;
    const active = document.activeElement?.dataset?.pick;
    table.show(found);
    if (active) table.element.querySelector(`[data-pick="${CSS.escape(active)}"]`)?.focus();
    environment.replaceChildren(environmentCard(byId.get(query.get("run")), byId.get(query.get("against"))));
  });
}

function pickColumn(name, title, parameter) {
  const pick = (run) => {
    const box = h("input", {
      type: "checkbox",
      "aria-label": `${title}: ${run.label || run.id}`,
      "data-pick": `${parameter}-${run.id}`,
      change: () => setQuery({ [parameter]: box.checked ? run.id : null }),
    });
    box.checked = route().query.get(parameter) === run.id;
    return box;
  };
  return { name, title, kind: "pick", cell: pick };
}

// The run's card above the list; filter, order and the second run stay.
function openRun(event, run) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return; // into another tab
  event.preventDefault();
  setQuery({ run: run.id });
  const title = document.getElementById("environment");
  title.focus({ preventScroll: true });
  title.scrollIntoView({ block: "start" });
}

function runNumbers(runs) {
  const columns = ["id", "date", "label", "command", "commit", "branch", "modified", "machine_name", "load", "seconds"];
  const counts = ["points", "failed", "skipped", "origin", "pinned", "file"];
  return { columns: [...columns, ...counts], rows: runs.map((run) => [...columns, ...counts].map((name) => run[name])) };
}

function runColumns() {
  return [
    {
      name: "date",
      title: "Date (UTC)",
      down: true,
      key: (run) => run.date,
      cell: (run) =>
        h(
          "a",
          {
            href: address("runs", "", { run: run.id }),
            "data-row": true,
            class: "whole",
            title: ago(run.date),
            click: (event) => openRun(event, run),
          },
          moment(run.date),
        ),
    },
    pickColumn("a", "A", "run"),
    pickColumn("b", "B", "against"),
    {
      name: "label",
      title: "Run",
      kind: "grow",
      key: (run) => run.label || run.command,
      cell: (run) => [
        run.pinned
          ? h(
              "span",
              { class: "pinned", title: "Pinned: gc never drops it" },
              icon("pin"),
              h("span", { class: "visually-hidden" }, "pinned "),
            )
          : null,
        run.label || h("span", { class: "muted" }, clipped(run.command || run.file || run.id, 60)),
        run.origin === "baseline" ? h("span", { class: "tag" }, "baseline") : null,
      ],
    },
    {
      name: "commit",
      title: "Commit",
      kind: "line",
      key: (run) => run.commit_date || run.date,
      cell: (run) => [
        run.commit ? h("code", {}, shortCommit(run.commit)) : h("span", { class: "muted" }, "unknown"),
        run.modified ? h("span", { class: "tag modified", title: run.diff ? `difference ${run.diff}` : null }, "modified") : null,
        run.branch ? h("span", { class: "aside" }, clipped(run.branch, 24)) : null,
      ],
    },
    { name: "machine", title: "Machine", kind: "line", key: (run) => run.machine_name, cell: (run) => run.machine_name },
    {
      name: "load",
      title: "Load",
      kind: "number",
      down: true,
      help: "Load average before the run",
      key: (run) => run.load,
      cell: (run) => (known(run.load) ? h("span", { class: run.load > 1 ? "busy" : null }, run.load.toFixed(1)) : NOTHING),
    },
    {
      name: "seconds",
      title: "Took",
      kind: "number",
      down: true,
      key: (run) => run.seconds,
      cell: (run) => (known(run.seconds) ? quantity(lasted(run.seconds)) : NOTHING),
    },
    {
      name: "points",
      title: "Results",
      kind: "line",
      down: true,
      key: (run) => run.points,
      cell: (run) => [
        grouped(run.points),
        run.failed ? h("span", { class: "aside status failed" }, `${run.failed} failed`) : null,
        run.skipped ? h("span", { class: "aside" }, `${run.skipped} skipped`) : null,
      ],
    },
  ];
}

const lasted = (seconds) => (seconds >= 120 ? `${Math.round(seconds / 60)} min` : `${digits(seconds)} s`);

function environmentOf(run) {
  const own = {
    machine: run.machine_name,
    commit: run.commit,
    "commit date": run.commit_date,
    branch: run.branch,
    "local changes": run.modified === null ? "" : run.modified ? run.diff || "yes" : "no",
    "load before": run.load,
    file: run.file,
  };
  return { ...own, ...run.details };
}

function environmentCard(first, second) {
  if (!first && !second) return "";
  const title = first && second ? "What differs" : "The run";
  const one = first ?? second;
  const name = (run) => clipped([run.label, moment(run.date)].filter(Boolean).join(", "), 44);
  const clear = h("button", { type: "button", class: "quiet", click: () => setQuery({ run: null, against: null }) }, "Clear");
  const head = h(
    "div",
    { class: "card-head" },
    h("h2", { id: "environment", tabindex: "-1" }, title),
    first && second ? null : h("span", { class: "muted" }, `${name(one)}. Pick one more to compare.`),
    h("div", { class: "tools" }, clear),
  );
  if (first && second)
    return h(
      "section",
      { class: "card flush", "aria-labelledby": "environment" },
      head,
      differences("Environments of the two runs", environmentOf(first), environmentOf(second), [`A: ${name(first)}`, `B: ${name(second)}`]),
    );
  const told = Object.entries(environmentOf(one)).filter(([, value]) => value !== null && value !== "" && value !== undefined);
  return h(
    "section",
    { class: "card", "aria-labelledby": "environment" },
    head,
    facts(told.map(([label, value]) => [label, String(value)])),
    one.command ? command(one.command) : null,
  );
}
