// A chart as a figure: title, what it says in a sentence, downloads and its numbers as a table; drawn when it comes into view.

const PLOTLY = document.currentScript?.dataset.plotly; // where the server has the library; a file holds it
let library = null; // promise of it
let charts = []; // those of the page shown
let watcher = null;

// The library that draws is larger than all the rest: it is loaded with the first chart. In a file the policy names its text's hash.
function drawing() {
  library ??= (MODE === "export" ? unpackedText("plotly") : Promise.resolve(null)).then(addLibrary);
  library.catch(() => {
    library = null; // the next chart tries again
  });
  return library;
}

function addLibrary(text) {
  const script = h("script", text === null ? { src: PLOTLY } : {});
  return new Promise((resolve, reject) => {
    const done = () => (globalThis.Plotly ? resolve() : reject(new ViewError("The library that draws the charts cannot be loaded.")));
    script.addEventListener("load", done);
    script.addEventListener("error", done);
    if (text !== null) script.textContent = text;
    document.head.append(script);
    if (text !== null) done();
  });
}

// Plotly reads a little markup in its texts; a name is to be shown as it is.
function plain(text) {
  return String(text ?? "")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
}

const clipped = (text, length = 48) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

function forgetCharts() {
  watcher?.disconnect();
  watcher = null;
  for (const chart of charts) if (chart.drawn && chart.place.isConnected) Plotly.purge(chart.place);
  charts = [];
}

function watchCharts() {
  charts = charts.filter((chart) => chart.place.isConnected);
  watcher?.disconnect();
  watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher?.unobserve(entry.target);
        charts.find((chart) => chart.place === entry.target)?.redraw();
      }
    },
    { rootMargin: "200px" },
  );
  for (const chart of charts) if (!chart.drawn) watcher.observe(chart.place);
}

function redrawCharts() {
  for (const chart of charts) if (chart.drawn) chart.redraw();
}

darkSystem.addEventListener("change", redrawCharts);

function axisStyle(colours) {
  return {
    gridcolor: colours.grid,
    linecolor: colours.line,
    tickcolor: colours.line,
    zerolinecolor: colours.line,
    zerolinewidth: 1,
    automargin: true,
    ticks: "outside",
    ticklen: 4,
    tickfont: { size: 11.5, color: colours.muted },
    title: { font: { size: 12, color: colours.muted }, standoff: 10 },
  };
}

function merged(base, more) {
  if (more === undefined) return base;
  if (base === null || more === null || typeof base !== "object" || typeof more !== "object" || Array.isArray(more)) return more;
  const result = { ...base };
  for (const [name, value] of Object.entries(more)) result[name] = merged(base[name], value);
  return result;
}

function styled(layout, colours) {
  const family = getComputedStyle(document.body).fontFamily;
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 20, t: 12, b: 40 },
    showlegend: false,
    hovermode: "closest",
    font: { family, size: 12.5, color: colours.ink },
    hoverlabel: { bgcolor: colours.card, bordercolor: colours.muted, font: { family, color: colours.ink, size: 12.5 }, align: "left" },
  };
  const axes = Object.fromEntries(["xaxis", "yaxis"].map((name) => [name, merged(axisStyle(colours), layout[name] ?? {})]));
  return { ...merged(base, layout), ...axes };
}

function saveImage(uri, name, format) {
  const comma = uri.indexOf(",");
  const raw = uri.slice(0, comma).includes("base64") ? bytesOf(uri.slice(comma + 1)) : decodeURIComponent(uri.slice(comma + 1));
  download(`${name}.${format}`, new Blob([raw], { type: format === "svg" ? "image/svg+xml" : "image/png" }));
}

