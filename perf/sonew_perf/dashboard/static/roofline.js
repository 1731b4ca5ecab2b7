// Roofline: how near each case comes to what this machine was measured to copy and compute, never to a brochure's number.

const roofBand = (point) => (point.band === null || point.band === undefined ? "no band" : `band ${point.band}`);

const BOUNDS = { memory: "memory", compute: "arithmetic" }; // neither where no compute roof was measured
const boundOf = (point) => (BOUNDS[point.bound] ? `bound by ${BOUNDS[point.bound]}` : "no compute roof measured");

pages.set("roofline", {
  title: "Roofline",
  async load() {
    const [data, series] = await Promise.all([view("roofline"), view("series")]);
    return { devices: data.devices, series: new Map(series.map((each) => [each.id, each])) };
  },
  render: renderRoofline,
});

function renderRoofline(place, data, here, meta) {
  place.append(
    heading("Roofline", "Where the time goes: each case against what the same machine was measured to do, never against a brochure."),
  );
  const devices = data.devices.filter((device) => device.points.length || known(device.copy_gbps));
  if (!devices.length) {
    place.append(measureFirst("No run measured a copy beside the step, and without it there is no roof."));
    return;
  }
  const options = devices.map((device) => [device.run, [device.name, day(device.date), device.label].filter(Boolean).join(" · ")]);
  const current = (query) => devices.find((device) => device.run === query.get("run")) ?? devices[0];
  const chart = h("div");
  const table = rooflineTable(devices, data.series);
  place.append(
    h("div", { class: "toolbar" }, devices.length > 1 ? picker("Run", "run", options) : h("p", { class: "muted" }, options[0][1])),
    chart,
    h(
      "section",
      { class: "card flush", "aria-labelledby": "roof-cases" },
      h("div", { class: "card-head" }, h("h2", { id: "roof-cases" }, "Cases")),
      table.element,
    ),
  );
  let drawn = null;
  live((query) => {
    const device = current(query);
    table.show(device.points);
    if (device === drawn) return;
    drawn = device;
    chart.replaceChildren(rooflineChart(device).element);
    if (chart.isConnected) watchCharts(); // else the page does it once it stands
  });
}

function rooflineChart(device) {
  const legend = [...new Set(device.points.map(roofBand))].sort((a, b) => order(a, b));
  const tone = (point) => `hue-${(legend.indexOf(roofBand(point)) % 8) + 1}`;
  const note = h(
    "div",
    { class: "key" },
    legend.map((name, place) =>
      h("span", {}, h("i", { style: { background: `var(--hue-${(place % 8) + 1})` }, "aria-hidden": "true" }), name),
    ),
    h("span", { class: "muted" }, "area: time of one step"),
  );
  const nearest = [...device.points].filter((point) => known(point.share)).sort((a, b) => b.share - a.share)[0];
  return figure({
    title: "Roofline",
    name: `roofline-${device.run}`,
    height: 460,
    note: h(
      "div",
      {},
      note,
      h(
        "p",
        { class: "sub" },
        [device.how, known(device.flops_gflops) ? "" : "The run measured no compute roof, so none is drawn."]
          .filter(Boolean)
          .join(" "),
      ),
    ),
    summary: () =>
      `${plural(device.points.length, "case")}${nearest ? `; ${nearest.title} comes nearest to a copy's speed, with ${percentText(nearest.share)}` : ""}`,
    build: (colours) => rooflinePlot(device, tone, colours),
    table: () => ({
      columns: ["case", "flop per byte", "GFLOP/s", "GB/s", "share of copy", "time (ms)", "band", "bound"],
      rows: device.points.map((point) => [
        point.title,
        point.intensity,
        point.gflops,
        point.gbps,
        point.share,
        point.ms,
        point.band,
        point.bound,
      ]),
    }),
    after: (place) =>
      place.on("plotly_click", ({ points }) => {
        const series = points[0]?.customdata;
        if (series) go(address("kernel", series));
      }),
  });
}

function roofHeight(device, intensity) {
  const slope = known(device.copy_gbps) ? device.copy_gbps * intensity : Infinity;
  return Math.min(slope, known(device.flops_gflops) ? device.flops_gflops : Infinity);
}

