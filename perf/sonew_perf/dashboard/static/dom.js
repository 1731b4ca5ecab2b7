// Elements made without markup: text is only ever text, whatever stands in it.
"use strict";

const SVG_NAMES = "http://www.w3.org/2000/svg";

// Attributes that are functions become listeners, `style` is an object of properties; null, undefined and false are left out.
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "style") for (const [property, each] of Object.entries(value)) element.style.setProperty(property, each);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

function h(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG_NAMES, name), attributes, children);
}

// 16 x 16 strokes, in the colour of the text around them.
const ICONS = {
  copy: ["M5.5 5.5h7v8h-7z", "M3.5 10.5v-8h7"],
  done: ["M3 8.5l3.5 3.5L13 4.5"],
  pin: ["M6 2.5h4l-.5 4 2 2.5H4.5l2-2.5z", "M8 9v4.5"],
  next: ["M6 3.5L10.5 8 6 12.5"],
  warning: ["M8 2.5L14 13H2z", "M8 6.5v3", "M8 11.2v.1"],
  broken: ["M4 2.5h5l3 3v8H4z", "M6.5 8l3 3", "M9.5 8l-3 3"],
  failure: ["M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z", "M6 6l4 4", "M10 6l-4 4"],
  stale: ["M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z", "M8 4.5V8l2.5 1.5"],
  regression: ["M2 12.5l4-5 3 2.5 5-6.5", "M10.5 3.5H14V7"],
  comparison: ["M4.5 2.5v11", "M11.5 2.5v11", "M2 5.5h5", "M9 10.5h5"],
  system: ["M2 3h12v8H2z", "M6 13.5h4"],
  light: [
    "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
    "M8 1.5V3",
    "M8 13v1.5",
    "M1.5 8H3",
    "M13 8h1.5",
    "M3.4 3.4l1 1",
    "M11.6 11.6l1 1",
    "M3.4 12.6l1-1",
    "M11.6 4.4l1-1",
  ],
  dark: ["M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5z"],
};

function icon(name) {
  const paths = ICONS[name].map((path) => svg("path", { d: path }));
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, paths);
}

// The project's sign: a matrix of which only the band around the diagonal is kept.
function emblem() {
  const cells = [];
  for (let row = 0; row < 4; row += 1) {
    for (let column = 0; column < 4; column += 1) {
      const distance = Math.abs(row - column);
      const kind = distance === 0 ? "diagonal" : distance === 1 ? "band" : "rest";
      cells.push(svg("rect", { x: 1 + column * 5.5, y: 1 + row * 5.5, width: 4.5, height: 4.5, rx: 1, class: kind }));
    }
  }
  return svg("svg", { class: "emblem", viewBox: "0 0 23 23", "aria-hidden": "true" }, cells);
}

function copyButton(text, what) {
  const state = h("span", {}, "Copy");
  const button = h("button", { type: "button", class: "quiet", "aria-label": `Copy ${what}`, click: copy }, icon("copy"), state);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      state.textContent = "Copied";
      announce(`${what} copied`);
    } catch {
      state.textContent = "Select it"; // the browser does not let this page write to the clipboard
    }
    setTimeout(() => {
      state.textContent = "Copy";
    }, 2000);
  }
  return button;
}

// A command line with a button that copies it.
function command(text, what = "the command") {
  return h("div", { class: "command" }, h("code", { tabindex: "0", role: "group", "aria-label": what }, text), copyButton(text, what));
}

function announce(text) {
  document.getElementById("announcements").textContent = text;
}
