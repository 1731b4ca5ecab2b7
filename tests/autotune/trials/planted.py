"""An evaluator in which some candidates are planted to fail, each in its own way. Runs in the worker process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Final
from unittest import mock

import torch

from sonew.dispatch import step
from sonew_autotune.trials import trial
from sonew_autotune.trials.check import check_config
from sonew_autotune.trials.trial import Evaluator, Outcome, Request, TrialRequest

HANGS: Final = {"segment": 4096, "block": 256, "threads": 1}
CRASHES: Final = {"segment": 4096, "block": 512, "threads": 1}
WRONG: Final = {"segment": 16384, "block": 256, "threads": 1}
HUNGRY: Final = {"segment": 16384, "block": 512, "threads": 1}
KINDS: Final[Mapping[str, dict[str, int]]] = {"timeout": HANGS, "crash": CRASHES, "wrong": WRONG, "memory": HUNGRY}


def _halved(check: Callable[..., None]) -> Callable[..., None]:
    """The real check of a step that writes half of what it should."""

    def spoil(group: object) -> None:
        step(group)  # type: ignore[arg-type]
        for leaf in group.table.leaves:  # type: ignore[attr-defined]
            leaf.param.mul_(0.5)

    def checked(*arguments: object, **named: object) -> None:
        with mock.patch("sonew_autotune.trials.check.step", spoil):
            check(*arguments, **named)

    return checked


def _swallow(*_arguments: object, **_named: object) -> torch.Tensor:
    """More than any machine has."""
    return torch.empty(2**62, dtype=torch.uint8)


def make_planted() -> Callable[[Request], Outcome]:
    """For `worker.Worker`."""
    evaluator = Evaluator()
    evaluator_answer = evaluator.answer

    def answer(request: Request) -> Outcome:
        config = dict(request.config) if isinstance(request, TrialRequest) else None
        if config == HANGS:
            time.sleep(600)
        if config == CRASHES:
            os.kill(os.getpid(), signal.SIGSEGV)
        if config == HUNGRY:
            with mock.patch.object(trial, "build_group", _swallow):
                return evaluator_answer(request)
        if config == WRONG:
            with mock.patch.object(trial, "check_config", _halved(check_config)):
                return evaluator_answer(request)
        return evaluator_answer(request)

    return answer
