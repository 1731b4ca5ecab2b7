// The axes of a history, and its numbers.

// Just around the values, whatever is far below them.
function closeRange(values, more) {
  const numbers = [...values, ...more].filter(known);
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  const room = 0.15 * (most - least || Math.abs(most) || 1);
  return numbers.length ? [least - room, most + room] : [0, 1];
}

function historyLayout({ data, x, zoom, scale, measure, median, annotations, shapes, colours }) {
  const dates = typeof x[0] === "string";
  const y = { rangemode: "tozero", zeroline: true, fixedrange: true, title: { text: `${plain(measure.title)} (${scale.unit})` } };
  if (zoom) {
    const inside = median.slice(zoom[0], zoom[1] + 1).filter(known);
    const bounds = measure.low
      ? [...measure.low.slice(zoom[0], zoom[1] + 1), ...measure.high.slice(zoom[0], zoom[1] + 1)]
          .filter(known)
          .map((value) => value * scale.factor)
      : inside;
    y.range = closeRange(inside, bounds);
  } else {
    const reach = Math.max(
      ...median.filter(known),
      measure.line ? measure.line[0] : 0,
      ...(measure.beside?.values ?? []).filter(known).map((value) => value * scale.factor),
      ...(measure.high ?? []).filter(known).map((value) => value * scale.factor),
    );
    y.range = [0, reach * 1.12 || 1];
  }
  const many = x.length > 12;
  const brush = many
    ? {
        rangeslider: {
          visible: true,
          thickness: 0.13,
          bgcolor: "rgba(0,0,0,0)",
          bordercolor: colours.grid,
          borderwidth: 1,
          range: placesAxis(data, x, null, dates).range,
          yaxis: { rangemode: "fixed", range: closeRange(median, []) },
        },
      }
    : {};
  if (measure.line?.[1])
    annotations.push({
      xref: "paper",
      x: 1,
      xanchor: "right",
      y: measure.line[0],
      yanchor: "bottom",
      text: `${measure.line[1]} ${digits(measure.line[0])} ${scale.unit}`,
      showarrow: false,
      font: { size: 11.5, color: colours.muted },
    });
  const flags = annotations.some((each) => (each.yshift ?? 0) > 40) ? 68 : annotations.some((each) => (each.yshift ?? 0) > 20) ? 48 : 28;
  return {
    height: many ? 420 : 340,
    margin: { t: data.changes.length ? flags : 12, b: many ? 20 : 48 },
    dragmode: matchMedia("(pointer: fine)").matches && x.length > 2 ? "zoom" : false,
    annotations,
    shapes,
    xaxis: { ...brush, ...placesAxis(data, x, zoom, dates), showgrid: false, fixedrange: x.length < 3 },
    yaxis: y,
  };
}

function placesAxis({ points }, x, zoom, dates) {
  const [first, last] = zoom ?? [0, x.length - 1];
  if (dates) {
    if (zoom) return { type: "date", range: [x[first], x[last]] };
    const room = Math.max(3600e3, (Date.parse(x.at(-1)) - Date.parse(x[0])) * 0.03);
    return { type: "date", range: [new Date(Date.parse(x[0]) - room).toISOString(), new Date(Date.parse(x.at(-1)) + room).toISOString()] };
  }
  const narrow = document.documentElement.clientWidth < 640;
  const count = last - first + 1;
  const step = Math.max(1, Math.ceil(count / (narrow ? 3 : 8)));
  const ticks = [];
  for (let at = first; at <= last; at += step) ticks.push(at);
  const label = (at) => `${day(points.date[at]).replace(/ \d{4}$/, "")}<br>${plain(shortCommit(points.commit[at]).slice(0, 7))}`;
  return { tickvals: ticks.map((at) => at + 1), ticktext: ticks.map(label), range: [first + 0.5, last + 1.5] };
}

function historyTable({ series, points }) {
  const ratios = Object.keys(points.ratio ?? {});
  const columns = [
    "date",
    "commit",
    "label",
    `median (${series.unit})`,
    "lower quartile",
    "upper quartile",
    ...ratios.map((name) => `ratio to ${name}`),
    "GB/s",
    "GB/s of the copy",
    "samples",
    "status",
    "reason",
    "run",
  ];
  const rows = points.run.map((run, at) => [
    points.date[at],
    shortCommit(points.commit[at]),
    points.label[at],
    points.median[at],
    points.q1[at],
    points.q3[at],
    ...ratios.map((name) => points.ratio[name][at]),
    points.gbps?.[at] ?? null,
    points.copy_gbps?.[at] ?? null,
    points.n[at],
    points.status[at],
    points.reason[at],
    run,
  ]);
  return { columns, rows: rows.reverse() };
}
