"""What the document is: when it was made, from how much."""

from __future__ import annotations

from pathlib import Path

import sonew
from sonew_perf.dashboard.content import Content, Row
from sonew_perf.records.model import Problem


def problem_row(problem: Problem) -> Row:
    """A broken file: its name alone, since a page may be sent to others."""
    return {"path": Path(problem.path).name, "reason": problem.reason.replace(problem.path, Path(problem.path).name)}


def meta(content: Content, *, mode: str, generated: str, rule: str | None = None) -> Row:
    """The view `meta`.

    Args:
        content: the store. mode: "server" or "export". generated: ISO date. rule: how an export was thinned.
    """
    used = {machine: sum(run.machine.id == machine for run in content.runs) for machine in content.machines}
    return {
        "mode": mode,
        "generated": generated,
        "version": sonew.__version__,
        "revision": content.revision,
        "runs": len(content.runs),
        "series": len(content.series),
        "comparisons": len(content.comparisons),
        "analysed": {"done": len(content.fresh), "total": len(content.series)},
        "problems": [problem_row(problem) for problem in content.problems],
        "machines": [
            {"id": one.id, "name": one.name, "device": one.device, "type": one.type, "threads": one.threads, "runs": used[one.id]}
            for one in content.machines.values()
        ],
        "rule": rule,
    }
