// Numbers, dates and names as people read them. What is not known is "–", never 0.

const NOTHING = "–";
const known = (value) => typeof value === "number" && Number.isFinite(value);

// Three significant digits, and no more than three after the point.
function digits(value) {
  if (!known(value)) return NOTHING;
  const size = Math.abs(value);
  const after = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return grouped(value.toFixed(after)).replace("-", "−");
}

function grouped(text) {
  const [whole, part] = String(text).split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return part === undefined ? spaced : `${spaced}.${part}`;
}

const TIMES = [
  [1000, "s"],
  [1, "ms"],
  [1e-3, "µs"],
  [0, "ns"],
];

// {factor, unit}: what milliseconds are multiplied by to be read as `unit`.
function timeScale(milliseconds) {
  const [size, unit] = TIMES.find(([least]) => Math.abs(milliseconds) >= least);
  return { factor: 1 / (size || 1e-6), unit };
}

function duration(milliseconds) {
  if (!known(milliseconds)) return NOTHING;
  const { factor, unit } = timeScale(milliseconds);
  return milliseconds === 0 ? "0 ms" : `${digits(milliseconds * factor)} ${unit}`;
}

const SIZES = [
  [2 ** 40, "TiB"],
  [2 ** 30, "GiB"],
  [2 ** 20, "MiB"],
  [2 ** 10, "KiB"],
  [1, "B"],
];

function byteScale(value) {
  const [size, unit] = SIZES.find(([least]) => Math.abs(value) >= least) ?? SIZES.at(-1);
  return { factor: 1 / size, unit };
}

function bytes(value) {
  if (!known(value)) return NOTHING;
  const { factor, unit } = byteScale(value);
  return `${digits(value * factor)} ${unit}`;
}

// {factor, unit} for an axis that reaches up to `value`, of a series in `unit`.
function scaleOf(value, unit) {
  if (unit === "bytes") return byteScale(value);
  if (unit !== "ms" && unit !== "s") return { factor: 1, unit };
  const { factor, unit: shown } = timeScale(unit === "s" ? value * 1000 : value);
  return { factor: unit === "s" ? factor * 1000 : factor, unit: shown };
}

function amount(value, unit) {
  if (!known(value)) return NOTHING;
  if (unit === "bytes") return bytes(value);
  if (unit === "ms" || unit === "s") return duration(unit === "s" ? value * 1000 : value);
  return `${digits(value)} ${unit}`;
}

function elements(value) {
  if (!known(value) || value === 0) return NOTHING;
  if (value % 2 ** 20 === 0) return `${grouped(value / 2 ** 20)} Mi`;
  if (value % 2 ** 10 === 0) return `${grouped(value / 2 ** 10)} Ki`;
  if (value >= 1e9) return `${digits(value / 1e9)} G`;
  return value >= 1e6 ? `${digits(value / 1e6)} M` : grouped(value);
}

const ratioText = (value) => (known(value) ? `${value >= 100 ? digits(value) : value.toFixed(2)}×` : NOTHING);

// 1.07 -> "+7.0 %", 3.4 -> "3.4×"
function changeText(ratio) {
  if (!known(ratio)) return NOTHING;
  if (ratio >= 3) return `${digits(ratio)}×`;
  const percent = (ratio - 1) * 100;
  const text = Math.abs(percent).toFixed(Math.abs(percent) >= 100 ? 0 : 1);
  return `${percent < 0 ? "−" : "+"}${text} %`;
}

const percentText = (share) => (known(share) ? `${(share * 100).toFixed(Math.abs(share) >= 0.1 ? 0 : 1)} %` : NOTHING);
const shortCommit = (commit) => (commit ? commit.slice(0, 9) : "");
const plural = (count, noun) => `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const CLOCK = { hour: "2-digit", minute: "2-digit", hour12: false, timeZone: "UTC" };

function whenOf(iso) {
  const time = new Date(iso ?? "");
  return Number.isNaN(time.getTime()) ? null : time;
}

function day(iso) {
  const time = whenOf(iso);
  return time ? `${time.getUTCDate()} ${MONTHS[time.getUTCMonth()]} ${time.getUTCFullYear()}` : iso || NOTHING;
}

function moment(iso) {
  const time = whenOf(iso);
  return time ? `${day(iso)}, ${time.toLocaleTimeString("en-GB", CLOCK)}` : iso || NOTHING;
}

const PERIODS = [
  [86400 * 365, "year"],
  [86400 * 30, "month"],
  [86400, "day"],
  [3600, "hour"],
  [60, "minute"],
];

function ago(iso) {
  const time = whenOf(iso);
  if (!time) return "";
  const seconds = (Date.now() - time.getTime()) / 1000;
  if (seconds < -60) return ""; // another clock than ours wrote it
  const period = PERIODS.find(([length]) => seconds >= length);
  return period ? `${plural(Math.floor(seconds / period[0]), period[1])} ago` : "just now";
}

// A series in a few words: what is measured, then of what.
const seriesName = (series) => `${series.case}: ${series.kernel}${series.measure === "time" ? "" : `, ${series.measure}`}`;
const shortName = (series, otherwise) => (series ? seriesName(series) : otherwise);
const workloadOf = (series) => [series.workload, series.elements ? elements(series.elements) : ""].filter(Boolean).join(" · ");
const typeOf = (series) => [series.dtype, series.framework].filter(Boolean).join(" · ");

// "2.73 ms" with a quieter unit.
function quantity(text) {
  const cut = text.lastIndexOf(" ");
  return cut < 0 ? text : [text.slice(0, cut), h("span", { class: "unit" }, ` ${text.slice(cut + 1)}`)];
}

const stamp = (iso) => h("time", { datetime: iso, title: `${moment(iso)} UTC` }, day(iso));

const VERDICTS = {
  SLOWER: { sign: "▲", word: "Slower", kind: "slower" },
  FASTER: { sign: "▼", word: "Faster", kind: "faster" },
  SAME: { sign: "=", word: "Same", kind: "same" },
  UNSURE: { sign: "?", word: "Unsure", kind: "unsure" },
  "NO-DATA": { sign: "∅", word: "No data", kind: "nothing" },
};
const verdictOf = (name) => (Object.hasOwn(VERDICTS, name) ? VERDICTS[name] : { sign: "?", word: String(name), kind: "nothing" });

function verdictPill(name) {
  const { sign, word, kind } = verdictOf(name);
  return h("span", { class: `pill ${kind}` }, h("span", { "aria-hidden": "true" }, sign), word);
}

// A change of a level: arrow, word and size.
function changeMark(ratio) {
  if (!known(ratio)) return h("span", { class: "muted" }, NOTHING);
  const kind = ratio > 1 ? "slower" : "faster";
  const word = h("span", { class: "visually-hidden" }, ` ${kind}`);
  return h("span", { class: `change ${kind}` }, h("span", { "aria-hidden": "true" }, ratio > 1 ? "▲ " : "▼ "), changeText(ratio), word);
}
