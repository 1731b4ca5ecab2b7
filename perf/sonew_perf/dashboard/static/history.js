// The history of a series: median and quartiles of each run, levels as thick steps, changes as flags.

// What can be shown: [value in the address, label, columns], the columns as {values, low, high, unit, title, line, beside}; what the series
// lacks is left out.
function historyMeasures({ series, points }) {
  const measures = [
    [
      "time",
      series.measure === "time" ? "Time" : "Value",
      { values: points.median, low: points.q1, high: points.q3, unit: series.unit, title: series.measure },
    ],
  ];
  const speeds = points.gbps ?? [];
  const copies = points.copy_gbps ?? [];
  if (speeds.some(known)) {
    const beside = copies.some(known) ? { values: copies, title: "copy" } : null;
    measures.push(["gbps", "GB/s", { values: speeds, unit: "GB/s", title: "bytes moved per second", beside }]);
    const shares = speeds.map((value, at) => (known(value) && copies[at] > 0 ? (100 * value) / copies[at] : null));
    if (shares.some(known))
      measures.push([
        "share",
        "Share of copy",
        { values: shares, unit: "%", title: "share of the speed of the same run's copy", line: [100, "copy"] },
      ]);
  }
  Object.entries(points.ratio ?? {}).forEach(([name, values], place) => {
    if (values.some(known))
      measures.push([
        place ? `ratio-${place}` : "ratio",
        `÷ ${clipped(name, 16)}`,
        { values, unit: "×", title: `time ÷ ${name}`, line: [1, ""] },
      ]);
  });
  return measures;
}

const SPACINGS = [
  ["runs", "Evenly"],
  ["dates", "By date"],
];

function historyCard(data) {
  const measures = historyMeasures(data);
  const zoomNote = h("p", { class: "zoom-note", hidden: true });
  const chart = figure({
    title: "History",
    name: `history-${data.series.id}`,
    height: 380,
    summary: () => historySummary(data),
    build: (colours) => historyFigure(data, measures, colours),
    table: () => historyTable(data),
    note: zoomNote,
    tools: [
      measures.length > 1 ? segments("What is shown", "show", measures) : null,
      data.points.run.length > 2 ? segments("Spacing of runs", "x", SPACINGS) : null,
    ],
    after: (place) => followChart(place, data),
  });
  live((query) => {
    const zoomed = zoomOf(data, query);
    zoomNote.hidden = !zoomed;
    zoomNote.replaceChildren(
      ...(zoomed
        ? [
            `Runs ${zoomed[0] + 1} to ${zoomed[1] + 1} of ${data.points.run.length}; the axis does not start at 0. `,
            h("button", { type: "button", class: "button", click: () => setQuery({ from: null, to: null }) }, "Show all"),
          ]
        : []),
    );
    chart.redraw();
  });
  return chart.element;
}

// [first, last] places that the address zooms to, null for all.
function zoomOf({ points }, query) {
  const from = points.run.indexOf(query.get("from"));
  const to = points.run.indexOf(query.get("to"));
  if (from < 0 && to < 0) return null;
  const ends = [Math.max(0, from), to < 0 ? points.run.length - 1 : to];
  return ends[0] > ends[1] ? null : ends;
}

function followChart(place, data) {
  place.on("plotly_relayout", (change) => {
    const range =
      change["xaxis.range"] ?? (change["xaxis.range[0]"] === undefined ? null : [change["xaxis.range[0]"], change["xaxis.range[1]"]]);
    if (!range) return;
    const x = historyPlaces(data, route().query);
    const value = (end) => (typeof end === "number" ? end : Date.parse(`${String(end).replace(" ", "T")}Z`));
    const inside = x
      .map((each, at) => [typeof each === "number" ? each : Date.parse(each), at])
      .filter(([each]) => each >= value(range[0]) && each <= value(range[1]));
    const all = inside.length === x.length || inside.length < 2;
    setQuery({ from: all ? null : data.points.run[inside[0][1]], to: all ? null : data.points.run[inside.at(-1)[1]] }, { quietly: true });
  });
  let before = null; // what was picked before the last click: a double click begins with one
  place.on("plotly_doubleclick", () => {
    const earlier = before && performance.now() - before.at < DOUBLE_CLICK ? { run: before.run, against: before.against } : {};
    setQuery({ ...earlier, from: null, to: null });
  });
  place.on("plotly_click", ({ points, event }) => {
    const at = points[0]?.customdata;
    if (!known(at) || event?.detail > 1) return;
    const { query } = route();
    before = { run: query.get("run"), against: query.get("against"), at: performance.now() };
    setQuery({ run: data.points.run[at], against: before.run ?? before.against });
  });
}

