// The loss of a race's methods, and the columns that fell back, drawn.

const SPANS = [
  [3 * 3600, 3600, "hours"],
  [300, 60, "minutes"],
  [0, 1, "seconds"],
];

// {factor, unit}: what seconds are multiplied by to be read on an axis that reaches so far.
function spanScale(longest) {
  const [, size, unit] = SPANS.find(([least]) => longest >= least) ?? SPANS.at(-1);
  return { factor: 1 / size, unit };
}

const PER_STEP = { seconds: "seconds_per_step", optimizer: "optimizer_seconds_per_step" };
const AXIS_TITLES = { seconds: "of training", optimizer: "in the optimizer" };

const FAR = 10; // times as long as the shortest: the others would stand in a corner, so the axis is logarithmic

// Where each point of a line stands, and what the axis is called.
function placesOf(lines, against) {
  if (against === "steps") return { title: "step", unit: "", log: false, at: (_line, step) => step };
  const seconds = (line, step) => step * (line[PER_STEP[against]] ?? NaN);
  const whole = lines.map((line) => seconds(line, line.steps.at(-1))).filter((value) => value > 0);
  const { factor, unit } = spanScale(Math.max(...whole, 0));
  const log = Math.max(...whole) > FAR * Math.min(...whole);
  const title = `${unit} ${AXIS_TITLES[against]}${log ? ", logarithmic" : ""}`;
  return { title, unit, log, at: (line, step) => seconds(line, step) * factor };
}

const lineName = (line) => `<b>${plain(line.label)}</b><br>rate ${line.lr}, ${plural(line.seeds.length, "seed")}`;

function rangeText(mean, low, high) {
  return known(low) && known(high) && low !== high ? `${lossText(mean)} (${lossText(low)} to ${lossText(high)})` : lossText(mean);
}

function convergencePlot(race, lines, query, colours) {
  const against = chosen(query, "x", AXES);
  const scale = chosen(query, "y", SCALES);
  const targets = race.baselines.filter(({ loss }) => known(loss));
  const y = { title: { text: "training loss" }, fixedrange: true, zeroline: false, ...lossAxis(lines, targets, scale) };
  const x = { fixedrange: true, rangemode: "tozero", zeroline: false, showgrid: false };
  if (against === "bytes") return finalLosses(race, lines, { x, y, colours, scale });
  const places = placesOf(lines, against);
  const ordered = [...lines].sort((a, b) => a.best - b.best); // the best lie on top
  const data = ordered.flatMap((line) => lineTraces(race, line, places, colours));
  const marks = lines.filter((line) => line.best && known(line.reached)).map((line) => reachedTrace(race, line, places, colours));
  return {
    data: [...data, ...marks],
    layout: {
      xaxis: {
        ...x,
        title: { text: places.title },
        ...(places.log ? { type: "log", dtick: "D2", tickformat: "~g" } : {}),
        ...(scale === "end" ? endOf(lines, places, y.range) : {}),
      },
      yaxis: y,
      height: 460,
      dragmode: false,
      ...targetLines(targets, colours, { log: scale === "log", right: against !== "steps" }),
      ...(data.some((trace) => trace.y.some(known)) ? {} : { annotations: [{ text: "no finite loss", showarrow: false }] }),
    },
  };
}

function lineTraces(race, line, places, colours) {
  const { hue, dash } = strokeOf(race, line.label);
  const x = line.steps.map((step) => places.at(line, step));
  const text = line.loss.map(
    (loss, place) => `${grouped(line.steps[place])} steps: loss ${rangeText(loss, line.low?.[place], line.high?.[place])}`,
  );
  const curve = {
    type: "scatter",
    mode: "lines",
    x,
    y: line.loss,
    line: { color: colours[hue], width: known(line.band) ? 2 : 1.5, dash },
    opacity: line.best ? 1 : 0.35,
    name: line.label,
    text,
    hovertemplate: `${lineName(line)}<br>%{text}${places.unit ? `, %{x:.3g} ${places.unit}` : ""}<extra></extra>`,
  };
  if (!line.low || !line.best) return [curve];
  const inside = line.loss.map((_, place) => place).filter((place) => known(line.low[place]) && known(line.high[place]));
  const back = [...inside].reverse();
  const range = {
    type: "scatter",
    mode: "lines",
    x: [...inside, ...back].map((place) => x[place]),
    y: [...inside.map((place) => line.high[place]), ...back.map((place) => line.low[place])],
    fill: "toself",
    fillcolor: colours[hue],
    line: { width: 0 },
    opacity: 0.16,
    hoverinfo: "skip",
  };
  return [range, curve];
}

