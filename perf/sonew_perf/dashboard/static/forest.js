// Intervals of ratios on one logarithmic axis: in table rows, for one entry's rounds, and as a picture to keep.

const NICE_RATIOS = [
  0.05, 0.1, 0.2, 0.25, 0.33, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1, 1.01, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 3, 4, 5, 10, 20,
];

// {at(ratio) -> percent of the width, ticks, band}: reaches over every interval and at least twice the tolerance; 1 stays inside.
function forestAxis(entries, tolerance) {
  const ends = entries.flatMap((entry) => [entry.low, entry.high, entry.ratio]).filter((value) => known(value) && value > 0);
  const reach = 1 + 2 * (tolerance || 0.01);
  return ratioAxis(Math.min(1 / reach, ...ends), Math.max(reach, ...ends), tolerance);
}

function ratioAxis(least, most, tolerance, room = 11) {
  const bound = 8; // beyond it an arrow says that the interval goes on
  const low = Math.log(Math.max(least, 1 / bound));
  const high = Math.log(Math.min(most, bound));
  const pad = (high - low) * 0.05;
  const at = (ratio) => Math.min(100, Math.max(0, (100 * (Math.log(ratio) - low + pad)) / (high - low + 2 * pad)));
  const ticks = [1];
  const candidates = NICE_RATIOS.filter((value) => Math.log(value) > low - pad && Math.log(value) < high + pad && value !== 1);
  candidates.sort((a, b) => Math.abs(Math.log(b)) - Math.abs(Math.log(a))); // the ends first, so that the axis is labelled as far as it goes
  for (const value of candidates)
    if (ticks.every((tick) => Math.abs(at(tick) - at(value)) > room) && at(value) > 5 && at(value) < 95) ticks.push(value);
  return { at, ticks, band: tolerance ? [at(1 - tolerance), at(1 + tolerance)] : null };
}

const share = (value) => `${value.toFixed(2)}%`;

function forestHead(axis) {
  const text = (value) => (value === 1 ? "1" : String(value));
  return h(
    "div",
    { class: "forest-axis" },
    h("span", { class: "visually-hidden" }, "Ratio with its 95 % interval, logarithmic axis"),
    axis.ticks.map((value) =>
      h("span", { class: value === 1 ? "tick even" : "tick", "aria-hidden": "true", style: { left: share(axis.at(value)) } }, text(value)),
    ),
  );
}

function forestGround(axis, height) {
  const band = axis.band
    ? svg("rect", { class: "tolerance", x: share(axis.band[0]), width: share(axis.band[1] - axis.band[0]), y: 0, height })
    : null;
  const lines = axis.ticks.map((value) =>
    svg("line", { class: value === 1 ? "even" : "gridline", x1: share(axis.at(value)), x2: share(axis.at(value)), y1: 0, y2: height }),
  );
  return [band, lines];
}

function forestRow(entry, axis) {
  const height = 32;
  if (!known(entry.ratio) || entry.ratio <= 0) return h("span", { class: "why muted" }, entry.reason || "no data");
  const { kind, word } = verdictOf(entry.verdict);
  const [low, high] = [entry.low ?? entry.ratio, entry.high ?? entry.ratio].map(axis.at);
  const says = `${ratioText(entry.ratio)}, from ${ratioText(entry.low)} to ${ratioText(entry.high)}: ${word.toLowerCase()}`;
  return svg(
    "svg",
    { class: `forest ${kind}`, height, width: "100%", role: "img", "aria-label": says },
    forestGround(axis, height),
    svg("line", { class: "whisker", x1: share(low), x2: share(high), y1: height / 2, y2: height / 2 }),
    [low, high].map((end) => svg("line", { class: "whisker", x1: share(end), x2: share(end), y1: height / 2 - 4, y2: height / 2 + 4 })),
    svg("circle", { class: "dot", cx: share(axis.at(entry.ratio)), cy: height / 2, r: 4.5 }),
  );
}

// The places at which a new launch of the processes begins; none where the record has been thinned.
function launchEnds({ launches }, count) {
  const rounds = Array.isArray(launches) ? launches.filter(known) : [];
  const ends = rounds.map((_, place) => rounds.slice(0, place + 1).reduce((sum, each) => sum + each, 0));
  return ends.at(-1) === count ? ends.slice(0, -1) : [];
}

