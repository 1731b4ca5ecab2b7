// The page and its state, both in the hash: every view has an address that can be sent to someone.

const pages = new Map(); // name -> {title, key, async load(here), render(place, loaded, here, meta)}
let shown = { path: null, watchers: [], turn: 0 };

function parseHash(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?", 2);
  const [page, ...rest] = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // a stray % is a character like others
    }
  });
  return { page: page || "overview", id: rest.join("/"), query: new URLSearchParams(query ?? "") };
}

function address(page, id, values) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values ?? {}))
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  const text = query.toString();
  return `#/${page}${id ? `/${encodeURIComponent(id)}` : ""}${text ? `?${text}` : ""}`;
}

const route = () => parseHash(location.hash);

// Changes some values of the query and tells the page's watchers. `quietly` leaves no step to go back to: typing, zooming.
function setQuery(values, { quietly = false } = {}) {
  const { page, id, query } = route();
  const next = address(page, id, { ...Object.fromEntries(query), ...values });
  if (next === location.hash) return;
  if (quietly) window.history.replaceState(window.history.state, "", next);
  else window.history.pushState(null, "", next);
  tell();
}

// Goes to another page; this one is found again as it was left.
function go(hash) {
  rememberPlace();
  location.hash = hash;
}

// Keeps in the step of the history where the reader was: how far down, and on which link.
function rememberPlace() {
  const link = document.activeElement?.closest?.("#main a[href]");
  window.history.replaceState({ scroll: scrollY, link: link ? link.getAttribute("href") : null }, "");
}

// The place where the reader was in this step of the history; false where it is a new one.
function returnToPlace() {
  const { scroll, link } = window.history.state ?? {};
  if (typeof scroll !== "number") return false;
  const found = link ? document.querySelector(`#main a[href="${CSS.escape(link)}"]`) : null;
  (found ?? document.querySelector("#main h1"))?.focus({ preventScroll: true });
  scrollTo(0, scroll);
  return true;
}

// Calls `watcher(query)` now and whenever the query changes while this page is shown.
function live(watcher) {
  shown.watchers.push(watcher);
  watcher(route().query);
}

function tell() {
  const { query } = route();
  for (const watcher of [...shown.watchers]) watcher(query);
}

function pathOf({ page, id }) {
  return `${page}/${id}`;
}

async function follow({ again = false, focus = true } = {}) {
  const here = route();
  if (!again && shown.path === pathOf(here)) {
    tell();
    returnToPlace();
    return;
  }
  if (again) rememberPlace();
  const turn = shown.turn + 1;
  forgetCharts();
  shown = { path: pathOf(here), watchers: [], turn };
  const page = pages.get(here.page);
  const place = h("div", { class: "page" });
  const main = document.getElementById("main");
  markCurrent(here.page);
  main.replaceChildren(place);
  if (!page) {
    place.append(
      heading("No such page"),
      emptyState("The address names no page of this dashboard.", h("a", { href: address("overview") }, "Go to the overview")),
    );
  } else {
    await draw(page, place, here, turn);
  }
  if (turn === shown.turn) finish(place, focus);
}

async function draw(page, place, here, turn) {
  place.append(
    h("div", { class: "skeleton", role: "status" }, h("span", { class: "visually-hidden" }, "Loading"), h("div"), h("div"), h("div")),
  );
  const fresh = h("div", { class: "page" });
  try {
    const meta = await view("meta");
    const loaded = await page.load(here);
    if (turn !== shown.turn) return; // someone went on meanwhile
    page.render(fresh, loaded, here, meta);
  } catch (error) {
    if (turn !== shown.turn) return;
    if (!(error instanceof ViewError)) console.error(error);
    shown.watchers = [];
    fresh.replaceChildren(heading(page.title), failureState(error));
  }
  place.replaceChildren(...fresh.childNodes);
}

function finish(place, focus) {
  const title = place.querySelector("h1");
  document.title = `${title ? title.textContent : "Performance"} · SONew`;
  document.body.dataset.ready = shown.path;
  if (returnToPlace()) {
    // a step that was taken before
  } else if (focus) {
    title?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  watchCharts();
}

function heading(text, ...below) {
  const title = h("h1", { tabindex: "-1" }, text);
  return h("div", { class: "heading" }, title, below.length ? h("p", { class: "lead" }, below) : null);
}
