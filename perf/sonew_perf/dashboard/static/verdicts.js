// The cases of a comparison: sorted by effect, what is insignificant hidden until someone asks, a row opens in place.

const entryTitle = (entry) => [entry.case, entry.kernel].filter(Boolean).join(" · ");
const entryDetail = (entry) =>
  [entry.workload, entry.elements ? elements(entry.elements) : "", entry.dtype, entry.framework, entry.variant].filter(Boolean).join(" · ");
const HIDDEN = ["SAME", "UNSURE"];

function verdictTable(one, counts) {
  const axis = forestAxis(one.entries, one.tolerance);
  const columns = verdictColumns(one, axis);
  const table = dataTable({
    caption: "Cases of the comparison",
    first: "-effect",
    columns,
    limit: 400,
    nothing: "No case is left by this filter.",
    mark: (entry) => verdictOf(entry.verdict).kind,
  });
  const note = h("p", { class: "hidden-rows" });
  const button = (label, image) =>
    h("button", { type: "button", class: "quiet", "aria-label": `Download the comparison as ${label}`, click: image }, label);
  const buttons = h(
    "div",
    { class: "downloads" },
    button("CSV", () => download(`comparison-${one.id}.csv`, comparisonCsv(one), "text/csv;charset=utf-8")),
    button("SVG", () => saveForest(one, "svg")),
    button("PNG", () => saveForest(one, "png")),
  );
  const card = h(
    "section",
    { class: "card flush", "aria-labelledby": "cases" },
    h(
      "div",
      { class: "card-head" },
      h("h2", { id: "cases" }, "Cases"),
      filterBox("Filter cases", "Filter by case, kernel, size"),
      h("div", { class: "tools" }, buttons),
    ),
    table.element,
    note,
  );
  live((query) => {
    const verdict = query.get("verdict");
    const found = one.entries.filter((entry) =>
      matches(`${entryTitle(entry)} ${entryDetail(entry)} band ${entry.band}`, query.get("filter")),
    );
    const listed = found.filter((entry) =>
      verdict ? entry.verdict === verdict : query.get("all") === "1" || !HIDDEN.includes(entry.verdict),
    );
    table.show(listed);
    note.replaceChildren(...hiddenNote(found, listed, query));
    for (const link of document.querySelectorAll(".summary .counts li"))
      link.classList.toggle("chosen", Boolean(verdict) && link.classList.contains(verdictOf(verdict).kind));
  });
  return card;
}

function hiddenNote(found, listed, query) {
  const hidden = found.filter((entry) => !listed.includes(entry));
  const again = (text, values) => h("button", { type: "button", class: "button", click: () => setQuery(values) }, text);
  if (!hidden.length)
    return query.get("all") === "1" || query.get("verdict") ? [again("Show what changed only", { all: null, verdict: null })] : [];
  const names = Object.keys(VERDICTS).filter((name) => hidden.some((entry) => entry.verdict === name));
  const parts = names.map((name) => `${hidden.filter((entry) => entry.verdict === name).length} ${verdictOf(name).word.toLowerCase()}`);
  const calm = listed.length || query.get("verdict") ? "" : "No case changed beyond the tolerance. ";
  return [`${calm}${hidden.length} hidden (${parts.join(", ")}) `, again("Show all", { all: "1", verdict: null })];
}

function verdictColumns(one, axis) {
  const opened = new Set();
  const effect = (entry) => (known(entry.ratio) && entry.ratio > 0 ? Math.abs(Math.log(entry.ratio)) : null);
  const columns = [
    {
      name: "case",
      title: "Case",
      kind: "grow",
      key: entryTitle,
      cell: (entry) => [unfold(entryTitle(entry), () => entryInside(entry, one), columns.length, opened, entry), h("small", {}, entryDetail(entry))],
    },
    {
      name: "verdict",
      title: "Verdict",
      key: (entry) => Object.keys(VERDICTS).indexOf(entry.verdict),
      cell: (entry) => verdictPill(entry.verdict),
    },
    {
      name: "effect",
      title: "Change",
      kind: "number",
      down: true,
      help: "Sorts by size, whichever way",
      key: effect,
      cell: (entry) =>
        known(entry.ratio) ? h("span", { class: `change ${verdictOf(entry.verdict).kind}` }, changeText(entry.ratio)) : NOTHING,
    },
    { name: "interval", title: "Ratio", kind: "forest", head: () => forestHead(axis), cell: (entry) => forestRow(entry, axis) },
    {
      name: "base",
      title: "Base",
      kind: "number",
      down: true,
      key: (entry) => entry.base_ms,
      cell: (entry) => quantity(duration(entry.base_ms)),
    },
    {
      name: "head",
      title: "Head",
      kind: "number",
      down: true,
      key: (entry) => entry.head_ms,
      cell: (entry) => quantity(duration(entry.head_ms)),
    },
    {
      name: "lost",
      title: "Head − base",
      kind: "number",
      down: true,
      help: "Absolute time",
      key: lostTime,
      cell: (entry) => signedDuration(lostTime(entry)),
    },
    {
      name: "detectable",
      title: "Detectable",
      kind: "number",
      down: true,
      help: "The smallest change that this measurement could have told from noise",
      key: (entry) => entry.detectable,
      cell: (entry) => (known(entry.detectable) ? `±${percentText(entry.detectable)}` : NOTHING),
    },
  ];
  return columns;
}

const lostTime = (entry) => (known(entry.base_ms) && known(entry.head_ms) ? entry.head_ms - entry.base_ms : null);

function signedDuration(value) {
  return known(value) ? quantity(`${value < 0 ? "−" : "+"}${duration(Math.abs(value))}`) : NOTHING;
}

function entryInside(entry, one) {
  const p = (value) => (known(value) ? (value < 0.001 ? "< 0.001" : value.toFixed(3)) : NOTHING);
  const list = facts([
    [
      "Ratio",
      known(entry.ratio) ? `${ratioText(entry.ratio)}, 95 % interval ${ratioText(entry.low)} to ${ratioText(entry.high)}` : NOTHING,
    ],
    ["p, adjusted", `${p(entry.p)}, ${p(entry.p_adjusted)} over ${plural(one.entries.length, "case")}`],
    [
      "Measured twice",
      entry.confirmed === null || entry.confirmed === undefined
        ? "not needed"
        : entry.confirmed
          ? "yes, and confirmed"
          : "yes, not confirmed",
    ],
    entry.reason ? ["Why", entry.reason] : null,
  ]);
  return [
    h("div", { class: "halves" }, list, roundsStrip(entry, one.tolerance)),
    entry.series ? h("p", {}, h("a", { href: address("kernel", entry.series) }, "History of this series →")) : null,
  ];
}
