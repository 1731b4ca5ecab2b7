"""Times of an optimizer step, torch's and JAX's and the host's part, as blocks of a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sonew_perf.numbers.record import Record
from sonew_perf.numbers.words import (
    MODELS,
    NONE,
    block,
    bold,
    device,
    facts,
    listed,
    mebibytes,
    middle,
    multiple,
    number,
    paragraph,
    sentence,
    size,
    spread,
    state,
    table,
    work,
)
from sonew_perf.records.files import Entry
from sonew_perf.steps.host import BARE, OURS, TARGET
from sonew_perf.steps.host import FUSED as HOST_FUSED
from sonew_perf.steps.peers import COPY, FUSED

UNTUNED: Final = ", untuned"
CPU_TARGETS: Final[Mapping[int, float]] = {1: 3.5, 4: 7.0}  # by band: at most so many times fused AdamW


def ours(entry: Entry) -> bool:
    """Whether it is SONew's step as users call it."""
    return bool(entry["settings"].get("backend") == "auto")


def _label(case: str) -> str:
    """A case as READMEs call it."""
    for name, label in (("AdamW ", "torch AdamW, "), ("reference", "plain reference")):
        case = case.replace(name, label)
    return case.replace(UNTUNED, ", tuning off")


def _tuned_or_not(record: Record) -> str:
    """Whether tuning chose something else than the default, band by band; "" where the run had only one of the two."""
    same: list[str] = []
    other: list[str] = []
    for entry in record.entries:
        if entry["case"].endswith(UNTUNED) and (tuned := record.find(entry["case"].removesuffix(UNTUNED))) is not None:
            configs = [[plan["config"] for plan in each["plans"]] for each in (tuned, entry)]
            (same if configs[0] == configs[1] else other).append(f"band {entry['settings']['band']}")
    parts = []
    if same:
        parts.append(f"At {listed(same)} the tuned entry is the analytic default: the two rows are the same configuration timed twice.")
    if other:
        parts.append(f"At {listed(other)} the tuned entry is another configuration than the analytic default.")
    return " ".join(parts)


def step(record: Record, *, command: str) -> str:
    """One row per case of `sonew-perf run`; `command` has {rounds} where the number of rounds belongs."""
    rows = []
    for entry in record.entries:
        case = entry["case"]
        main = ours(entry) and not (case.endswith(UNTUNED) and record.find(case.removesuffix(UNTUNED)))
        fused, copy = (entry["against"][peer] for peer in (FUSED, COPY))
        rows.append(
            (
                bold(_label(case), when=main),
                number(entry["median_ms"]),
                spread(entry),
                bold(multiple(fused), when=main),
                middle(copy),
                state(entry),
                mebibytes(entry["peak_bytes"]),
            )
        )
    told = f"{sentence(work(record.first['workload']))}: `{command.format(rounds=record.rounds)}` ({record.link}). {facts([record.first])}:"
    heads = ("work", "ms", "spread", "x fused AdamW", "x copy", "state, B per element", "peak MiB")
    return block(paragraph(told), table(heads, rows), paragraph(_tuned_or_not(record)))


def two_runs(few: Record, many: Record, *, commands: Sequence[str]) -> str:
    """SONew's bands in a run with few cases beside one with many: the ratio depends on what else takes turns."""
    rows = []
    for entry in filter(ours, many.entries):
        other = few.find(entry["case"])
        rows.append(
            (
                bold(entry["case"].removesuffix(UNTUNED), when=other is not None),
                state(entry),
                NONE if other is None else number(other["median_ms"]),
                NONE if other is None else bold(multiple(other["against"][FUSED])),
                number(entry["median_ms"]),
                multiple(entry["against"][FUSED]),
                mebibytes(entry["peak_bytes"]),
            )
        )
    first = next(filter(ours, few.entries))["case"]
    times = {case: [number(record.case(case)["median_ms"]) for record in (few, many)] for case in (FUSED, first)}
    called = listed([f"`{command.format(rounds=few.rounds)}`" for command in commands])
    told = (
        f"{sentence(work(few.first['workload']))}: {called} ({few.link}, {many.link}). {facts([few.first, many.first])}. "
        f"Two runs, because the ratio to AdamW depends on what else takes turns in a run: AdamW itself took "
        f"{' and '.join(times[FUSED])} ms, {first.removesuffix(UNTUNED)} {' and '.join(times[first])} ms:"
    )
    bands = [sum(map(ours, record.entries)) for record in (few, many)]
    heads = [f"run of {count} bands: {what}" for count in bands for what in ("ms", "x fused AdamW")]
    return block(paragraph(told), table(("work", "state, B per element", *heads, "peak MiB"), rows))


def _bands(record: Record) -> str:
    return listed(list(dict.fromkeys(str(entry["settings"]["band"]) for entry in record.entries if "band" in entry["settings"])))


def cpu_target(*records: Record) -> str:
    """How many of the rows above meet the CPU's target, and which do not."""
    judged = [(record, entry) for record in records for entry in record.entries if ours(entry) and entry["settings"]["band"] in CPU_TARGETS]
    missed = [
        f"{entry['case'].removesuffix(UNTUNED)} in a run of bands {_bands(record)}, {multiple(entry['against'][FUSED])} ({record.link})"
        for record, entry in judged
        if entry["against"][FUSED]["median"] > CPU_TARGETS[entry["settings"]["band"]]
    ]
    bounds = listed([f"band {band} at most {bound:g} times" for band, bound in CPU_TARGETS.items()])
    verdict = f"{len(judged) - len(missed)} of the {len(judged)} rows of these bands meet it"
    return block(
        paragraph(f"The target on a CPU: {bounds} fused AdamW. {sentence(verdict)}{'; missed by ' if missed else ''}{listed(missed)}.")
    )


