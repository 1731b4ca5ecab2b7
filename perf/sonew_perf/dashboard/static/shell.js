// What stands around every page: the header with the pages' names, the help and the news of fresh runs.

const MENU = [
  ["overview", "Overview", "o"],
  ["compare", "Compare", "c"],
  ["kernel", "Kernels", "k"],
  ["regressions", "Regressions", "r"],
  ["roofline", "Roofline", "f"],
  ["runs", "Runs", "u"],
  ["convergence", "Convergence", "v"],
];

function buildShell() {
  const links = MENU.map(([page, title]) => h("li", {}, h("a", { href: address(page), "data-page": page }, title)));
  const help = h("button", { type: "button", class: "tool", "aria-label": "Keys", title: "Keys (?)", click: showKeys }, "?");
  const header = document.querySelector("header");
  header.replaceChildren(
    h(
      "div",
      { class: "frame" },
      h(
        "a",
        { class: "brand", href: address("overview") },
        emblem(),
        h("span", {}, "SONew"),
        h("span", { class: "quietly" }, "performance"),
      ),
      h("nav", { "aria-label": "Pages" }, h("ul", {}, links)),
      h("div", { class: "tools" }, themeButton(), help),
    ),
  );
  const skip = h("a", { class: "skip", href: "#main", click: skipToMain }, "Skip to the page");
  document.body.prepend(skip);
  document.body.append(
    h("footer", { id: "footer" }),
    h("div", { id: "news" }),
    h("p", { id: "announcements", class: "visually-hidden", role: "status" }),
    keysDialog(),
  );
}

function skipToMain(event) {
  event.preventDefault(); // the hash is the page's address
  document.querySelector("#main h1")?.focus();
}

function markCurrent(page) {
  for (const link of document.querySelectorAll("nav a[data-page]")) {
    const current = link.dataset.page === page;
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    const list = link.closest("ul");
    if (current && list.scrollWidth > list.clientWidth) list.scrollLeft = link.offsetLeft - list.offsetLeft - 16;
  }
}

async function writeFooter() {
  const meta = await view("meta");
  const counts = `${plural(meta.runs, "run")}, ${plural(meta.series, "series").replace("seriess", "series")}, ${plural(meta.comparisons, "comparison")}`;
  const written = MODE === "export" ? `Written ${moment(meta.generated)} UTC` : "Live";
  document
    .getElementById("footer")
    .replaceChildren(h("p", {}, `${written} · ${counts} · SONew ${meta.version}`), meta.rule ? h("p", {}, meta.rule) : "");
}

function newsOf(meta, now) {
  if (now.revision !== meta.revision)
    return now.runs > meta.runs ? `${plural(now.runs - meta.runs, "new run")}: load` : "New results: load";
  const finished = now.analysed && meta.analysed && now.analysed.done === now.analysed.total && meta.analysed.done < meta.analysed.total;
  return finished ? "All histories are analysed: load" : "";
}

// Asks now and then whether there are new runs, and says so; the reader decides when the page changes.
function watchForNews() {
  if (MODE !== "server") return;
  const place = document.getElementById("news");
  const ask = async () => {
    if (document.hidden) return;
    try {
      const [meta, answer] = await Promise.all([view("meta"), fetch("/api/revision.json")]);
      if (!answer.ok) return;
      const now = await answer.json();
      const text = newsOf(meta, now);
      if (!text || place.hasChildNodes()) return;
      place.replaceChildren(h("button", { type: "button", class: "news", click: load }, text));
      announce(text);
    } catch {
      // the server is away: what is shown stays
    }
  };
  const load = async () => {
    place.replaceChildren();
    kept.clear();
    await Promise.all([follow({ again: true }), writeFooter()]);
  };
  setInterval(ask, 15_000);
  document.addEventListener("visibilitychange", ask);
}
