"""Why the winner won: what differs in its configuration and what that did, and on a GPU what differs in the machine code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sonew.errors import SonewError
from sonew_autotune.compiler.difference import Difference, explain_difference, value_text
from sonew_autotune.compiler.kernel import Dtypes, compile_kernel, find_triton
from sonew_autotune.compiler.model import RANKED
from sonew_autotune.report.analysis import Effect, Timed, alone, best, effects, ordered_config
from sonew_autotune.report.studies import Study, tunables
from sonew_autotune.store.evidence import versions

GPU_KERNEL: Final = "triton"
TOLD: Final = 3  # differences of the machine code that the paragraph names


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A parameter that differs.

    Attributes:
        default, winner: what became of the points with each value, None where none was tried.
        alone: the trial that differs from the default in this parameter only.
    """

    name: str
    before: int
    after: int
    meaning: str
    default: Effect | None
    winner: Effect | None
    alone: Timed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """Why one configuration beats another.

    Attributes:
        about: the paragraph.
        settings: the parameters that differ.
        code: the differences of the machine code, a kernel each. note: where the code comes from, or why there is none.
    """

    about: str
    settings: tuple[Setting, ...] = ()
    code: tuple[Difference, ...] = ()
    note: str = ""


def contender(study: Study) -> Mapping[str, int] | None:
    """What is held against the default: the challenger of the final comparison, before there is one the best trial."""
    if study.decision is not None and study.decision.challenger is not None:
        return study.decision.challenger
    leader = best(study.records)
    return leader.record.config if leader is not None else None


def settings_of(study: Study, default: Mapping[str, int], winner: Mapping[str, int]) -> list[Setting]:
    """The parameters that differ, in the order of the space."""
    found = []
    for name, after in ordered_config(winner, study.axes).items():
        before = default.get(name)
        if before is None or before == after:
            continue
        known = {effect.value: effect for effect in effects(study.records, name, (before, after))}
        found.append(
            Setting(
                name=name,
                before=before,
                after=after,
                meaning=tunables(study.kernel).get(name, ""),
                default=known.get(before),
                winner=known.get(after),
                alone=alone(study.records, default, name, after),
            )
        )
    return found


def code_of(study: Study, default: Mapping[str, int], winner: Mapping[str, int]) -> tuple[list[Difference], str]:
    """(the differences of the machine code, a note): both configurations compiled for the study's own target.

    Only kernels whose own parameters differ are compiled; the others are launched in the same way.
    """
    key = study.key
    if key is None or key.kernel != GPU_KERNEL:
        return [], ""
    kernels = [kernel for kernel, names in RANKED.items() if any(default.get(name) != winner.get(name) for name in names)]
    dtypes = Dtypes(key.param_dtype, key.grad_dtype, key.state_dtype, key.direction_dtype)
    found = []
    try:
        find_triton()
        for kernel in kernels:
            before, after = (
                compile_kernel(kernel, config, key.band, key.capability, dtypes=dtypes, chained=key.chain != "tensor")
                for config in (default, winner)
            )
            found.append(explain_difference(before, after))
    except SonewError as error:
        return [], f"The machine code cannot be compared here: {error}"
    return found, f"Compiled here for {key.capability} by triton {versions().get('triton', '')}; the study ran with {key.toolchain}."


def _paragraph(opening: str, settings: list[Setting], code: list[Difference]) -> str:
    named = "; ".join(
        f"{each.name} from {each.before} to {each.after}" + (f" ({each.meaning})" if each.meaning else "") for each in settings
    )
    text = f"{opening} It differs from the default in {named}." if named else opening
    singles = [f"{each.name}={each.after} {each.alone.gain.median:.2f}x" for each in settings if each.alone is not None]
    if singles:
        text += f" Changed alone, with the rest as in the default: {', '.join(singles)}."
    for difference in code:
        changes = "; ".join(
            f"{change.name} from {value_text(change.before)} to {value_text(change.after)} ({change.meaning})"
            for change in difference.changes[:TOLD]
        )
        text += f" In the machine code of the {difference.kernel} kernel, what counts most: {changes}." if changes else ""
    return text


def explain(study: Study, *, compiled: bool = True) -> Reasons:
    """Why the winner won, or why nothing can be said.

    Args:
        study: with its decision. compiled: whether to compile both configurations of a GPU problem.
    """
    default, winner, decided = study.default, contender(study), study.decision
    if default is None or winner is None:
        return Reasons(about="Nothing was timed against a known default, so there is nothing to explain.")
    if dict(winner) == dict(default):
        return Reasons(about="No candidate beat the default, so there is nothing to explain.")
    if decided is None:
        opening = "Nothing is decided yet; here is the best trial."
    elif decided.tuned:
        opening = "The winner was faster than the default in one interleaved run."
    else:
        opening = "The default was kept; here is its best challenger."
    settings = settings_of(study, default, winner)
    code, note = code_of(study, default, winner) if compiled else ([], "")
    return Reasons(about=_paragraph(opening, settings, code), settings=tuple(settings), code=tuple(code), note=note)
