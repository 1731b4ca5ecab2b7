// A kernel against its baseline, band by size: a table whose cells are coloured by the logarithm of the ratio, and links.

function heatmapScale(map) {
  const ratios = map.cells
    .flat()
    .filter((cell) => cell && cell.status === "done" && cell.ratio > 0)
    .map((cell) => Math.abs(Math.log2(cell.ratio)));
  return Math.min(3, Math.max(0.25, ...ratios)); // the strongest colour: between ±19 % and 8 times
}

function heatmapCard(map, meta) {
  const machine = meta.machines.find((each) => each.id === map.machine);
  const most = heatmapScale(map);
  const sub = [map.framework, map.dtype, machine?.name].filter(Boolean).join(" · ");
  const caption = `${[map.case, map.kernel].filter(Boolean).join(" ")}, ${sub}: time relative to ${map.baseline}, by band and size`;
  const head = h(
    "thead",
    {},
    h(
      "tr",
      {},
      h("th", { scope: "col", class: "corner" }, "Band"),
      map.sizes.map((size) =>
        h("th", { scope: "col", title: sizeTitle(size), style: { width: `${(100 / (map.sizes.length + 0.6)).toFixed(1)}%` } }, size.label),
      ),
    ),
  );
  const rows = map.bands.map((band, row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, band === null ? NOTHING : String(band)),
      map.sizes.map((size, column) => heatmapCell(map, map.cells[row][column], band, size, most)),
    ),
  );
  const table = h(
    "table",
    { class: "heatmap", role: "grid", keydown: moveInGrid },
    h("caption", { class: "visually-hidden" }, caption),
    head,
    h("tbody", {}, rows),
  );
  const first = table.querySelector("a");
  if (first) first.tabIndex = 0;
  return h(
    "section",
    { class: "card", "aria-label": caption },
    h(
      "div",
      { class: "card-head" },
      h("h2", {}, [map.case, map.kernel].filter(Boolean).join(" · ")),
      h("span", { class: "muted" }, `time ÷ ${map.baseline}`),
      h("div", { class: "tools" }, csvButton(caption, `heatmap-${map.kernel}-${map.machine}`, () => heatmapNumbers(map))),
    ),
    h("p", { class: "sub" }, sub),
    h("div", { class: "scroll" }, table),
    heatmapLegend(most, map),
  );
}

function heatmapNumbers(map) {
  const columns = ["band", "workload", "elements", `time over ${map.baseline}`, "low", "high", "status", "reason", "series", "run"];
  const rows = map.bands.flatMap((band, row) =>
    map.sizes.flatMap((size, column) => {
      const cell = map.cells[row][column];
      if (!cell) return [];
      return [[band, size.workload, size.elements, cell.ratio, cell.low, cell.high, cell.status, cell.reason, cell.series, cell.run]];
    }),
  );
  return { columns, rows };
}

const sizeTitle = (size) => [size.workload, size.elements ? `${elements(size.elements)} elements` : ""].filter(Boolean).join(", ");

function heatmapCell(map, cell, band, size, most) {
  if (!cell) return h("td", { class: "blank" }, h("span", { class: "visually-hidden" }, "not measured"));
  const where = `band ${band ?? NOTHING}, ${size.label}`;
  const link = { href: address("kernel", cell.series, { run: cell.run }), tabindex: "-1" };
  if (cell.status !== "done" || !known(cell.ratio)) {
    return h(
      "td",
      { class: `absent ${cell.status}` },
      h("a", { ...link, title: cell.reason || null, "aria-label": `${where}: ${cell.status}. ${cell.reason || ""}` }, cell.status),
    );
  }
  const logarithm = Math.log2(cell.ratio);
  const share = Math.min(1, Math.abs(logarithm) / most);
  const word = cell.unsure ? "unsure" : cell.ratio > 1 ? "slower" : "faster";
  const interval = known(cell.low) && known(cell.high) ? ` (${ratioText(cell.low)} to ${ratioText(cell.high)})` : "";
  const says = `${where}: ${ratioText(cell.ratio)} the time of ${map.baseline}${interval}, ${word}`;
  return h(
    "td",
    {
      class: `${logarithm > 0 ? "slower" : "faster"}${cell.unsure ? " unsure" : ""}`,
      style: { "--amount": `${(share * 100).toFixed(0)}%` },
    },
    h("a", { ...link, title: says, "aria-label": says }, h("span", {}, cell.ratio.toFixed(2))),
  );
}

function heatmapLegend(most, map) {
  const top = 2 ** most;
  const beyond = map.cells.flat().some((cell) => known(cell?.ratio) && Math.abs(Math.log2(cell.ratio)) > most);
  const text = (value, sign) => `${beyond ? sign : ""}${value.toFixed(value < 1 ? 2 : 1)}×`;
  const unsure = map.cells.flat().some((cell) => cell?.unsure);
  return h(
    "div",
    { class: "legend" },
    h("span", { class: "faster" }, "▼ faster"),
    h("span", { class: "end" }, text(1 / top, "≤ ")),
    h("span", { class: "ramp", "aria-hidden": "true" }),
    h("span", { class: "end" }, text(top, "≥ ")),
    h("span", { class: "slower" }, "▲ slower"),
    unsure ? h("span", { class: "hatched" }, h("i", { "aria-hidden": "true" }), "unsure") : null,
  );
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

// One stop of the Tab key for the whole grid; the arrows move inside it, over what is blank.
function moveInGrid(event) {
  const step = STEPS[event.key];
  const cell = event.target.closest("td");
  if (!step || !cell) return;
  event.preventDefault();
  const rows = [...event.currentTarget.tBodies[0].rows];
  let [row, column] = [rows.indexOf(cell.parentElement), cell.cellIndex];
  for (;;) {
    row += step[0];
    column += step[1];
    const next = rows[row]?.cells[column];
    if (!next) return;
    const link = next.querySelector("a");
    if (!link) continue;
    event.target.tabIndex = -1;
    link.tabIndex = 0;
    link.focus();
    return;
  }
}
