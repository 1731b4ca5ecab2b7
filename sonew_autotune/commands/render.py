"""Results as tables for people and as documents for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from sonew.tuned import SCHEMA_VERSION, Entry, Verdict, type_names
from sonew_autotune.measure import Ratio

if TYPE_CHECKING:  # it loads torch, which `doctor` must do without
    from sonew_autotune.search.results import Result

PLAIN_WIDTH: Final = 160  # of tables that go to a file or a pipe: nothing is cut
MIB: Final = 2**20


def make_console(*, stderr: bool = False) -> Console:
    """A console that does not wrap tables when nobody watches."""
    console = Console(stderr=stderr, highlight=False, emoji=False)  # "cuda:100:" is no emoji
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, emoji=False, width=PLAIN_WIDTH)


def document(entries: Sequence[Mapping[str, Any]]) -> str:
    """The JSON form of every command's answer."""
    return json.dumps({"schema_version": SCHEMA_VERSION, "entries": list(entries)}, indent=1, allow_nan=False)


def config_text(config: Mapping[str, int]) -> str:
    """A configuration in one line."""
    return " ".join(f"{name}={value}" for name, value in config.items())


def _times(ratio: Mapping[str, float] | Ratio) -> str:
    """A speed-up with its interval, from a ratio of times."""
    taken = ratio if isinstance(ratio, Ratio) else Ratio(**ratio)
    gain = taken.inverse()
    return f"{gain.median:.2f}x ({gain.low:.2f}-{gain.high:.2f})"


def _row(result: Result) -> list[str]:
    case = result.case
    problem = f"band {case.band}, {case.name}, {type_names(case.problem)}"
    try:
        return [problem, *_numbers(result)]
    except (ArithmeticError, KeyError, TypeError, ValueError):  # a stored entry's evidence may lack anything
        return [problem, *["-"] * 6, result.status]


def _numbers(result: Result) -> list[str]:
    """The cells that come from the entry's evidence."""
    if result.entry is None or result.entry.kind != "measured":
        return [*["-"] * 6, result.status]
    evidence = result.entry.evidence
    samples, tuned = evidence["samples"], evidence["result"] == "tuned"
    status = f"{result.status} ({evidence['result']})" if result.status == "reused" else result.status
    return [
        f"{samples['default']['median_ms']:.3f}",
        f"{evidence['median_ms']:.3f}",
        _times(evidence["ratio_to_default"]) if tuned else "1.00x",
        f"{evidence['ratio_to_adamw']['median']:.2f}",
        f"{evidence['roof_share']:.0%}",
        f"{evidence['peak_bytes'] / MIB:.1f}",
        f"{status}, {evidence['trials']} of {evidence['space']} tried",
    ]


def results_table(results: Sequence[Result]) -> Table:
    """The table at the end of a run."""
    table = Table(title="SONew step, tuned", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("problem", min_width=6, overflow="fold")
    widths = {"default ms": 7, "best ms": 7, "gain (95 %)": 11, "x fused AdamW": 5, "of copy roof": 5, "peak MiB": 5}
    for heading, width in widths.items():
        table.add_column(heading, justify="right", min_width=width)
    table.add_column("result", min_width=9)
    for result in results:
        table.add_row(*_row(result))
    return table


def result_json(result: Result) -> dict[str, Any]:
    """One problem's result as it stands in `run --json`."""
    failures = [{"config": r.config, **asdict(r.failure)} for r in result.failures if r.failure is not None]
    return {
        "problem": asdict(result.case.problem),
        "case": result.case.name,
        "result": result.status,
        "note": result.note,
        "stored": result.entry.as_json() if result.entry is not None else None,
        "failures": failures,
    }


def evidence_text(entry: Entry) -> str:
    """What an entry rests on, in a few words; evidence of others may lack anything."""
    evidence = entry.evidence
    try:
        if entry.kind == "static":
            gain = 1 / evidence["ratio_to_default"]["median"]
            return f"{evidence['result']} of {evidence['candidates']} compiled, model {gain:.2f}x"
        gain = _times(evidence["ratio_to_default"]) if evidence["result"] == "tuned" else "default kept"
        return f"{evidence['median_ms']:.3f} ms, {gain}, {evidence['trials']} trials"
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return entry.kind


def verdict_json(verdict: Verdict, *, used: bool) -> dict[str, Any]:
    """A stored entry with the reasons for and against it, as it stands in `explain --json`."""
    return {"store": verdict.store, "used": used, "reasons": list(verdict.reasons), "distance": verdict.distance, **verdict.entry.as_json()}