// Where a method has come to the baseline's best.
function reachedTrace(race, line, places, colours) {
  const target = race.baselines.find(({ label }) => label === line.baseline)?.loss;
  const share = line.shares.steps ? `, ${percentText(line.shares.steps.mean)} of its steps` : "";
  return {
    type: "scatter",
    mode: "markers",
    x: [places.at(line, line.reached)],
    y: [target],
    marker: { size: 8, color: colours.card, line: { color: colours[strokeOf(race, line.label).hue], width: 2 } },
    text: `at ${plain(line.baseline)}'s best after ${grouped(Math.round(line.reached))} steps${share}`,
    hovertemplate: `${lineName(line)}<br>%{text}<extra></extra>`,
  };
}

// A line at each baseline's best, with its name where there is room: against time the left is crowded.
function targetLines(targets, colours, { log, right }) {
  const sides = [
    { x: 0, xanchor: "left", yanchor: "top" },
    { x: 1, xanchor: "right", yanchor: "bottom" },
  ];
  return {
    shapes: targets.map(({ loss }) => ({
      type: "line",
      xref: "paper",
      x0: 0,
      x1: 1,
      y0: loss,
      y1: loss,
      line: { color: colours.muted, width: 1, dash: "2px,3px" },
      layer: "below",
    })),
    annotations: targets.map(({ label, loss }, place) => ({
      xref: "paper",
      ...sides[(place + right) % 2],
      y: log ? Math.log10(loss) : loss,
      text: `${plain(label)}'s best, ${lossText(loss)}`,
      showarrow: false,
      font: { size: 11.5, color: colours.muted },
    })),
  };
}

const lastLoss = (line) => line.loss.findLast(known);

function lossAxis(lines, targets, scale) {
  const losses = lines
    .flatMap((line) => line.loss)
    .filter(known)
    .sort((a, b) => a - b);
  if (!losses.length) return { range: [0, 1] };
  if (scale === "log" && losses[0] > 0) return { type: "log", dtick: "D2", tickformat: "~g" };
  return { range: scale === "end" ? endRange(lines, targets) : lossRange(losses) };
}

// The first steps fall from so high that they would flatten the rest: the axis begins where nine tenths of the losses lie.
function lossRange(losses) {
  const top = losses[Math.floor(0.9 * (losses.length - 1))];
  const pad = (top - losses[0]) * 0.08 || 1;
  return [losses[0] - pad, top + 3 * pad];
}

// From the lowest end to as far above the baseline's best, or the middle of the ends, as that lies above the lowest.
function endRange(lines, targets) {
  const ends = lines
    .map(lastLoss)
    .filter(known)
    .sort((a, b) => a - b);
  const middle = ends[Math.floor(ends.length / 2)];
  const level = targets.length ? Math.max(...targets.map(({ loss }) => loss)) : middle;
  const span = Math.max(level - ends[0], 0.01 * Math.abs(ends[0])) || 1;
  return [ends[0] - 0.15 * span, Math.max(level, ends[0]) + span];
}

// The part of the horizontal axis in which some line is that low.
function endOf(lines, places, [, top]) {
  const inside = lines
    .filter((line) => known(lastLoss(line)) && lastLoss(line) <= top)
    .map((line) => {
      const first = line.loss.findIndex((loss) => known(loss) && loss <= top);
      return [places.at(line, line.steps[first]), places.at(line, line.steps.at(-1))];
    })
    .filter((ends) => ends.every(known));
  if (!inside.length) return {};
  const [left, right] = [Math.min(...inside.map(([first]) => first)), Math.max(...inside.map(([, last]) => last))];
  const [from, to] = places.log ? [Math.log10(left), Math.log10(right)] : [left, right];
  const pad = 0.02 * (to - from) || 1;
  return { range: [from - pad, to + pad] };
}

