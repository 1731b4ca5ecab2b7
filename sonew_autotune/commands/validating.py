"""`validate-model`: the static model beside recorded times, target by target, or the plain word that there are none."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import typer
from rich.table import Table

from sonew import paths, tuned
from sonew.dispatch import shipped_store_paths
from sonew_autotune.commands.compile_progress import CompileReport
from sonew_autotune.commands.render import config_text, document, make_console
from sonew_autotune.compiler.candidates import KERNEL, Ranked, choose, environment, prune, rank
from sonew_autotune.compiler.cross import Compilers, check_target, requests_of
from sonew_autotune.compiler.kernel import Dtypes
from sonew_autotune.compiler.targets import TARGETS
from sonew_autotune.compiler.validation import Config, Correlation, Pair, Validation, config_key, correlations, validate
from sonew_autotune.settings import Exit
from sonew_autotune.space import build_space
from sonew_autotune.trials.landscape import Landscape, read_landscapes
from sonew_kernels.spec import SPECS, source_hash

COMPILE_SECONDS: Final = 3600.0  # for everything; a problem's whole space takes minutes
NO_DATA: Final = "no measured data: run `sonew-autotune run --record FILE` on such a GPU, then pass --landscape FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One target: landscapes with what the model is worth there, pairs of stored entries, and what could not be used."""

    target: str
    landscapes: list[tuple[str, Validation]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def of_pairs(self) -> tuple[Correlation, Correlation] | None:
        """Correlations of predicted and measured gains over the stored entries."""
        return correlations([pair.predicted for pair in self.pairs], [pair.measured for pair in self.pairs])

    @property
    def validated(self) -> bool:
        """Whether some recorded order could be compared with the model's."""
        return any(found.spearman is not None for _, found in self.landscapes) or self.of_pairs is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """Recorded times under one key: a landscape, or a stored entry's challenger and default."""

    title: str
    key: tuned.Key
    default: Mapping[str, int]
    ratios: Mapping[Config, float]
    is_landscape: bool

    @property
    def method(self) -> tuple[str, int, Dtypes]:
        """What the model's scores depend on."""
        key = self.key
        return key.capability, key.band, Dtypes(key.param_dtype, key.grad_dtype, key.state_dtype, key.direction_dtype)


def _from_landscape(landscape: Landscape, path: Path) -> _Subject:
    ratios = {config_key(record.config): record.ratio for record in landscape.records}
    title = f"{path.name}: band {landscape.key.band}, {landscape.case.name}, {tuned.type_names(landscape.key)}"
    return _Subject(title=title, key=landscape.key, default=landscape.default, ratios=ratios, is_landscape=True)


def _from_entry(entry: tuned.Entry, store: str) -> _Subject | None:
    """The challenger of a measured entry beside the default; None where there was none, or the evidence is another's."""
    default = SPECS[KERNEL].default(entry.key.band)
    try:
        challenger = entry.evidence["challenger"]
        ratios = {config_key(default): 1.0, config_key(challenger["config"]): float(challenger["ratio_to_default"]["median"])}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    title = f"{store}: band {entry.key.band}, {tuned.type_names(entry.key)}"
    return _Subject(title=title, key=entry.key, default=default, ratios=ratios, is_landscape=False) if len(ratios) == 2 else None


def _recorded(landscapes: Sequence[Path]) -> Iterator[_Subject]:
    """Everything measured on a GPU that is known here."""
    for path in landscapes:
        yield from (_from_landscape(landscape, path) for landscape in read_landscapes(path) if landscape.key.kernel == KERNEL)
    stores = [("user store", paths.store_path()), *(("shipped store", path) for path in shipped_store_paths())]
    for name, path in stores:
        measured = (entry for entry in tuned.read_store(name, path).entries if entry.kind == "measured" and entry.key.kernel == KERNEL)
        yield from (subject for entry in measured if (subject := _from_entry(entry, name)) is not None)


def _stale(key: tuned.Key) -> str | None:
    """Why a recording says nothing of the model as it scores here, or None: other kernels, or another compiler, give other machine code."""
    here = {"source_hash": source_hash(KERNEL), "toolchain": environment(key.capability)["toolchain"]}
    stale = [f"{name} is {getattr(key, name)!r}, here {value!r}" for name, value in here.items() if getattr(key, name) != value]
    return "; ".join(stale) or None


def _judge(judged: Judged, subject: _Subject, ranked: Sequence[Ranked], pruned: frozenset[Config]) -> None:
    recorded = [candidate for candidate in ranked if config_key(candidate.config) in subject.ratios]
    scores = {config_key(candidate.config): candidate.score for candidate in recorded}
    default = next((candidate for candidate in recorded if candidate.config == subject.default), None)
    kept = choose(recorded, default).config if default is not None else subject.default
    found = validate(subject.ratios, scores, pruned, default=subject.default, kept=kept)
    if found is None:
        judged.skipped.append(f"{subject.title}: the default or every other configuration lacks a time or a score")
    elif subject.is_landscape:
        judged.landscapes.append((subject.title, found))
    else:
        usual = config_key(subject.default)
        other = next(config for config in subject.ratios if config != usual)
        judged.pairs.append(Pair(measured=subject.ratios[other], predicted=scores[other] / scores[usual]))


def _judge_all(judged: Mapping[str, Judged], subjects: Sequence[_Subject], report: CompileReport) -> None:
    """Compile what the recorded configurations need, once per method, and compare."""
    ordered = sorted(subjects, key=lambda subject: subject.method)
    deadline = time.monotonic() + COMPILE_SECONDS
    with report, Compilers() as compilers:
        for (target, band, dtypes), group in groupby(ordered, key=lambda subject: subject.method):
            members = list(group)
            space = build_space(KERNEL, band, threads=0)
            configs = [dict(config) for member in members for config in member.ratios if dict(config) in space]
            requests = requests_of(space, dtypes, target, configs)
            report.begin(f"{target} band {band}", len(requests))
            done = compilers.compile(requests, deadline=deadline, told=report.told)
            outcomes = {request.part: done[request.code] for request in requests if request.code in done}
            ranked, out = rank(space, outcomes, dtypes), prune(outcomes)
            lost = frozenset(config_key(config) for config in configs for kernel in out if kernel.config.items() <= config.items())
            for member in members:
                _judge(judged[target], member, ranked, lost)


def validate_model(target: str | None, landscapes: Sequence[Path], *, as_json: bool) -> Exit:
    """Compare the model with what was measured; every target that is asked for must have something, else exit code 3."""
    if target is not None:
        check_target(target, 1)
    targets = TARGETS if target is None else (target,)
    judged = {name: Judged(target=name) for name in targets}
    usable = []
    for subject in _recorded(landscapes):
        if subject.key.capability not in judged:
            continue
        if reason := _stale(subject.key):
            judged[subject.key.capability].skipped.append(f"{subject.title}: stale: {reason}")
        else:
            usable.append(subject)
    if usable:
        _judge_all(judged, usable, CompileReport(make_console(stderr=True)))
    if as_json:
        typer.echo(document([_json(found) for found in judged.values()]))
    else:
        _show(list(judged.values()))
    return Exit.DONE if all(found.validated for found in judged.values()) else Exit.NOT_JUDGED


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _json(judged: Judged) -> dict[str, Any]:
    pairs = judged.of_pairs
    landscapes = [{"data": title, **asdict(found)} for title, found in judged.landscapes]
    for entry in landscapes:
        entry.update({name: _finite(entry[name]) for name in ("first_regret", "kept_regret")})  # null: it failed
    return {
        "target": judged.target,
        "status": "validated" if judged.validated else "not validated",
        "landscapes": landscapes,
        "stored": {
            "entries": len(judged.pairs),
            "same_one_in_front": sum(pair.agrees for pair in judged.pairs),
            "spearman": asdict(pairs[0]) if pairs else None,
            "kendall": asdict(pairs[1]) if pairs else None,
        },
        "skipped": judged.skipped,
    }


def _correlation_text(found: Correlation | None) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}), p {found.p_value:.1g}" if found else "-"


