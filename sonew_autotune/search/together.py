"""What several processes on one study do once: the final comparison of a problem."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from sonew import tuned
from sonew_autotune.search.presence import Opened, ask, end_trial

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
            elected, entry = _stand(opened, study, decide)
            if elected:
                return entry, True
        if not keep_going():
            return None, False
        time.sleep(POLL_S)


def _stand(opened: Opened, study: optuna.Study, decide: Callable[[], tuned.Entry | None]) -> tuple[bool, tuned.Entry | None]:
    """Of the processes that ask at once the first one decides: (whether it is this one, its entry)."""
    trial = ask(study)
    try:
        with opened.presence.working(trial):
            running = [each.number for each in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
            if trial.number != min(running, default=None):
                return False, None
            entry = decide()
            if entry is not None:
                _publish(study, trial, entry)
            return True, entry
    except UpdateFinishedTrialError:  # it was taken for dead before it could sign
        return False, None
    finally:
        end_trial(study, trial.number)  # a number is not what this trial is for


def _publish(study: optuna.Study, trial: optuna.Trial, entry: tuned.Entry) -> None:
    try:
        trial.set_user_attr(ENTRY, entry.as_json())
    except UpdateFinishedTrialError:  # this process slept so long that it was taken for dead: its entry is sound all the same
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={ENTRY: entry.as_json()}))


def decided_entries(opened: Opened) -> list[tuned.Entry]:
    """The latest entry of every problem in a storage."""
    latest = {}
    for name in optuna.get_all_study_names(opened.storage):
        if name.endswith(SUFFIX):
            for trial in optuna.load_study(storage=opened.storage, study_name=name).get_trials(deepcopy=False):
                if ENTRY in trial.user_attrs:
                    latest[name] = tuned.parse_entry(trial.user_attrs[ENTRY])
    return list(latest.values())