const DOUBLE_CLICK = 1000; // milliseconds that its two clicks and the drawing between them take at most

const historyPlaces = ({ points }, query) =>
  points.run.map((_, at) => (chosen(query, "x", SPACINGS) === "dates" ? points.date[at] : at + 1));

function historySummary({ series, points, changes }) {
  const values = points.median.filter(known);
  if (!values.length) return `${plural(points.run.length, "run")}, none of which gave a number`;
  const extent = `between ${amount(Math.min(...values), series.unit)} and ${amount(Math.max(...values), series.unit)}`;
  const where = values.length > 1 ? extent : `at ${amount(values[0], series.unit)}`;
  const levels = changes.length ? `changes of level: ${changes.length}` : "no change of level";
  return `${plural(values.length, "run")} ${where}, last ${amount(values.at(-1), series.unit)}; ${levels}`;
}

function historyHover({ points, series }, at) {
  const lines = [`<b>${plain(amount(points.median[at], series.unit))}</b>`, plain(moment(points.date[at]))];
  if (points.commit[at]) lines.push(plain(`${shortCommit(points.commit[at])}${points.modified[at] ? " with local changes" : ""}`));
  if (points.label[at]) lines.push(plain(clipped(points.label[at])));
  if (points.status[at] !== "done") lines[0] = `<b>${plain(points.status[at])}</b> ${plain(clipped(points.reason[at] || "", 80))}`;
  if (known(points.n[at])) lines.push(plural(points.n[at], "sample"));
  return lines.join("<br>");
}

function historyFigure(data, measures, colours) {
  const { query } = route();
  const [kind, , measure] = measures.find(([name]) => name === query.get("show")) ?? measures[0];
  const x = historyPlaces(data, query);
  const top = Math.max(...[...measure.values, ...(measure.high ?? []), ...(measure.beside?.values ?? [])].filter(known), 0);
  const scale = scaleOf(top || 1, measure.unit);
  const scaled = (values) => values.map((value) => (known(value) ? value * scale.factor : null));
  const median = scaled(measure.values);
  const hover = x.map((_, at) => historyHover(data, at));
  const traces = [];
  if (measure.low) traces.push(...quartileBand(x, scaled(measure.low), scaled(measure.high), colours));
  const places = x.map((_, at) => at);
  if (measure.beside) traces.push(besideLine(x, scaled(measure.beside.values), measure.beside.title, colours));
  traces.push(medianLine(x, median, hover, places, colours));
  if (kind === "time") traces.push(...levelSteps(data, x, scale, colours));
  const modified = places.filter((at) => data.points.modified[at] && known(median[at]));
  const ring = { size: 9, color: colours.card, line: { color: colours.series, width: 2 } };
  if (modified.length)
    traces.push({
      type: "scatter",
      mode: "markers",
      x: modified.map((at) => x[at]),
      y: modified.map((at) => median[at]),
      hoverinfo: "skip",
      marker: ring,
    });
  const missing = places.filter((at) => data.points.status[at] !== "done");
  if (missing.length)
    traces.push({
      type: "scatter",
      mode: "markers",
      x: missing.map((at) => x[at]),
      y: missing.map(() => 0),
      yaxis: "y",
      cliponaxis: false,
      text: missing.map((at) => hover[at]),
      customdata: missing,
      hovertemplate: "%{text}<extra></extra>",
      marker: { symbol: "x-thin", size: 9, line: { color: colours.failed, width: 2 } },
    });
  const annotations = [];
  annotations.push(...changeFlags(data, x, colours));
  const shapes = data.changes
    .map((change) => x[change.index])
    .map((where) => ({
      type: "line",
      x0: where,
      x1: where,
      yref: "paper",
      y0: 0,
      y1: 1,
      line: { color: colours.muted, width: 1, dash: "dot" },
    }));
  if (measure.line)
    shapes.push({
      type: "line",
      xref: "paper",
      x0: 0,
      x1: 1,
      y0: measure.line[0],
      y1: measure.line[0],
      line: { color: colours.muted, width: 1.5, dash: "dash" },
    });
  const chosenAt = data.points.run.indexOf(query.get("run"));
  if (chosenAt >= 0)
    shapes.push({ type: "line", x0: x[chosenAt], x1: x[chosenAt], yref: "paper", y0: 0, y1: 1, line: { color: colours.link, width: 1.5 } });
  const zoom = zoomOf(data, query);
  return { data: traces, layout: historyLayout({ data, x, zoom, scale, measure, median, annotations, shapes, colours }) };
}

