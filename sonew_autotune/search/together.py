"""What several processes on one study do once: the final comparison of a problem."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import optuna
from optuna.trial import TrialState

from sonew import tuned
from sonew_autotune.search.storage import Opened, ask

ENTRY: Final = "entry"
SUFFIX: Final = " decision"
POLL_S: Final = 0.2


def decide_once(
    opened: Opened,
    name: str,
    *,
    decide: Callable[[], tuned.Entry | None],
    enough: Callable[[tuned.Entry], bool],
    keep_going: Callable[[], bool],
) -> tuple[tuned.Entry | None, bool]:
    """The entry of a problem: decided here by one process, read by the others.

    The decision is a trial of a study of its own, so that a process that dies while it decides is found out like any other.

    Args:
        opened: the shared storage. name: of the problem's study.
        decide: makes the entry; None where it could not.
        enough: whether an entry that was decided earlier will do.
        keep_going: asked while another process decides; False gives up waiting.

    Returns:
        (the entry or None, whether this process made it).
    """
    study = optuna.create_study(storage=opened.storage, study_name=f"{name}{SUFFIX}", load_if_exists=True)
    while True:
        opened.presence.bury(study, lambda _study, _dead: None)
        trials = study.get_trials(deepcopy=False)
        made = [tuned.parse_entry(trial.user_attrs[ENTRY]) for trial in trials if ENTRY in trial.user_attrs]
        if made and enough(made[-1]):
            return made[-1], False
        if not any(trial.state == TrialState.RUNNING for trial in trials):
            trial = ask(study)
            with opened.presence.working(trial):
                running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
                entry = decide() if trial.number == min(each.number for each in running) else None
                if entry is not None:
                    trial.set_user_attr(ENTRY, entry.as_json())
                study.tell(trial.number, state=TrialState.FAIL)  # a number is not what this trial is for
            if trial.number == min(each.number for each in running):
                return entry, True
        if not keep_going():
            return None, False
        time.sleep(POLL_S)


def decided_entries(opened: Opened) -> list[tuned.Entry]:
    """The latest entry of every problem in a storage."""
    latest = {}
    for name in optuna.get_all_study_names(opened.storage):
        if name.endswith(SUFFIX):
            for trial in optuna.load_study(storage=opened.storage, study_name=name).get_trials(deepcopy=False):
                if ENTRY in trial.user_attrs:
                    latest[name] = tuned.parse_entry(trial.user_attrs[ENTRY])
    return list(latest.values())
