// Convergence: what a step is worth. Loss against steps, seconds and the bytes of the state, one race at a time.

const AXES = [
  ["steps", "Steps"],
  ["seconds", "Wall time"],
  ["optimizer", "Optimizer time"],
  ["bytes", "State"],
];

const SCALES = [
  ["linear", "Linear"],
  ["end", "The end"],
  ["log", "Log"],
];

pages.set("convergence", { title: "Convergence", load: () => view("convergence"), render: renderConvergence });

function renderConvergence(place, data, here, meta) {
  place.append(
    heading("Convergence", "A fast step is worth what it does to the loss: the same training, against steps, seconds and memory."),
  );
  const { races } = data;
  if (!races.length) {
    place.append(measureFirst("No training run is kept yet.", [["sonew-perf train", "trains the autoencoder with SONew and its peers"]]));
    return;
  }
  const raceOf = (query) => races.find((race) => race.id === query.get("race")) ?? races[0];
  const linesOf = (query) => raceOf(query).lines.filter((line) => query.get("all") === "1" || line.best);
  const drawnOf = (query) => linesOf(query).filter((line) => !hiddenLabels(query).includes(line.label));
  const chart = figure({
    title: "Training loss",
    name: "convergence",
    height: 460,
    summary: () => convergenceSummary(raceOf(route().query), linesOf(route().query)),
    note: h("div", { class: "key", role: "group", "aria-label": "Methods drawn" }),
    build: (colours) => convergencePlot(raceOf(route().query), drawnOf(route().query), route().query, colours),
    table: () => {
      const lines = drawnOf(route().query);
      return chosen(route().query, "x", AXES) === "bytes" ? stateNumbers(lines) : convergenceNumbers(lines);
    },
    tools: [segments("Against", "x", AXES), segments("Axis of the loss", "y", SCALES)],
  });
  const key = chart.element.querySelector(".key");
  const standings = dataTable({ caption: "The race", first: "final", columns: standingColumns(() => raceOf(route().query)), limit: 100 });
  const all = () => route().query.get("all") === "1";
  const trained = dataTable({ caption: "Training runs", first: "loss", columns: trainingColumns(all), limit: 20, parameter: "runs" });
  const fell = h("div");
  const said = h("p", { class: "muted" });
  place.append(
    h(
      "div",
      { class: "toolbar" },
      races.length > 1
        ? picker(
            "Race",
            "race",
            races.map((race) => [race.id, raceName(race, races)]),
          )
        : h("p", { class: "muted" }, raceName(races[0], races)),
      toggle("Every setting, not only each method's best", "all"),
    ),
    chart.element,
    tableCard("standings", "The race", standings, said, () => standingNumbers(linesOf(route().query))),
    fell,
    tableCard("trained", "Training runs", trained, null, () => trainingNumbers(raceOf(route().query).runs)),
  );
  let drawn = null; // race and line whose fallback is shown
  live((query) => {
    const race = raceOf(query);
    key.replaceChildren(...methodKey(race, linesOf(query), hiddenLabels(query)));
    said.textContent = raceRule(race);
    chart.redraw();
    standings.show(linesOf(query));
    trained.show(race.runs.filter((run) => query.get("all") === "1" || run.best));
    const counted = race.lines.filter((line) => line.fallback);
    const line = counted.find((each) => each.label === query.get("fell")) ?? counted[0];
    if (line === drawn) return;
    drawn = line;
    fell.replaceChildren(...(line ? [fallbackChart(line, counted).element] : []));
    if (fell.isConnected) watchCharts(); // else the page does it once it stands
  });
}

function tableCard(id, title, table, note, numbers) {
  const head = h("div", { class: "card-head" }, h("h2", { id }, title), h("div", { class: "tools" }, csvButton(title, id, numbers)));
  const below = note ? h("div", { class: "card-note" }, note) : null;
  return h("section", { class: "card flush", "aria-labelledby": id }, head, below, table.element);
}

