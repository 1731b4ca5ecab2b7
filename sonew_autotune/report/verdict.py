"""What a study says in one sentence, and in a few numbers."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal

from sonew_autotune.commands.render import config_text
from sonew_autotune.measure import Ratio
from sonew_autotune.report.analysis import best, failed, ordered_config, timed
from sonew_autotune.report.decision import Decision
from sonew_autotune.report.markup import gain_text, ms_text
from sonew_autotune.report.studies import Study
from sonew_autotune.trials.trial import BEST, DEFAULT

Status = Literal["tuned", "default kept", "undecided", "failed"]

MIB = 2**20


def status(study: Study) -> Status:
    """How the study stands."""
    if study.decision is not None:
        return "tuned" if study.decision.tuned else "default kept"
    nothing = study.records and not timed(study.records)
    broken = any(each.record.config == study.default for each in failed(study.records))
    return "failed" if nothing or broken else "undecided"


def gain(study: Study) -> Ratio | None:
    """The gain of what is stored over the default, or before that of the best trial; None where nothing was timed."""
    if study.decision is not None:
        decided = study.decision
        return decided.ratio.inverse() if decided.tuned and decided.ratio is not None else Ratio(1.0, 1.0, 1.0)
    leader = best(study.records)
    return leader.gain if leader is not None else None


def tried_text(study: Study) -> str:
    """How many points were tried."""
    tried = len(study.records)
    return f"{tried} of {study.space} points tried" if study.space else f"{tried} point{'s' if tried != 1 else ''} tried"


def _stop_text(study: Study) -> str:
    decided = study.decision
    why = f"; stopped because {decided.stopped_because}" if decided is not None and decided.stopped_because else ""
    return f"{tried_text(study)}{why}."


def _kept(study: Study, decided: Decision) -> str:
    text = f"The default ({config_text(ordered_config(decided.config, study.axes))}) was kept"
    challenger = decided.challenger
    if challenger is not None and decided.ratio is not None and dict(challenger) != dict(decided.config):
        name = config_text(ordered_config(challenger, study.axes))
        text += f": its best challenger, {name}, reached {gain_text(decided.ratio.inverse())}"
        text += ", whose interval does not lie above 1" if decided.ratio.high >= 1 else ""
    if decided.noisy:
        text += "; the machine was too busy to judge a challenger"
    return text


def verdict(study: Study) -> str:
    """The study in a sentence."""
    decided, leader = study.decision, best(study.records)
    if decided is not None and decided.tuned:
        name = config_text(ordered_config(decided.config, study.axes))
        by = f": {gain_text(decided.ratio.inverse())} the default" if decided.ratio is not None else " was stored as the winner"
        return f"{name}{by}, {_stop_text(study)}"
    if decided is not None:
        return f"{_kept(study, decided)}; {_stop_text(study)}"
    under_way = f" {study.running} trial{'s are' if study.running != 1 else ' is'} under way." if study.running else ""
    if leader is not None:
        name = config_text(ordered_config(leader.record.config, study.axes))
        return f"Nothing is decided yet. Best so far: {name} with {gain_text(leader.gain)} the default, {tried_text(study)}.{under_way}"
    if study.records:
        return f"No candidate could be timed: all {len(study.records)} failed.{under_way}"
    return f"No trial has finished yet.{under_way}"


@dataclass(frozen=True, slots=True)
class Fact:
    """A number with its name and what it means."""

    name: str
    value: str
    about: str = ""


def _decided_facts(decided: Decision) -> list[Fact]:
    samples, found = decided.samples, []
    winner = BEST if decided.tuned else DEFAULT
    if winner in samples:
        beside = f"default {ms_text(statistics.median(samples[DEFAULT]))} ms" if decided.tuned and DEFAULT in samples else "median"
        found.append(Fact("Time of a step", f"{ms_text(statistics.median(samples[winner]))} ms", beside))
    if decided.to_adamw is not None:
        found.append(Fact("Beside fused AdamW", f"{decided.to_adamw.median:.2f}x", "of its time, same rounds"))
    if decided.roof_share is not None:
        found.append(Fact("Roofline share", f"{decided.roof_share:.0%}", "of a copy's bytes per second"))
    if decided.peak_bytes is not None:
        found.append(Fact("Peak memory", f"{decided.peak_bytes / MIB:.1f} MiB", "held by a step"))
    return found


def facts(study: Study) -> list[Fact]:
    """The numbers at the head of a page."""
    decided, reached, failures = study.decision, gain(study), failed(study.records)
    found = []
    if decided is not None and not decided.tuned:
        found.append(Fact("Gain over the default", "1.00x", "default kept"))
    elif reached is not None:
        about = f"95 %: {reached.low:.2f} to {reached.high:.2f}"
        found.append(Fact("Gain over the default", f"{reached.median:.2f}x", about if decided is not None else f"one trial, {about}"))
    found += _decided_facts(decided) if decided is not None else []
    space = f"of {study.space} points" if study.space else ""
    method = f"chosen by {decided.method}" if decided is not None and decided.method else ""
    found.append(Fact("Tried", f"{len(study.records)}", ", ".join(filter(None, (space, method)))))
    kinds = len({each.failure.kind for each in failures})
    found.append(Fact("Failed", f"{len(failures)}", f"of {kinds} kind{'s' if kinds != 1 else ''}" if failures else "candidates"))
    return found