function finalLosses(race, lines, { x, y, colours, scale }) {
  const with_state = lines.filter((line) => known(line.state_bytes) && known(line.final));
  const size = byteScale(Math.max(...with_state.map((line) => line.state_bytes), 1));
  const tones = with_state.map((line) => colours[strokeOf(race, line.label).hue]);
  const width = Math.max(...with_state.map((line) => line.state_bytes), 1) * size.factor * 1.16;
  const range = finalRange(with_state, scale);
  const sides = labelSides(with_state, { width: width / size.factor, range });
  const data = [
    {
      type: "scatter",
      mode: "markers+text",
      x: with_state.map((line) => line.state_bytes * size.factor),
      y: with_state.map((line) => line.final),
      customdata: with_state.map((line) => `${lineName(line)}<br>final loss ${rangeText(line.final, line.final_low, line.final_high)}`),
      hovertemplate: `%{customdata}, %{x:.4g} ${size.unit}<extra></extra>`,
      text: with_state.map((line, place) => (sides[place] ? plain(line.label) : "")),
      textposition: sides.map((side) => `middle ${side || "right"}`),
      textfont: { size: 11.5, color: colours.muted },
      error_y: {
        type: "data",
        symmetric: false,
        array: with_state.map((line) => line.final_high - line.final),
        arrayminus: with_state.map((line) => line.final - line.final_low),
        color: colours.muted,
        thickness: 1,
        width: 0,
      },
      marker: {
        size: 11,
        color: tones,
        symbol: with_state.map((line) => (known(line.band) ? "circle" : "diamond")),
        opacity: with_state.map((line) => (line.best ? 1 : 0.4)),
        line: { color: colours.card, width: 1.5 },
      },
    },
  ];
  const axes = { xaxis: { ...x, title: { text: `optimizer state (${size.unit})` }, range: [0, width] } };
  const loss = scale === "log" ? y : { ...y, range };
  return { data, layout: { ...axes, yaxis: { ...loss, title: { text: "final loss" } }, height: 460, dragmode: false } };
}

// All ends, or only those that do not lie far above the others.
function finalRange(lines, scale) {
  const ends = lines.map((line) => line.final).sort((a, b) => a - b);
  if (!ends.length) return [0, 1];
  const middle = ends[Math.floor(ends.length / 2)];
  const top = scale === "end" ? Math.min(ends.at(-1), middle + 3 * (middle - ends[0]) || Infinity) : ends.at(-1);
  const pad = 0.12 * (top - ends[0]) || 0.02 * Math.abs(top) || 1;
  return [ends[0] - pad, top + pad];
}

const PLOT = { width: 1080, height: 390, letter: 6.2, line: 15, gap: 10 }; // pixels, on a wide screen

// On which side of its point each method's name has room: "right", "left" or, where it has none or the screen is narrow, "".
function labelSides(lines, { width, range: [low, high] }) {
  const boxes = lines.map((line) => {
    const x = (line.state_bytes / width) * PLOT.width;
    return { x, y: ((line.final - low) / (high - low)) * PLOT.height, left: x - PLOT.gap, right: x + PLOT.gap };
  });
  const apart = (a, b) => Math.abs(a.y - b.y) >= PLOT.line || a.right <= b.left || a.left >= b.right;
  const free = (box, own) => boxes.every((each) => each === own || apart(each, box));
  const wide = matchMedia("(min-width: 721px)").matches;
  return lines.map((line, place) => {
    if (!wide || !line.best) return "";
    const [own, length] = [boxes[place], PLOT.letter * line.label.length];
    const sides = [
      ["right", { y: own.y, left: own.x + PLOT.gap, right: own.x + PLOT.gap + length }],
      ["left", { y: own.y, left: own.x - PLOT.gap - length, right: own.x - PLOT.gap }],
    ];
    const [side, box] = sides.find(([, each]) => each.left > 0 && each.right < PLOT.width && free(each, own)) ?? ["", own];
    if (side) boxes.push(box);
    return side;
  });
}
