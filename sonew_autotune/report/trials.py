"""Sections of a study's page about its trials: history, failures, roofline share, and every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sonew_autotune.commands.render import config_text
from sonew_autotune.report import figures
from sonew_autotune.report.analysis import Failed, Timed, best, failed, failure_counts, ordered_config, running_best, timed
from sonew_autotune.report.document import Charts
from sonew_autotune.report.markup import (
    Cell,
    Html,
    Row,
    code,
    element,
    folded,
    gain_cell,
    gain_text,
    ms_text,
    number,
    paragraph,
    section,
    table,
)
from sonew_autotune.report.studies import Study
from sonew_autotune.search.results import Record
from sonew_autotune.search.stopping import ROOF, ROOF_BYTES
from sonew_autotune.trials.outcome import MEANINGS

MIB: Final = 2**20


def history(study: Study, charts: Charts) -> Html:
    """Every trial in its turn."""
    trials, failures = timed(study.records), failed(study.records)
    if not study.records:
        return section("history", "History", paragraph("No trial has finished yet."))
    leader = best(study.records)
    says = f"{len(trials)} trials were timed, {len(failures)} failed."
    says += f" The best was trial {leader.number} with {leader.gain.median:.2f} times the default's pace." if leader is not None else ""
    text = "The dotted line is the default. A hollow dot was given up early because it lost to the best so far."
    return section(
        "history",
        "History",
        paragraph(says, " ", text),
        charts.add(figures.history(trials, failures), says),
        folded(_history_table(study, trials)),
    )


def failures(study: Study, charts: Charts) -> Html:
    """What could not be timed, by reason."""
    found, heading = failed(study.records), "Failures by reason"
    if not found:
        return section("failures", heading, paragraph("No candidate failed."))
    counts = failure_counts(found)
    says = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    kinds: list[Row] = [[kind, number(f"{count}"), _meaning(kind)] for kind, count in counts.items()]
    return section(
        "failures",
        heading,
        paragraph(f"{len(found)} of {len(study.records)} candidates were not timed. A failure ends its trial only."),
        charts.add(figures.failures(counts), f"Failures by kind: {says}."),
        folded(table("Kinds of failure", ["kind", "candidates", "meaning"], kinds)),
        folded(_messages(study, found), "Every failure with its message"),
    )


def _meaning(kind: str) -> str:
    return next((text for known, text in MEANINGS.items() if known == kind), "a kind of another version")


def _messages(study: Study, found: Sequence[Failed]) -> Html:
    rows: list[Row] = [
        [
            Cell(f"{each.number}", each.number),
            str(each.failure.kind),
            code(config_text(ordered_config(each.record.config, study.axes))),
            element("div", code(each.failure.message), class_="message"),
        ]
        for each in found
    ]
    return table("Messages", ["trial", "kind", "configuration", "message"], rows)


def roof(study: Study, charts: Charts) -> Html:
    """How near each trial came to the memory system's own pace."""
    heading = "Roofline share"
    known = [trial for trial in timed(study.records) if trial.record.roof_share is not None]
    if not known:
        return section("roof", heading, paragraph("No trial was timed beside a copy."))
    shares = [trial.record.roof_share or 0.0 for trial in known]
    text = (
        "Bytes per second of a step, counted as the fewest that must move, over those of a copy in the same rounds. "
        f"A search ends where a trial reaches {ROOF:.0%} (the dotted line)."
    )
    moved = study.decision.bytes_moved if study.decision is not None else None
    if moved is not None and moved < ROOF_BYTES:
        text += f" Not here: a step of this problem moves {moved / MIB:.1f} MiB, and below {ROOF_BYTES / MIB:.0f} MiB a copy is no roof."
    says = f"The shares lie between {min(shares):.0%} and {max(shares):.0%} of a copy's pace."
    rows: list[Row] = [
        [Cell(f"{trial.number}", trial.number), code(_config(study, trial)), number(f"{share:.1%}", share)]
        for trial, share in zip(known, shares, strict=True)
    ]
    numbers = folded(table("Roofline share of each trial", ["trial", "configuration", "share"], rows))
    return section("roof", heading, paragraph(text), charts.add(figures.roof(known), says), numbers)


def _outcome(record: Record) -> str:
    if record.failure is not None:
        return f"failed: {record.failure.kind}"
    return "given up early" if record.pruned else "timed"


def _history_table(study: Study, reached: Sequence[Timed]) -> Html:
    so_far = dict(zip((trial.number for trial in reached), running_best(reached), strict=True))
    gains = {trial.number: trial.gain for trial in reached}
    rows: list[Row] = [
        [
            Cell(f"{place}", place),
            number(gain_text(gains[place]), gains[place].median) if place in gains else number("-"),
            gain_cell(so_far.get(place)),
            _outcome(record),
        ]
        for place, record in enumerate(study.records, 1)
    ]
    return table("Gain of every trial, in the order they finished", ["trial", "gain (95 %)", "best so far", "outcome"], rows)


def _trial_row(place: int, record: Record, names: Sequence[str]) -> Row:
    gain, share = record.ratio.inverse() if record.ratio is not None else None, record.roof_share
    return [
        Cell(f"{place}", place),
        *(number(str(record.config.get(name, "-")), record.config.get(name)) for name in names),
        element("span", _outcome(record), class_="whole"),
        number(gain_text(gain), gain.median) if gain is not None else number("-"),
        *(number(ms_text(time), time) if time is not None else number("-") for time in (record.median_ms, record.default_ms)),
        number(f"{share:.0%}", share) if share is not None else number("-"),
        number(f"{len(record.times_ms)}", len(record.times_ms)),
        number(f"{record.seconds:.1f}", record.seconds),
    ]


def trials(study: Study) -> Html:
    """Every trial."""
    if not study.records:
        return section("trials", "Every trial", paragraph("No trial has finished yet."))
    text = "A click on a heading sorts. Gain is the default's time over the candidate's in the same rounds, with its 95 % interval."
    names = [name for name, _ in study.axes]
    headings = ["trial", *names, "outcome", "gain (95 %)", "time ms", "default ms", "roofline", "rounds", "took s"]
    rows = [_trial_row(place, record, names) for place, record in enumerate(study.records, 1)]
    return section("trials", "Every trial", paragraph(text), table(f"{len(rows)} trials", headings, rows, sortable=True))


def _config(study: Study, trial: Timed) -> str:
    return config_text(ordered_config(trial.record.config, study.axes))
