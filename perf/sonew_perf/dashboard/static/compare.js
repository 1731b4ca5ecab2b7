// Compare: the list of comparisons, and one comparison as a table with its intervals drawn beside the cases.

pages.set("compare", {
  title: "Compare",
  async load({ id }) {
    const list = await view("comparisons");
    return { list, one: id ? await view(`comparisons/${id}`) : null };
  },
  render(place, { list, one }, here, meta) {
    if (one) renderComparison(place, one, list);
    else renderComparisons(place, list, meta);
  },
});

const titleOf = (row) => row.title || `${row.head} against ${row.base}`;

function renderComparisons(place, list, meta) {
  place.append(heading("Compare", "Two commits or configurations, measured in turn on one machine."));
  if (!list.length) {
    place.append(
      measureFirst("No comparison is kept yet. Compare two commits, interleaved round by round, to get a verdict for every case.", [
        ["sonew-perf compare main", "what you work on against main"],
        ["sonew-perf compare . --aa", "the same code twice: the machine's noise floor"],
      ]),
    );
    return;
  }
  const machines = new Map(meta.machines.map((machine) => [machine.id, machine.name]));
  const count = (name) => ({
    name,
    title: verdictOf(name).word,
    kind: "number",
    down: true,
    key: (row) => row.counts[name] ?? 0,
    cell: (row) => countCell(name, row.counts[name] ?? 0),
  });
  const table = dataTable({
    caption: "Comparisons",
    first: "-date",
    columns: [
      {
        name: "title",
        title: "Comparison",
        kind: "grow",
        key: titleOf,
        cell: (row) => h("a", { href: address("compare", row.id), "data-row": true }, titleOf(row)),
      },
      { name: "mode", title: "Kind", key: (row) => row.mode, cell: (row) => h("span", { class: "tag" }, row.mode) },
      ...Object.keys(VERDICTS).map(count),
      {
        name: "machine",
        title: "Machine",
        kind: "line",
        key: (row) => machines.get(row.machine) ?? row.machine,
        cell: (row) => machines.get(row.machine) ?? row.machine,
      },
      { name: "date", title: "Date", down: true, key: (row) => row.date, cell: (row) => stamp(row.date) },
    ],
  });
  place.append(
    h("div", { class: "toolbar" }, filterBox("Filter comparisons", "Filter by title or commit")),
    h("section", { class: "card flush", "aria-label": "Comparisons" }, table.element),
  );
  live((query) => table.show(list.filter((row) => matches(`${row.title} ${row.base} ${row.head} ${row.mode}`, query.get("filter")))));
}

function countCell(name, count) {
  return h("span", { class: count ? `tally ${verdictOf(name).kind}` : "muted" }, grouped(count));
}

function renderComparison(place, one, list) {
  const counts = Object.fromEntries(
    Object.keys(VERDICTS).map((name) => [name, one.entries.filter((entry) => entry.verdict === name).length]),
  );
  const others = [...list].sort((a, b) => order(a.date, b.date));
  const at = others.findIndex((other) => other.id === one.id);
  place.append(
    h(
      "nav",
      { class: "trail", "aria-label": "Comparisons" },
      h("a", { href: address("compare") }, "Comparisons"),
      h("span", { class: "steps" }, stepLink(others[at - 1], "← earlier"), stepLink(at < 0 ? null : others[at + 1], "later →")),
    ),
    heading(titleOf({ title: one.title, base: one.base.spec, head: one.head.spec }), comparisonLead(one)),
    h(
      "div",
      { class: "commits" },
      commitBox("Base", one.base),
      h("span", { class: "arrow", "aria-hidden": "true" }, "→"),
      commitBox("Head", one.head),
    ),
    comparisonNotices(one),
    h(
      "section",
      { class: "card strip", "aria-label": "Verdicts" },
      h(
        "div",
        { class: "summary" },
        verdictCounts(counts, (name) => address("compare", one.id, { verdict: name })),
        verdictBar(counts),
      ),
      h(
        "dl",
        { class: "about" },
        fact("Tolerance", `±${percentText(one.tolerance)}`, "inside it a case is the same"),
        fact("Noise floor", known(one.noise_floor) ? `±${percentText(one.noise_floor)}` : NOTHING, "from the newest A/A comparison"),
        fact("Rounds", roundsOf(one), "launches of both sides × rounds in each"),
        fact(
          "Machine",
          one.machine?.device ?? one.machine?.name ?? NOTHING,
          known(one.seconds) ? `took ${duration(one.seconds * 1000)}` : "",
        ),
      ),
    ),
    verdictTable(one, counts),
    one.command
      ? h("section", { class: "card", "aria-labelledby": "again" }, h("h2", { id: "again" }, "Measure it again"), command(one.command))
      : "",
  );
}

const stepLink = (other, text) => (other ? h("a", { href: address("compare", other.id), title: other.title }, text) : null);

function comparisonLead(one) {
  return [
    `${one.mode === "A/A" ? "One commit against itself" : "Head against base"}, ${moment(one.date)} UTC. Ratios are head ÷ base: below 1 the head is faster.`,
  ];
}

function roundsOf({ launches, rounds }) {
  return known(launches) && known(rounds) ? `${grouped(launches)} × ${grouped(rounds)}` : grouped(rounds ?? NOTHING);
}

function commitBox(side, commit) {
  return h(
    "section",
    { class: "card commit", "aria-label": side },
    h("h2", {}, side),
    h("p", { class: "spec" }, commit.title || commit.spec || NOTHING),
    h(
      "p",
      { class: "muted" },
      commit.commit ? h("code", {}, shortCommit(commit.commit)) : null,
      commit.commit_date ? ` ${day(commit.commit_date)}` : "",
      commit.modified ? h("span", { class: "tag", title: commit.diff ? `difference ${commit.diff}` : null }, "modified") : null,
      commit.tuning && commit.tuning !== "on" ? h("span", { class: "tag" }, `tuning ${commit.tuning}`) : null,
      commit.store ? h("span", { class: "tag" }, `tuned by store ${commit.store}`) : null,
    ),
  );
}

function comparisonNotices(one) {
  const notices = [];
  if (one.mode === "A/A")
    notices.push(
      notice("calm", "Both sides are the same commit: every change here is noise, and the largest of them is this machine's noise floor."),
    );
  if (one.not_interleaved)
    notices.push(
      notice(
        "alarm",
        "The two sides were not measured in turn, so a drift of the machine between them counts as a change. Read small changes with doubt.",
      ),
    );
  return notices;
}
