"""The command that finds the commit behind a change."""

from __future__ import annotations

import shlex
from typing import Final

from sonew.errors import InvalidConfigError
from sonew_perf.records.checks import COMMIT
from sonew_perf.records.model import Run, Series

SHARE: Final = 0.5  # of the change that a commit must show to count as behind it
MOST_PERCENT: Final = 50.0
STATES: Final = {"float32": "float32", "float32, bfloat16 state": "bfloat16"}  # of a series' dtype, the state's
SIDES: Final = {"": "", "tuning=off": "@off", "tuning=pinned": "@pinned"}  # what a side of a comparison says for a variant
STARTS: Final = "sonew-perf --help >/dev/null 2>&1"
STEPS: Final = ("step", "prologue", "direction", "norms", "update")  # a phase is a part of the step, which is what can be compared


def clean_commit(run: Run) -> str:
    """The commit that the run measured; "" where that is unknown: none, or a tree that differed from it."""
    return run.commit if COMMIT.fullmatch(run.commit) and not run.modified else ""


def _selection(series: Series) -> list[str] | None:
    """Options that make `sonew-perf compare` time the series' own case and nothing else; None where it cannot."""
    if series.kernel not in STEPS or series.measure != "time" or series.band is None:
        return None
    if series.dtype not in STATES or series.variant not in SIDES:
        return None
    from sonew_perf.compare.cases import Choice, chosen_cases  # noqa: PLC0415  # it loads torch, which reading a history does without

    state = STATES[series.dtype]
    one = series.workload == "one tensor"
    sizes, models = ((series.elements,), ()) if one else ((), (series.workload,))
    try:
        chosen_cases(Choice(frameworks=(series.framework,), bands=(series.band,), sizes=sizes, models=models, states=(state,)))
    except InvalidConfigError:
        return None
    tensors = ["--size", str(series.elements)] if one else ["--model", series.workload]
    return ["--framework", series.framework, "--band", str(series.band), *tensors, *(["--state", state] if state != "float32" else [])]


def bisect_command(good: str, bad: str, ratio: float, series: Series | None = None) -> str:
    """A line for a POSIX shell, to be run in a checkout without changes of its own.

    `git bisect run` takes 1 for bad, 0 for good, 125 for "cannot tell" and stops at more than 127; `sonew-perf compare` exits with 1 for
    slower, 0 for not slower, 3 for what it cannot judge, 2 for wrong use. A commit whose program does not start is skipped: what Python
    ends with then, 1, is no verdict.

    Args:
        good, bad: commits. ratio: new level over old, above 1.
        series: what became slower; None compares the default cases.

    Returns:
        "" where no commit can be looked for: one of the two is unknown, both are the same, nothing became slower, or the series is
        nothing that `sonew-perf compare` times.
    """
    chosen = [] if series is None else _selection(series)
    if not good or not bad or good == bad or ratio <= 1 or chosen is None:
        return ""
    side = SIDES[series.variant] if series is not None else ""
    percent = f"{min(100 * SHARE * (ratio - 1), MOST_PERCENT):.2g}"
    compare = shlex.join(["sonew-perf", "compare", good + side, "." + side, *chosen, "--tolerance", percent, "--fail-on", percent])
    script = f"{STARTS} || exit 125; {compare}; s=$?; case $s in 0|1) exit $s;; 3) exit 125;; *) exit 255;; esac"
    return f"git bisect start {bad} {good} && git bisect run sh -c {shlex.quote(script)}"