function rooflinePlot(device, tone, colours) {
  const points = device.points.filter((point) => point.intensity > 0 && point.gflops > 0);
  const { copy_gbps: copy, flops_gflops: flops } = device;
  const ridge = known(copy) && known(flops) ? flops / copy : null;
  const intensities = points.map((point) => point.intensity);
  const left = Math.min(...intensities, ridge ?? Infinity, 1) / 2;
  const right = Math.max(...intensities, ridge ?? 0, 1) * 3;
  const roof = known(copy) || known(flops) ? [left, ridge, right].filter(known).filter((x) => x >= left && x <= right) : [];
  const longest = Math.max(...points.map((point) => point.ms ?? 0), 1e-9);
  const sizes = points.map((point) => 7 + 21 * Math.sqrt((point.ms ?? 0) / longest));
  const text = points.map((point) =>
    [
      `<b>${plain(clipped(point.title, 70))}</b>`,
      `${digits(point.gflops)} GFLOP/s, ${digits(point.gbps)} GB/s`,
      `${digits(point.intensity)} flop per byte, ${boundOf(point)}`,
      `${percentText(point.share)} of a copy, ${duration(point.ms)}`,
    ].join("<br>"),
  );
  const data = [
    {
      type: "scatter",
      mode: "lines",
      x: roof,
      y: roof.map((x) => roofHeight(device, x)),
      line: { color: colours.ink, width: 2 },
      hoverinfo: "skip",
    },
    {
      type: "scatter",
      mode: "markers",
      x: intensities,
      y: points.map((point) => point.gflops),
      text,
      customdata: points.map((point) => point.series),
      hovertemplate: "%{text}<extra></extra>",
      marker: { size: sizes, color: points.map((point) => colours[tone(point)]), opacity: 0.85, line: { color: colours.card, width: 1.5 } },
    },
  ];
  const tops = [...points.map((point) => point.gflops), ...roof.map((x) => roofHeight(device, x))];
  const bottom = Math.min(...points.map((point) => point.gflops), roofHeight(device, left)) / 2;
  const y = [Math.log10(bottom), Math.log10(Math.max(...tops) * 1.8)];
  return {
    data,
    layout: {
      xaxis: { type: "log", title: { text: "flop per byte moved" }, range: [Math.log10(left), Math.log10(right)], ...powerTicks() },
      yaxis: { type: "log", title: { text: "GFLOP/s" }, range: y, ...powerTicks() },
      annotations: roofNames(device, { left, right, ridge }, colours),
      dragmode: false,
      height: 460,
    },
  };
}

const powerTicks = () => ({ dtick: "D2", tickformat: "~g", fixedrange: true, zeroline: false });

function roofNames(device, { left, right, ridge }, colours) {
  const base = { showarrow: false, font: { size: 12, color: colours.muted } };
  const names = [];
  const at = (x, text, more) => names.push({ ...base, x: Math.log10(x), y: Math.log10(roofHeight(device, x)), text, ...more });
  if (known(device.copy_gbps))
    at(Math.sqrt(left * Math.min(right, ridge ?? right)), `copy, ${digits(device.copy_gbps)} GB/s`, {
      xanchor: "right",
      yanchor: "bottom",
      yshift: 2,
    });
  if (known(device.flops_gflops))
    at(Math.max(ridge ?? left, right * 0.9), `arithmetic, ${digits(device.flops_gflops)} GFLOP/s`, {
      xanchor: "right",
      yanchor: "bottom",
      yshift: 4,
    });
  return names;
}

function rooflineTable(devices, series) {
  const about = (point) => series.get(point.series) ?? {};
  return dataTable({
    caption: "Cases against the roof",
    first: "-share",
    columns: [
      {
        name: "case",
        title: "Case",
        kind: "grow",
        key: (point) => point.title,
        cell: (point) =>
          h("a", { href: address("kernel", point.series), "data-row": true }, shortName(series.get(point.series), point.title)),
      },
      {
        name: "size",
        title: "Workload",
        kind: "line",
        key: (point) => about(point).elements,
        cell: (point) => workloadOf(about(point)) || NOTHING,
      },
      { name: "type", title: "Type", kind: "line", key: (point) => typeOf(about(point)), cell: (point) => typeOf(about(point)) || NOTHING },
      { name: "share", title: "Share of copy", kind: "bar", down: true, key: (point) => point.share, cell: shareBar },
      { name: "gbps", title: "GB/s", kind: "number", down: true, key: (point) => point.gbps, cell: (point) => digits(point.gbps) },
      { name: "gflops", title: "GFLOP/s", kind: "number", down: true, key: (point) => point.gflops, cell: (point) => digits(point.gflops) },
      {
        name: "intensity",
        title: "Flop per byte",
        kind: "number",
        down: true,
        key: (point) => point.intensity,
        cell: (point) => digits(point.intensity),
      },
      { name: "ms", title: "Time", kind: "number", down: true, key: (point) => point.ms, cell: (point) => quantity(duration(point.ms)) },
      ...(devices.some((device) => known(device.flops_gflops))
        ? [{ name: "bound", title: "Bound by", key: (point) => point.bound, cell: (point) => BOUNDS[point.bound] ?? NOTHING }]
        : []),
    ],
  });
}

function shareBar(point) {
  if (!known(point.share)) return NOTHING;
  return h(
    "span",
    { class: "share" },
    h("span", { class: "track", "aria-hidden": "true" }, h("i", { style: { width: `${Math.min(100, point.share * 100).toFixed(1)}%` } })),
    percentText(point.share),
  );
}