function raceTitle(race) {
  const length =
    race.steps === race.schedule_steps ? plural(race.steps, "step") : `${grouped(race.steps)} of ${plural(race.schedule_steps, "step")}`;
  return [race.task, length, `batch ${grouped(race.batch)}`, race.machine].join(" · ");
}

// Where titles are alike, with what else sets the races apart.
function raceName(race, races) {
  const alike = races.filter((each) => raceTitle(each) === raceTitle(race));
  return alike.length > 1 ? `${raceTitle(race)} · ${race.data}, rate: ${race.lr_rule} · ${race.id}` : raceTitle(race);
}

// What the table holds the methods against, in a sentence.
function raceRule(race) {
  if (!race.baselines.length) return "Neither Adam nor AdamW was trained here, so there is nothing to hold the others against.";
  const best = race.baselines.map(({ label, loss }) => `${label}'s best is ${lossText(loss)}`).join(", ");
  const own = race.baselines.length > 1 ? " Each method is held against the Adam of its own framework." : "";
  return `${best}, where its seeds' mean training loss ends. The shares are of the steps and the time that it takes to get there.${own}`;
}

// SONew's methods take the first colours, in the order of their bands.
function labelsOf(race) {
  const rank = (line) => (known(line.band) ? line.band : 1000);
  const best = race.lines.filter((line) => line.best);
  return best.sort((a, b) => rank(a) - rank(b) || order(a.label, b.label)).map((line) => line.label);
}

const STROKES = { ours: ["solid", "9px,2px,2px,2px"], peers: ["4px,2px", "1px,2px"] };

// {hue, dash}: SONew is drawn through, its peers are dashed; after eight of a kind the dashes change.
function strokeOf(race, label) {
  const labels = labelsOf(race);
  const ours = new Set(race.lines.filter((line) => known(line.band)).map((line) => line.label));
  const kind = labels.filter((each) => ours.has(each) === ours.has(label));
  const place = kind.indexOf(label);
  const shift = ours.has(label) ? 0 : ours.size;
  const dashes = STROKES[ours.has(label) ? "ours" : "peers"];
  return { hue: `hue-${((place + shift) % 8) + 1}`, dash: dashes[Math.floor(place / 8) % dashes.length] };
}

function swatch({ hue, dash }) {
  const [on, off] = dash === "solid" ? [1, 0] : dash.split(",").map((each) => Number.parseFloat(each));
  const tone = `var(--${hue})`;
  return h("i", {
    class: "stroke",
    style: { background: `repeating-linear-gradient(90deg, ${tone} 0 ${on}px, transparent ${on}px ${on + off}px)` },
    "aria-hidden": "true",
  });
}

const hiddenLabels = (query) => (query.get("hide") ?? "").split("|").filter(Boolean);

// Each method with its stroke; a press takes its lines out of the chart or back in.
function methodKey(race, lines, hidden) {
  const listed = new Set(lines.map((line) => line.label));
  const press = (label) => {
    const next = hidden.includes(label) ? hidden.filter((each) => each !== label) : [...hidden, label];
    setQuery({ hide: next.join("|") || null });
    document.querySelector(`.key [data-label="${CSS.escape(label)}"]`)?.focus();
  };
  return labelsOf(race)
    .filter((label) => listed.has(label))
    .map((label) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": String(!hidden.includes(label)),
          "data-label": label,
          title: hidden.includes(label) ? "Draw it again" : "Leave it out of the chart",
          click: () => press(label),
        },
        swatch(strokeOf(race, label)),
        label,
      ),
    );
}

// Four significant digits: 51.37 and 51.42 are two results.
function lossText(value) {
  if (!known(value)) return NOTHING;
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3).replace("-", "−");
}

function convergenceSummary(race, lines) {
  const ended = lines.filter((line) => known(line.final)).sort((a, b) => a.final - b.final);
  const [best] = ended;
  const lowest = best ? `; lowest final loss ${lossText(best.final)} by ${best.label} at rate ${best.lr}` : ", none with a final loss";
  const targets = race.baselines.map(({ label, loss }) => `; ${label}'s best is ${lossText(loss)}`);
  return `${plural(lines.length, "line")}${lowest}${targets.join("")}`;
}
