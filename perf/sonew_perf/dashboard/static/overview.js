// Overview: how the last comparison went, what needs attention, and every kernel against its baseline.

const KINDS = { regression: "Regression", comparison: "Comparison", failure: "Failure", "broken file": "Broken file", stale: "Stale" };
const KIND_ICONS = { regression: "regression", comparison: "comparison", failure: "failure", "broken file": "broken", stale: "stale" };

pages.set("overview", { title: "Overview", load: () => view("overview"), render: renderOverview });

function renderOverview(place, data, here, meta) {
  place.append(heading("Overview", overviewLead(meta)));
  if (meta.problems.length) place.append(problemsNotice(meta.problems));
  if (!data.last_run && !data.heatmaps.length) {
    place.append(measureFirst("Nothing is measured yet. Run the suite once and this page shows where SONew stands against AdamW."));
    return;
  }
  place.append(
    analysing(meta),
    verdictStrip(data),
    attentionCard(data.attention, data.attention_total),
    h(
      "div",
      { class: "maps" },
      data.heatmaps.map((map) => heatmapCard(map, meta)),
    ),
  );
  if (!data.heatmaps.length)
    place.append(measureFirst("No run compares SONew with a baseline yet, so there is no heatmap.", REMEDIES.slice(0, 1)));
}

function overviewLead(meta) {
  if (!meta.runs) return "The speed of SONew, run after run.";
  const machines = meta.machines.length === 1 ? `on ${meta.machines[0].name}` : `on ${plural(meta.machines.length, "machine")}`;
  return `${plural(meta.runs, "run")} ${machines}. Times are medians; less is better everywhere.`;
}

function problemsNotice(problems) {
  const list = h(
    "ul",
    {},
    problems.map(({ path, reason }) => h("li", {}, h("code", {}, path), ` ${reason}`)),
  );
  const title = problems.length === 1 ? "1 file of the store cannot be used" : `${problems.length} files of the store cannot be used`;
  return notice("alarm", h("details", {}, h("summary", {}, `${title}. The rest is shown.`), list));
}

function verdictStrip(data) {
  const { last_comparison: last, last_run: run, noise_floor: noise } = data;
  const about = h(
    "dl",
    { class: "about" },
    fact(
      "Last run",
      run ? h("a", { href: address("runs", "", { run: run.id }) }, run.label || day(run.date)) : NOTHING,
      run ? ago(run.date) || day(run.date) : "",
    ),
    fact(
      "Commit",
      run?.commit ? h("code", {}, shortCommit(run.commit)) : NOTHING,
      run ? (run.modified ? "with local changes" : run.branch || "") : "",
    ),
    fact("Machine", run ? run.machine_name : NOTHING, run && known(run.load) ? `load ${run.load.toFixed(1)} before the run` : ""),
    fact(
      "Noise floor",
      noise ? h("a", { href: address("compare", noise.comparison) }, `±${noise.percent.toFixed(1)} %`) : NOTHING,
      noise ? `A/A, ${day(noise.date)}` : h("code", {}, "sonew-perf compare . --aa"),
    ),
  );
  return h("section", { class: "card strip", "aria-label": "Last comparison" }, last ? comparisonSummary(last) : noComparison(), about);
}

const fact = (name, value, below) => h("div", {}, h("dt", {}, name), h("dd", {}, value, below ? h("small", {}, below) : null));

function noComparison() {
  return h(
    "div",
    { class: "summary" },
    h("h2", {}, "No comparison yet"),
    h("p", { class: "muted" }, "Measure two commits side by side, interleaved on this machine, to get a verdict for every case."),
    command("sonew-perf compare main"),
  );
}

function comparisonSummary(last) {
  return h(
    "div",
    { class: "summary" },
    h(
      "h2",
      {},
      h("a", { href: address("compare", last.id) }, last.title || "The last comparison"),
      h("span", { class: "muted" }, ` ${day(last.date)}`),
    ),
    verdictCounts(last.counts, (name) => address("compare", last.id, { verdict: name })),
    verdictBar(last.counts),
  );
}

function verdictCounts(counts, link) {
  const item = (name) => {
    const { sign, word, kind } = verdictOf(name);
    const inside = [
      h("b", {}, grouped(counts[name] ?? 0)),
      h("span", { class: "word" }, h("span", { "aria-hidden": "true" }, `${sign} `), word),
    ];
    return h("li", { class: `${kind}${counts[name] ? "" : " none"}` }, h("a", { href: link(name) }, inside));
  };
  return h("ul", { class: "counts" }, Object.keys(VERDICTS).map(item));
}

function verdictBar(counts) {
  const names = Object.keys(VERDICTS).filter((name) => counts[name]);
  return h(
    "div",
    { class: "verdict-bar", "aria-hidden": "true" },
    names.map((name) => h("span", { class: verdictOf(name).kind, style: { "flex-grow": String(counts[name]) } })),
  );
}

function attentionCard(items, total) {
  const card = h(
    "section",
    { class: "card attention", "aria-labelledby": "attention" },
    h(
      "div",
      { class: "card-head" },
      h("h2", { id: "attention" }, "What needs attention"),
      items.length ? h("span", { class: "count" }, grouped(total)) : null,
    ),
  );
  if (!items.length) {
    card.append(h("p", { class: "calm" }, icon("done"), "Nothing: no open regression, no failure, no broken file."));
    return card;
  }
  card.append(h("ul", {}, items.map(attentionItem)));
  if (total > items.length) card.append(h("p", { class: "muted rest" }, `and ${grouped(total - items.length)} more`));
  return card;
}

function attentionItem(item) {
  const sized = known(item.change) ? changeMark(item.change) : null;
  const lost = known(item.ms) ? h("span", { class: "lost" }, quantity(`${item.ms < 0 ? "−" : "+"}${duration(Math.abs(item.ms))}`)) : null;
  const name = Object.hasOwn(KINDS, item.kind) ? item.kind : "stale";
  return h(
    "li",
    { class: `about-${name.replace(" ", "-")}` },
    h(
      "a",
      { href: attentionLink(item), "data-row": true },
      h("span", { class: "kind" }, icon(KIND_ICONS[name]), KINDS[name]),
      h("span", { class: "what" }, h("b", {}, item.title), h("span", { class: "muted" }, item.text)),
      h("span", { class: "size" }, sized, lost),
    ),
  );
}

function attentionLink(item) {
  if (item.page === "runs") return address("runs", "", { run: item.id });
  if (item.page === "regressions") return address("regressions", "", { filter: item.id });
  return pages.has(item.page) ? address(item.page, item.id) : address("overview");
}