function medianLine(x, median, text, customdata, colours) {
  const narrow = document.documentElement.clientWidth < 640;
  const dots = x.length < (narrow ? 25 : 90);
  return {
    type: "scatter",
    mode: dots ? "lines+markers" : "lines",
    x,
    y: median,
    text,
    customdata,
    hovertemplate: "%{text}<extra></extra>",
    connectgaps: true,
    line: { color: colours.series, width: 1.5 },
    marker: { size: x.length < 4 ? 9 : 5.5, color: colours.series },
  };
}

// What the same runs measured beside it.
function besideLine(x, values, title, colours) {
  return {
    type: "scatter",
    mode: x.length < 4 ? "lines+markers" : "lines",
    x,
    y: values,
    connectgaps: true,
    line: { color: colours.muted, width: 1.5, dash: "dash" },
    marker: { size: 7, color: colours.muted },
    hovertemplate: `${plain(title)}: %{y:.4g}<extra></extra>`,
  };
}

function quartileBand(x, low, high, colours) {
  const edge = { type: "scatter", mode: "lines", line: { width: 0 }, hoverinfo: "skip", connectgaps: true };
  if (x.length === 1)
    return [
      {
        type: "scatter",
        mode: "lines",
        x: [x[0], x[0]],
        y: [low[0], high[0]],
        line: { color: colours.band, width: 12 },
        hoverinfo: "skip",
      },
    ];
  return [
    { ...edge, x, y: low },
    { ...edge, x, y: high, fill: "tonexty", fillcolor: colours.band },
  ];
}

function levelSteps(data, x, scale, colours) {
  if (data.levels.length < 1 || x.length < 3) return [];
  const steps = data.levels.flatMap(({ first, last, level }) => [
    [x[first], level * scale.factor],
    [x[last], level * scale.factor],
    [x[last], null],
  ]);
  return [
    {
      type: "scatter",
      mode: "lines",
      x: steps.map(([at]) => at),
      y: steps.map(([, value]) => value),
      line: { color: colours.level, width: 3 },
      hoverinfo: "skip",
      connectgaps: false,
    },
  ];
}

// Flags stand above the plot, in as many lines as keep them apart.
function changeFlags(data, x, colours) {
  const rows = [];
  return data.changes.map((change) => {
    const at = change.index;
    const place = at / Math.max(1, x.length - 1);
    let row = rows.findIndex((end) => place - end > 0.11);
    if (row < 0) row = rows.length < 3 ? rows.length : 0;
    rows[row] = place;
    const slower = change.direction === "slower";
    return {
      x: x[at],
      yref: "paper",
      y: 1,
      yanchor: "bottom",
      yshift: 2 + row * 20,
      xanchor: place > 0.9 ? "right" : place < 0.1 ? "left" : "center",
      showarrow: false,
      text: `<b>${slower ? "▲" : "▼"} ${changeText(change.ratio)}</b>`,
      font: { color: slower ? colours["slower-ink"] : colours["faster-ink"], size: 12 },
      bgcolor: colours.card,
      borderpad: 1,
    };
  });
}
