"""One band tuned as `sonew-autotune run` does it; the winners go where `sonew` finds them."""

from __future__ import annotations

import contextlib
import io
import json
import time
from typing import Final

from sonew_autotune.commands import tuning as commands
from sonew_autotune.settings import Exit, Problems, make_settings
from sonew_perf.gpu.outcome import Outcome
from sonew_perf.gpu.plan import Tune

EFFORT: Final = "normal"


def run_tune(task: Tune, seconds: float) -> Outcome:
    """Tune within the seconds; what is finished is stored, and trials of an unfinished search are kept by the tuner."""
    settings = make_settings(EFFORT, trials=task.trials, budget_s=seconds, seed=0, fresh=False)
    problems = Problems(bands=(task.band,), sizes=task.sizes, models=task.models, states=task.states, device=task.device)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = commands.run(problems, settings, started=time.monotonic(), as_json=True)
    if code is Exit.INTERRUPTED:
        raise KeyboardInterrupt
    entries = json.loads(printed.getvalue())["entries"]
    said = "; ".join(f"{entry['case']}: {entry['result']}" for entry in entries)
    if code is Exit.DONE:
        return Outcome(status="done", reason=said, result={"entries": entries})
    return Outcome(status="failed" if code is Exit.CHECK_FAILED else "unfinished", reason=said, result={"entries": entries})
