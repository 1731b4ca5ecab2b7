// Draws the charts in the colours of the page's theme, and sorts tables. No request leaves the page.
"use strict";

const themes = matchMedia("(prefers-color-scheme: dark)");
const options = { responsive: true, displayModeBar: false, scrollZoom: false };

function painted(value, style) {
  if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() || value : value;
  if (Array.isArray(value)) return value.map((each) => painted(each, style));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, painted(each, style)]));
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  const dragmode = matchMedia("(pointer: fine)").matches ? "zoom" : false;
  for (const chart of document.querySelectorAll(".chart")) {
    const figure = painted(JSON.parse(document.getElementById(chart.dataset.figure).textContent), style);
    Plotly.react(chart, figure.data, { ...figure.layout, dragmode }, options);
  }
}

function keyOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.order ?? cell.textContent.trim();
  const number = Number(text);
  return text === "" || Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what is no number comes last
  return typeof a === "number" ? a - b : a.localeCompare(b);
}

function sortBy(table, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row, heading.cellIndex), row]);
  rows.sort(([a], [b]) => (typeof a === typeof b && down ? compare(b, a) : compare(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, heading));
    heading.append(button);
  }
}

if (typeof Plotly !== "undefined") {
  draw();
  themes.addEventListener("change", draw);
}