def jitted(tensor: Record, model: Record, *, baseline: str, command: str) -> str:
    """JAX's cases on one leaf beside those on a model's leaves."""
    rows = []
    for entry in tensor.entries:
        main = entry["settings"].get("band") == 1
        cells = [bold(entry["case"], when=main), state(entry)]
        for each in (entry, model.case(entry["case"])):
            cells += [
                number(each["median_ms"]),
                spread(each),
                bold(multiple(each["against"][baseline]), when=main),
                mebibytes(each["peak_bytes"]),
            ]
        rows.append(cells)
    workloads = [record.first["workload"] for record in (tensor, model)]
    names = [f"{word}: ms" for word in (f"{size(workloads[0]['elements'])} elements", MODELS[workloads[1]["name"]].rpartition(" ")[2])]
    heads = [head for name in names for head in (name, "spread", f"x {baseline}", "MiB")]
    leaf, leaves = work(workloads[0], "leaf"), work(workloads[1], many="leaves")
    told = (
        f"{sentence(leaf)}: `{command} --rounds {tensor.rounds}` ({tensor.link}); {leaves}: the same with "
        f"`--model {workloads[1]['name']}` ({model.link}). {facts([tensor.first, model.first], ('jax', 'optax'))}:"
    )
    return block(paragraph(told), table(("work", "state, B per element", *heads), rows))


def _bare(record: Record, gradients: str) -> Mapping[str, float]:
    ratio: Mapping[str, float] = record.case(f"{OURS}, gradients {gradients}")["against"][f"{BARE}, gradients {gradients}"]
    return ratio


def _host_verdict(record: Record) -> str:
    first, name = record.first, record.first["workload"]["name"]
    told = []
    for gradients in ("stay", "new"):
        ratio = _bare(record, gradients)
        met = "met" if ratio["median"] <= TARGET else "missed"
        told.append(f"{multiple(ratio, 2)} where gradients {'stay' if gradients == 'stay' else 'are new'}, {met}")
    tensors, groups = first["workload"]["tensors"], first["launch_groups"]
    return f"{sentence(MODELS[name])}, {tensors} tensors in {groups} launch groups: {'; '.join(told)} ({record.link})."


def host(shown: Record, other: Record, *, command: str) -> str:
    """The host's time of one model's step as a table, both models against the target."""
    rows = []
    for entry in shown.entries:
        case, gradients = entry["settings"]["optimizer"], entry["settings"]["gradients"]
        against = [entry["against"][f"{peer}, gradients {gradients}"] for peer in (HOST_FUSED, BARE)]
        label = case.replace("AdamW ", "torch AdamW, ").replace(" bare", ", bare")
        rows.append(
            (
                bold(label, when=case == OURS),
                gradients,
                f"{1000 * entry['median_ms']:.0f}",
                spread(entry),
                multiple(against[0], 2),
                bold(multiple(against[1], 2), when=case == OURS),
            )
        )
    models = [record.first["workload"]["name"] for record in (shown, other)]
    told = (
        f"`{command} --rounds {shown.rounds}` ({shown.link}), and the same with `--model {models[1]}` ({other.link}). "
        f"{facts([shown.first, other.first])}:"
    )
    heads = (f"host time of a step, {MODELS[models[0]]}", "gradients", "us", "spread", "x fused AdamW", "x fused AdamW, both bare")
    verdict = f"The target: at most {TARGET:g} times fused AdamW, both bare, the stricter of the two comparisons."
    return block(paragraph(told), table(heads, rows), paragraph(" ".join([verdict, *(_host_verdict(record) for record in (shown, other))])))


def summary(torch_cases: Sequence[tuple[Record, str]], jax_case: tuple[Record, str], *, baseline: str) -> str:
    """A few of the times above in one table: device, date, peers, memory and record. All are of the same workload.

    Args:
        torch_cases, jax_case: record and case of each row. baseline: JAX's peer.
    """
    rows: list[Sequence[str]] = []
    for record, case in (*torch_cases, jax_case):
        entry, jax = record.case(case), record is jax_case[0]
        framework, versus = (
            ("JAX", f"{multiple(entry['against'][baseline])}, {baseline}") if jax else ("torch", multiple(entry["against"][FUSED]))
        )
        what = f"{framework}, band {entry['settings']['band']}, in a run of bands {_bands(record)}"
        copy = NONE if jax else middle(entry["against"][COPY])
        times = (number(entry["median_ms"]), spread(entry), versus, copy, mebibytes(entry["peak_bytes"]))
        rows.append((device(entry), entry["date"][:10], what, *times, record.link))
    rows.append(("any GPU", NONE, "torch, JAX", "not measured", *[NONE] * 5))
    workload = work(torch_cases[0][0].first["workload"])
    return block(table(("device", "date", f"a step of {workload}", "ms", "spread", "x fused AdamW", "x copy", "peak MiB", "record"), rows))
