"""Sections of a study's page: the comparison that decides, why it went so, and where the numbers come from."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sonew_autotune.compiler.difference import MINOR, Difference, value_text
from sonew_autotune.measure import Samples, paired_ratio
from sonew_autotune.report import figures
from sonew_autotune.report.analysis import best
from sonew_autotune.report.decision import WORKLOADS
from sonew_autotune.report.document import Charts
from sonew_autotune.report.markup import (
    NOTHING,
    Cell,
    Html,
    Node,
    Row,
    code,
    folded,
    gain_cell,
    gain_text,
    ms_text,
    number,
    paragraph,
    section,
    table,
)
from sonew_autotune.report.reasons import Reasons, Setting
from sonew_autotune.report.studies import Study
from sonew_autotune.trials.trial import ADAMW, BEST, COPY, DEFAULT


def _names(study: Study) -> Mapping[str, str]:
    decided = study.decision
    if decided is not None and decided.tuned:
        return {**figures.NAMES, BEST: "winner"}
    again = decided is not None and decided.challenger is not None and dict(decided.challenger) == dict(decided.config)
    return {**figures.NAMES, BEST: "default, again"} if again else figures.NAMES


def _rounds_table(samples: Mapping[str, Sequence[float]], names: Mapping[str, str]) -> Html:
    shown = [workload for workload in WORKLOADS if workload in samples]
    rounds = range(max(len(samples[workload]) for workload in shown))
    rows: list[list[Cell]] = [
        [
            Cell(f"{index + 1}", index),
            *(number(ms_text(samples[w][index]), samples[w][index]) if index < len(samples[w]) else number("-") for w in shown),
        ]
        for index in rounds
    ]
    rows.append([Cell("median"), *(number(ms_text(statistics.median(samples[w]))) for w in shown)])
    return table("Milliseconds per step", ["round", *(names[workload] for workload in shown)], rows)


def comparison(study: Study, charts: Charts) -> Html:
    """Every round of the final comparison; before there is one, of the best trial."""
    decided, names = study.decision, _names(study)
    if decided is not None and decided.samples:
        samples: Mapping[str, Sequence[float]] = decided.samples
        text = "Each dot is one round, each bar a median. All workloads took turns within a round, so the machine's drift hit them alike."
        if BEST in samples and DEFAULT in samples and len(samples[BEST]) == len(samples[DEFAULT]):
            ratio = paired_ratio(Samples(tuple(samples[BEST])), Samples(tuple(samples[DEFAULT])))
            text += f" Round by round the {names[BEST]} ran at {gain_text(ratio.inverse())} the default's pace."
    else:
        leader = best(study.records)
        if leader is None or not leader.record.times_ms:
            return section("comparison", "Against the default, round by round", paragraph(NOTHING))
        record = leader.record
        samples = {BEST: record.times_ms, DEFAULT: record.default_times_ms, COPY: record.copy_times_ms}
        samples = {workload: times for workload, times in samples.items() if times}
        names = {**names, BEST: "best trial"}
        text = "There is no final comparison yet. These are the rounds of the best trial; fused AdamW runs in the final comparison only."
    medians = ", ".join(f"{names[w]} {ms_text(statistics.median(samples[w]))} ms" for w in WORKLOADS if w in samples)
    chart = charts.add(figures.strip(samples, names), f"Times of every round. Medians: {medians}.")
    return section(
        "comparison", "Against the default, round by round", paragraph(text), chart, folded(_rounds_table(samples, names)), _words(samples)
    )


def _words(samples: Mapping[str, Sequence[float]]) -> Html:
    words = {
        ADAMW: "Fused AdamW is one step of torch.optim.AdamW(fused=True) over the same shapes.",
        COPY: "Copy moves as many elements as there are parameters.",
    }
    return paragraph(" ".join(text for workload, text in words.items() if workload in samples), muted=True)


def _setting_row(setting: Setting) -> Row:
    return [
        code(setting.name),
        number(f"{setting.before}"),
        number(f"{setting.after}"),
        gain_cell(setting.default.gain if setting.default is not None else None),
        gain_cell(setting.winner.gain if setting.winner is not None else None),
        gain_cell(setting.alone.gain.median if setting.alone is not None else None),
        setting.meaning,
    ]


def _code_table(difference: Difference, names: tuple[str, str]) -> list[Node]:
    if difference.identical:
        return [paragraph(f"The machine code of the {difference.kernel} kernel is identical, instruction for instruction.")]
    rows: list[Row] = [
        [change.name, number(value_text(change.before)), number(value_text(change.after)), change.meaning]
        for change in difference.changes
        if change.weight >= MINOR
    ]
    rest = [line for line in difference.lines() if line.startswith((f"{difference.kernel}: minor: ", f"{difference.kernel}: as before: "))]
    caption = f"Machine code of the {difference.kernel} kernel, what counts most first"
    numbers = [table(caption, ["trait", *names, "meaning"], rows), *(paragraph(line, muted=True) for line in rest)]
    return [folded(numbers, f"Machine code of the {difference.kernel} kernel, trait by trait")]


def why(study: Study, reasons: Reasons) -> Html:
    """Why the winner won."""
    winner = "winner" if study.decision is not None and study.decision.tuned else "challenger"
    content: list[Node] = [paragraph(reasons.about)]
    if reasons.settings:
        headings = ["parameter", "default", winner, "gain at default", f"gain at {winner}", "this change alone", "meaning"]
        content.append(
            table("What differs, with the median gain of all points that have each value", headings, map(_setting_row, reasons.settings))
        )
    for difference in reasons.code:
        content += _code_table(difference, ("default", winner))
    content += [paragraph(reasons.note, muted=True)] if reasons.note else []
    heading = "Why the winner won" if winner == "winner" else "What sets the challenger apart"
    return section("why", heading, *content)


def provenance(study: Study) -> Html:
    """The machine, the versions and the key."""
    key, decided = study.key, study.decision
    shapes = study.shapes or ()
    rows: list[Row] = [["study", code(study.name)], ["read from", code(study.source)]]
    if shapes:
        listed = ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes[:12]) + (", ..." if len(shapes) > 12 else "")
        rows.append([f"shapes ({len(shapes)})", listed])
    if key is not None:
        rows += [[name.replace("_", " "), str(value)] for name, value in asdict(key).items()]
    if decided is not None:
        rows += [[f"version of {name}", version] for name, version in decided.versions.items()]
        rounds = max(map(len, decided.samples.values()), default=0)
        told = {"decided on": decided.date, "search": decided.method, "seed": decided.seed, "rounds of the comparison": rounds or None}
        rows += [[name, str(value)] for name, value in told.items() if value not in (None, "")]
    return section("provenance", "Device, versions and key", table("Where the numbers come from", ["what", "value"], rows))
