// Two runs of one series beside each other: how their samples are distributed, in which order they came, what was configured.

function comparedRuns(data) {
  const runs = data.points.run.filter((run) => Object.hasOwn(data.samples ?? {}, run) || Object.hasOwn(data.facts ?? {}, run)).reverse();
  if (!runs.length) return "";
  const at = new Map(data.points.run.map((run, place) => [run, place]));
  const name = (run) =>
    [moment(data.points.date[at.get(run)]), shortCommit(data.points.commit[at.get(run)]), data.points.label[at.get(run)]]
      .filter(Boolean)
      .join(" · ");
  const options = runs.map((run) => [run, clipped(name(run), 70)]);
  const none = [["", "none"], ...options];
  const pair = () => {
    const { query } = route();
    const first = runs.includes(query.get("run")) ? query.get("run") : runs[0];
    const second = runs.includes(query.get("against")) ? query.get("against") : (runs.find((run) => run !== first) ?? "");
    return [first, second === first ? "" : second].filter(Boolean);
  };
  const chart = Object.values(data.samples ?? {}).some((values) => values.length > 2) ? samplesFigure(data, pair, name) : null;
  const below = h("div", { class: "pair" });
  live(() => {
    chart?.redraw();
    below.replaceChildren(configurations(data, pair(), name), repeatCard(data, pair()[0]));
  });
  const pickers = h(
    "div",
    { class: "toolbar" },
    h("h2", {}, "Two runs"),
    swatched("picked", picker("Run", "run", options)),
    runs.length > 1 ? swatched("other", picker("Against", "against", none, runs[1])) : null,
  );
  return h("div", { class: "group-of-cards" }, pickers, chart?.element, below);
}

function swatched(kind, field) {
  field.prepend(h("i", { class: `swatch ${kind}`, "aria-hidden": "true" }));
  return field;
}

function samplesFigure(data, pair, name) {
  const taken = (run) => (data.samples[run] ?? []).filter(known);
  const { unit } = data.series;
  return figure({
    title: "Samples",
    name: `samples-${data.series.id}`,
    height: 300,
    summary: () =>
      pair()
        .map((run) => samplesSentence(taken(run), unit, name(run)))
        .join("; "),
    build: (colours) => samplesPlot(pair().map(taken), colours, unit),
    table: () => ({
      columns: ["run", "place", `sample (${unit})`],
      rows: pair().flatMap((run) => taken(run).map((value, place) => [run, place + 1, value])),
    }),
  });
}

function samplesSentence(values, unit, name) {
  if (!values.length) return `${name}: no samples kept`;
  const ordered = [...values].sort((a, b) => a - b);
  const middle = amount(ordered[Math.floor((ordered.length - 1) / 2)], unit);
  const extent = `from ${amount(ordered[0], unit)} to ${amount(ordered.at(-1), unit)}`;
  return `${name}: ${plural(values.length, "sample")}, median ${middle}, ${extent}`;
}

// Left: the share of samples at most as long (steps). Right: the samples in the order they were taken, where throttling shows.
function samplesPlot(pairs, colours, unit) {
  const values = pairs.flat();
  const scale = scaleOf(Math.max(...values, 0) || 1, unit);
  const tones = [colours.series, colours["hue-2"]];
  const narrow = document.documentElement.clientWidth < 640;
  const traces = pairs
    .flatMap((samples, place) => {
      const taken = samples.map((value) => value * scale.factor);
      const ordered = [...taken].sort((a, b) => a - b);
      const line = { color: tones[place], width: 2, shape: "hv", dash: place ? "4px,2px" : "solid" };
      return [
        {
          type: "scatter",
          mode: "lines",
          x: [ordered[0], ...ordered],
          y: [0, ...ordered.map((_, rank) => (rank + 1) / ordered.length)],
          line,
          hovertemplate: `%{y:.0%} at most %{x:.4g} ${scale.unit}<extra></extra>`,
        },
        {
          type: "scatter",
          mode: "lines+markers",
          xaxis: "x2",
          yaxis: "y2",
          x: taken.map((_, rank) => rank + 1),
          y: taken,
          line: { color: tones[place], width: 1 },
          marker: { size: 5, color: tones[place], symbol: place ? "diamond" : "circle" },
          hovertemplate: `sample %{x}: %{y:.4g} ${scale.unit}<extra></extra>`,
        },
      ];
    })
    .filter((trace) => trace.x.length && known(trace.x[0]));
  const axis = axisStyle(colours);
  const domains = narrow ? { x: [0, 1], x2: [0, 1], y: [0.6, 1], y2: [0, 0.36] } : { x: [0, 0.46], x2: [0.56, 1], y: [0, 1], y2: [0, 1] };
  return {
    data: traces,
    layout: {
      height: narrow ? 460 : 300,
      dragmode: false,
      xaxis: {
        domain: domains.x,
        anchor: "y",
        title: { text: `time (${scale.unit})`.replace("time", unit === "bytes" ? "size" : "time") },
        fixedrange: true,
      },
      yaxis: { domain: domains.y, title: { text: "share at most as long" }, tickformat: ".0%", range: [0, 1.03], fixedrange: true },
      xaxis2: merged(axis, {
        domain: domains.x2,
        anchor: "y2",
        title: { text: "sample, in the order taken" },
        fixedrange: true,
        showgrid: false,
        rangemode: "tozero",
      }),
      yaxis2: merged(axis, { domain: domains.y2, anchor: "x2", title: { text: scale.unit }, fixedrange: true }),
    },
  };
}

// Flat text of what one run says of its configuration.
function factsOf(data, run) {
  const at = data.points.run.indexOf(run);
  const told = Object.entries(data.facts?.[run] ?? {}).filter(([, value]) => value !== null && value !== "");
  const shownFacts = told.map(([name, value]) => [
    name.replaceAll("_", " "),
    name.endsWith("_bytes") && known(value) ? bytes(value) : typeof value === "object" ? JSON.stringify(value) : String(value),
  ]);
  return {
    commit: shortCommit(data.points.commit[at]),
    "local changes": data.points.modified[at] === null ? "" : data.points.modified[at] ? "yes" : "no",
    label: data.points.label[at],
    samples: data.points.n[at],
    ...Object.fromEntries(shownFacts),
  };
}

function configurations(data, runs, name) {
  const [first, second] = runs;
  const title = second ? "What differs" : "Configuration";
  const inside = second
    ? differences(
        "Configurations of the two runs",
        factsOf(data, first),
        factsOf(data, second),
        runs.map((run) => clipped(name(run), 44)),
      )
    : facts(Object.entries(factsOf(data, first)).filter(([, value]) => value !== null && value !== "" && value !== undefined));
  return h(
    "section",
    { class: second ? "card flush" : "card", "aria-labelledby": "configurations" },
    h("div", { class: "card-head" }, h("h2", { id: "configurations" }, title)),
    inside,
  );
}

function repeatCard(data, run) {
  const line = data.repro?.[run];
  return h(
    "section",
    { class: "card", "aria-labelledby": "repeat" },
    h("h2", { id: "repeat" }, "Measure it again"),
    line ? command(line) : h("p", { class: "muted" }, "This record does not say which command made it."),
    h("p", {}, h("a", { href: address("runs", "", { run }) }, "The whole run and its machine →")),
  );
}