def _table(judged: Sequence[Judged]) -> Table:
    table = Table(title="Static model beside recorded times", title_justify="left")
    regrets = tuple(f"{name}: over the best" for name in ("first choice", "kept", "default", "median", "best pruned"))
    for heading in ("target", "data", "configurations", "Spearman (95 %)", "Kendall (95 %)", *regrets):
        table.add_column(heading)
    for found in judged:
        for title, one in found.landscapes:
            numbers = (one.first_regret, one.kept_regret, one.default_regret, one.median_regret, one.pruned_regret)
            cells = [f"{number:+.1%}" if _finite(number) is not None else "-" for number in numbers]
            counts = f"{one.measured} timed, {one.failed} failed, {one.pruned} pruned"
            table.add_row(found.target, title, counts, _correlation_text(one.spearman), _correlation_text(one.kendall), *cells)
        if pairs := found.of_pairs:
            counts = f"{len(found.pairs)} entries, the same one in front in {sum(pair.agrees for pair in found.pairs)}"
            table.add_row(found.target, "stored entries", counts, _correlation_text(pairs[0]), _correlation_text(pairs[1]), *["-"] * 5)
    return table


def _show(judged: Sequence[Judged]) -> None:
    console = make_console()
    if any(found.validated for found in judged):
        console.print(_table(judged))
    for found in judged:
        for title, one in found.landscapes:
            console.print(f"{found.target}, {title}: the model's first choice is {config_text(one.first)}", soft_wrap=True)
        for line in found.skipped:
            console.print(f"{found.target}: not used: {line}", markup=False, soft_wrap=True)
        if not found.validated:
            few = f"only {len(found.landscapes)} landscapes and {len(found.pairs)} stored entries, too few to compare an order"
            reason = few if found.landscapes or found.pairs else NO_DATA
            console.print(f"{found.target}: not validated ({reason})", markup=False, soft_wrap=True)