function toolButtons(chart) {
  const image = (format) => async () => {
    const colours = palette();
    const { data, layout } = chart.build(colours);
    const dressed = {
      ...styled(layout, colours),
      paper_bgcolor: colours.card,
      title: { text: plain(clipped(chart.title, 100)), font: { size: 15 } },
    };
    dressed.margin = { ...dressed.margin, t: dressed.margin.t + 44 };
    const size = { width: 1200, height: (layout.height ?? chart.height) + 80 };
    await drawing();
    const uri = await Plotly.toImage({ data, layout: { ...dressed, ...size } }, { format, ...size, scale: 2 });
    saveImage(uri, chart.name, format);
  };
  const button = (label, click) =>
    h("button", { type: "button", class: "quiet", "aria-label": `Download ${chart.title} as ${label}`, click }, label);
  const table = () => chart.table();
  return h(
    "div",
    { class: "downloads" },
    button("CSV", () => download(`${chart.name}.csv`, csvOf(table().columns, table().rows), "text/csv;charset=utf-8")),
    button("SVG", image("svg")),
    button("PNG", image("png")),
  );
}

// The numbers behind a chart, made only when someone opens them.
function numbersOf(chart) {
  const inside = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Numbers of ${chart.title}` });
  const details = h("details", { class: "numbers" }, h("summary", {}, "View as table"), inside);
  const write = () => {
    if (!details.open) return;
    const { columns, rows } = chart.table();
    const body = rows.slice(0, 1000).map((row) =>
      h(
        "tr",
        {},
        row.map((value) => h("td", { class: typeof value === "number" ? "number" : null }, value ?? NOTHING)),
      ),
    );
    const more = rows.length > 1000 ? `The first 1000 of ${rows.length} rows; the CSV has all.` : chart.summary();
    inside.replaceChildren(
      h(
        "table",
        {},
        h("caption", {}, more),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            columns.map((each) => h("th", { scope: "col" }, each)),
          ),
        ),
        h("tbody", {}, body),
      ),
    );
  };
  details.addEventListener("toggle", write);
  chart.write = write;
  return details;
}

// `build(colours)` gives Plotly's {data, layout}, `table()` {columns, rows}, `summary()` a sentence; `drawn(place)` is called after each drawing.
function figure({ title, name, height, summary, build, table, after = null, tools = [], note = null }) {
  const place = h("div", { class: "chart", role: "img", style: { height: `${height}px` } });
  const chart = { title, name, height, summary, build, table, place, drawn: false };
  chart.redraw = async () => {
    try {
      await drawing();
    } catch (error) {
      place.replaceChildren(h("p", { class: "muted" }, error.message));
      return;
    }
    if (!place.isConnected) return; // someone went on meanwhile
    const colours = palette();
    const { data, layout } = build(colours);
    place.setAttribute("aria-label", `${title}. ${summary()}`);
    place.style.height = `${layout.height ?? height}px`;
    Plotly.react(place, data, styled(layout, colours), {
      responsive: true,
      displayModeBar: false,
      scrollZoom: false,
      doubleClick: false,
      showTips: false,
    });
    chart.write();
    if (!chart.drawn && after) after(place);
    chart.drawn = true;
  };
  place.setAttribute("aria-label", `${title}. ${summary()}`);
  charts.push(chart);
  const head = h("figcaption", {}, h("h2", {}, title), h("div", { class: "tools" }, tools, toolButtons(chart)));
  const element = h("figure", { class: "card" }, head, note, place, numbersOf(chart));
  return {
    element,
    redraw: () => {
      if (chart.drawn) chart.redraw();
    },
  };
}

// A line of numbers, as small as a word; the text beside it says the same.
function sparkline(values, { width = 112, height = 24 } = {}) {
  const shownValues = values.filter(known);
  if (shownValues.length < 2) return h("span", { class: "muted" }, shownValues.length ? "one run" : NOTHING);
  const low = Math.min(...shownValues);
  const most = Math.max(...shownValues);
  const span = Math.max(most - low, 0.1 * Math.abs(most)) || 1; // a noise of 1 % is to look like one
  const floor = (low + most - span) / 2;
  const x = (place) => 3 + (place / (values.length - 1)) * (width - 6);
  const y = (value) => height - 4 - ((value - floor) / span) * (height - 8);
  const points = values.map((value, place) => (known(value) ? `${x(place).toFixed(1)},${y(value).toFixed(1)}` : null)).filter(Boolean);
  const [lastX, lastY] = points.at(-1).split(",");
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
    svg("polyline", { points: points.join(" ") }),
    svg("circle", { cx: lastX, cy: lastY, r: 2.2 }),
  );
}
