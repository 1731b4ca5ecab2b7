// Columns of the preconditioner that fell back, layer by layer over a run.

const LAYERS_TOLD = 8; // that have a colour: those with the most

function fallbackChart(line, counted) {
  const mean = (shares) => shares.reduce((sum, share) => sum + share, 0) / shares.length;
  const layers = Object.entries(line.fallback.layers)
    .map(([name, shares]) => ({ name, shares, mean: mean(shares) }))
    .sort((a, b) => b.mean - a.mean);
  const told = layers.slice(0, LAYERS_TOLD);
  const choose = () => setQuery({ fell: select.value === counted[0].label ? null : select.value });
  const select = h(
    "select",
    { "aria-label": "Method whose columns fell back", change: choose },
    counted.map((each) => h("option", { value: each.label, selected: each === line }, each.label)),
  );
  const rest = layers.length - told.length;
  const whose = `${line.label} at rate ${line.lr}, mean of ${plural(line.seeds.length, "seed")}`;
  return figure({
    title: "Columns that fell back",
    name: "fallback",
    height: 340,
    note: h(
      "div",
      {},
      h(
        "p",
        { class: "sub" },
        `Of each layer's columns, the share whose coupling was dropped because a pivot was too small: ${whose}.`,
      ),
      h(
        "div",
        { class: "key" },
        told.map(({ name }, place) =>
          h("span", {}, h("i", { class: "stroke", style: { background: `var(--hue-${place + 1})` }, "aria-hidden": "true" }), name),
        ),
        rest ? h("span", { class: "muted" }, `grey: ${plural(rest, "layer")} with less`) : null,
      ),
    ),
    summary: () => `${whose}: the most fell back in ${layers[0].name}, ${percentText(layers[0].mean)} of its columns over the run`,
    build: (colours) => fallbackPlot(line, layers, colours),
    table: () => ({
      columns: ["layer", "step", "share of columns"],
      rows: layers.flatMap(({ name, shares }) => shares.map((share, place) => [name, line.fallback.steps[place], share])),
    }),
    tools: counted.length > 1 ? [select] : [],
  });
}

function fallbackPlot(line, layers, colours) {
  const data = layers.map(({ name, shares }, place) => ({
    type: "scatter",
    mode: "lines",
    x: line.fallback.steps,
    y: shares.map((share) => 100 * share),
    line: place < LAYERS_TOLD ? { color: colours[`hue-${place + 1}`], width: 1.75 } : { color: colours.muted, width: 1 },
    opacity: place < LAYERS_TOLD ? 1 : 0.45,
    text: shares.map(percentText),
    hovertemplate: `<b>${plain(clipped(name, 70))}</b><br>step %{x}: %{text} of its columns<extra></extra>`,
  }));
  return {
    data: data.reverse(), // those with the most lie on top
    layout: {
      xaxis: { title: { text: "step" }, fixedrange: true, rangemode: "tozero", zeroline: false, showgrid: false },
      yaxis: { title: { text: "columns that fell back (%)" }, fixedrange: true, rangemode: "tozero", zeroline: false },
      height: 340,
      dragmode: false,
    },
  };
}