// One dot per round, in the order of measurement from left to right.
function roundsStrip(entry, tolerance) {
  const ratios = (entry.ratios ?? []).filter((value) => known(value) && value > 0);
  if (!ratios.length) return h("p", { class: "muted" }, "The record keeps no single rounds.");
  const height = 96;
  const axis = ratioAxis(Math.min(1 - (tolerance || 0.01), ...ratios), Math.max(1 + (tolerance || 0.01), ...ratios), tolerance, 16);
  const y = (value) => height - (height * axis.at(value)) / 100;
  const x = (place) => share(ratios.length === 1 ? 50 : 2 + (96 * place) / (ratios.length - 1));
  const ticks = axis.ticks.filter((tick) => y(tick) > 8 && y(tick) < height - 4);
  const lines = ticks.map((tick) => svg("line", { class: tick === 1 ? "even" : "gridline", x1: 0, x2: "100%", y1: y(tick), y2: y(tick) }));
  const band = tolerance
    ? svg("rect", {
        class: "tolerance",
        x: 0,
        width: "100%",
        y: y(1 + tolerance),
        height: Math.max(0, y(1 - tolerance) - y(1 + tolerance)),
      })
    : null;
  const dots = ratios.map((value, place) =>
    svg("circle", { class: `dot ${value > 1 ? "slower" : "faster"}`, cx: x(place), cy: y(value), r: 3.5 }),
  );
  const launches = launchEnds(entry, ratios.length).map((end) => {
    const between = share(2 + (96 * (end - 0.5)) / (ratios.length - 1));
    return svg("line", { class: "launch", x1: between, x2: between, y1: 0, y2: height });
  });
  const over = ratios.filter((value) => value > 1).length;
  const extent = `${ratioText(Math.min(...ratios))} to ${ratioText(Math.max(...ratios))}`;
  const says = `${plural(ratios.length, "round")}, the head slower in ${over}; ratios from ${extent}`;
  const labels = ticks.map((tick) => h("span", { "aria-hidden": "true", style: { top: `${y(tick).toFixed(1)}px` } }, `${tick}×`));
  return h(
    "figure",
    { class: "rounds" },
    h(
      "figcaption",
      {},
      `Round by round: the head was slower in ${over} of ${ratios.length}${launches.length ? "; lines part the launches" : ""}`,
    ),
    h(
      "div",
      { class: "rounds-plot" },
      labels,
      svg("svg", { class: "forest", height, width: "100%", role: "img", "aria-label": says }, band, lines, launches, dots),
    ),
  );
}

function comparisonCsv(one) {
  const columns = [
    "kernel",
    "case",
    "framework",
    "workload",
    "elements",
    "dtype",
    "band",
    "variant",
    "verdict",
    "ratio",
    "low",
    "high",
    "p",
    "p_adjusted",
    "detectable",
    "base_ms",
    "head_ms",
    "confirmed",
    "reason",
  ];
  return csvOf(
    columns,
    one.entries.map((entry) => columns.map((name) => entry[name])),
  );
}

async function saveForest(one, format) {
  const colours = palette();
  const rows = one.entries.filter((entry) => known(entry.ratio) && entry.ratio > 0).sort((a, b) => b.ratio - a.ratio);
  const names = rows.map((entry) => plain(clipped(`${entryTitle(entry)} · ${entryDetail(entry)}`, 90)));
  const places = rows.map((_, place) => rows.length - place);
  const tone = { slower: colours.slower, faster: colours.faster };
  const data = [
    {
      type: "scatter",
      mode: "markers",
      x: rows.map((entry) => entry.ratio),
      y: places,
      marker: { size: 9, color: rows.map((entry) => tone[verdictOf(entry.verdict).kind] ?? colours.muted) },
      error_x: {
        type: "data",
        symmetric: false,
        array: rows.map((entry) => (entry.high ?? entry.ratio) - entry.ratio),
        arrayminus: rows.map((entry) => entry.ratio - (entry.low ?? entry.ratio)),
        color: colours.muted,
        thickness: 1.5,
        width: 4,
      },
    },
  ];
  const edge = { type: "line", yref: "paper", y0: 0, y1: 1 };
  const height = Math.max(240, 26 * rows.length + 130);
  const layout = styled(
    {
      title: { text: plain(one.title) },
      margin: { t: 60 },
      height,
      width: 1200,
      xaxis: { type: "log", title: { text: "ratio, head ÷ base" } },
      yaxis: { tickvals: places, ticktext: names, range: [0.3, rows.length + 0.7], zeroline: false },
      shapes: [
        { ...edge, x0: 1, x1: 1, line: { color: colours.muted, width: 1.5 } },
        {
          ...edge,
          type: "rect",
          x0: 1 - one.tolerance,
          x1: 1 + one.tolerance,
          fillcolor: colours.band,
          line: { width: 0 },
          layer: "below",
        },
      ],
    },
    colours,
  );
  const uri = await Plotly.toImage({ data, layout: { ...layout, paper_bgcolor: colours.card } }, { format, width: 1200, height, scale: 2 });
  saveImage(uri, `comparison-${one.id}`, format);
}
