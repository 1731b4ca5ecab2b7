// The views: asked of the server, or unpacked once from the document that holds them all.

const MODE = document.documentElement.dataset.mode === "export" ? "export" : "server";
const SAFE_NAME = /^[0-9A-Za-z._/-]+$/;
const kept = new Map(); // name -> promise of the view
let unpacked = null;

class ViewError extends Error {
  constructor(message, { missing = false } = {}) {
    super(message);
    this.missing = missing;
  }
}

function bytesOf(base64) {
  const text = atob(base64);
  const packed = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place += 1) packed[place] = text.charCodeAt(place);
  return packed;
}

// The text that an element of the exported document holds packed.
async function unpackedText(id) {
  const holder = document.getElementById(id);
  if (!holder)
    throw new ViewError(`This file holds no ${id}: its end may be cut off. Write it again with \`sonew-perf dashboard --export FILE.html\`.`);
  const packed = new Blob([bytesOf(holder.textContent.trim())]).stream();
  const stream = packed.pipeThrough(new DecompressionStream(holder.dataset.encoding || "gzip"));
  return new Response(stream).text();
}

async function unpack() {
  try {
    return expanded(JSON.parse(await unpackedText("data")));
  } catch (error) {
    if (error instanceof ViewError) throw error;
    throw new ViewError(
      `The data in this file cannot be unpacked (${error.message}). Write it again with \`sonew-perf dashboard --export FILE.html\`.`,
    );
  }
}

// What several views share stands once, in `lists`; {"@": n} stands for the n-th of them.
function expanded({ lists, views }) {
  const whole = (value) => {
    if (Array.isArray(value)) return value.map(whole);
    if (value === null || typeof value !== "object") return value;
    const names = Object.keys(value);
    if (names.length === 1 && names[0] === "@") return lists[value["@"]];
    return Object.fromEntries(names.map((name) => [name, whole(value[name])]));
  };
  return whole(views);
}

async function fromDocument(name) {
  unpacked ??= unpack();
  const views = await unpacked;
  if (!Object.hasOwn(views, name))
    throw new ViewError(`This file does not hold ${name}: it may have been left out when the file was made.`, { missing: true });
  return views[name];
}

async function fromServer(name) {
  let answer;
  try {
    answer = await fetch(`/api/${name}.json`);
  } catch {
    throw new ViewError("The server does not answer. Is `sonew-perf dashboard` still running?");
  }
  if (!answer.ok) throw new ViewError(await refusal(answer, `The server could not make ${name}`), { missing: answer.status === 404 });
  return answer.json();
}

// What the server says of a request that it refuses.
async function refusal(answer, otherwise) {
  try {
    return (await answer.json()).error ?? otherwise;
  } catch {
    return `${otherwise} (status ${answer.status}). Its terminal says more.`;
  }
}

function view(name) {
  if (!SAFE_NAME.test(name)) return Promise.reject(new ViewError("There is no such page.", { missing: true }));
  if (!kept.has(name)) {
    const asked = MODE === "export" ? fromDocument(name) : fromServer(name);
    kept.set(name, asked);
    asked.catch(() => kept.delete(name)); // the next call tries again
  }
  return kept.get(name);
}

// The ticket's row as the server keeps it.
async function saveTicket(id, state, note) {
  const answer = await fetch(`/api/tickets/${encodeURIComponent(id)}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Sonew": "1" },
    body: JSON.stringify({ state, note }),
  });
  if (!answer.ok) throw new ViewError(await refusal(answer, "The server refused the change"));
  kept.clear();
  return (await answer.json()).regression;
}

// Rows as a file that spreadsheets open. A cell that a spreadsheet would take for a formula is quoted as text.
function csvOf(columns, rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
}

function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
