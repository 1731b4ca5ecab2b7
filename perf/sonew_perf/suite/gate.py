"""Correctness before speed: no case of SONew is timed whose results differ from the float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from sonew.errors import InvalidConfigError
from sonew.torch import SONew
from sonew_autotune.problems import Case
from sonew_autotune.trials.check import WrongResultError, check_config
from sonew_perf.gpu.timing import reason_of
from sonew_perf.steps.cases import TimedCase, Wanted
from sonew_perf.steps.workloads import Workload
from sonew_perf.suite.truth import BETAS, DECAY, EPS, EPS_REL, LR, Arrays, Stepper, WrongStepError, check_step

WRONG = "wrong: "  # how the reason of a case begins that did not pass

Check = Callable[[TimedCase], None]


def _plain_stepper(band: int, backend: str, device: torch.device) -> Stepper:
    """Steps of the torch surface, with the numbers of `truth`."""

    def step(params: Arrays, grads: Sequence[Arrays]) -> Arrays:
        own = [torch.tensor(param, device=device) for param in params]
        settings: Mapping[str, float] = {"eps": EPS, "eps_rel": EPS_REL, "weight_decay": DECAY}
        optimizer = SONew(own, lr=LR, betas=BETAS, band=band, backend=backend, **settings)  # type: ignore[arg-type]  # numbers, as their names say
        for every in grads:
            for param, grad in zip(own, every, strict=True):
                param.grad = torch.tensor(grad, device=device)
            optimizer.step()
        return [np.asarray(param.detach().cpu()) for param in own]

    return step


def check_case(case: TimedCase) -> None:
    """Hold what steps a case of SONew to the reference; the case has been stepped once. Other cases pass.

    Every distinct configuration of its plans is checked by `sonew_autotune.trials.check`; a step without a kernel, with float32 state.

    Raises:
        WrongResultError, WrongStepError: it differs.
        Exception: whatever the backend raises.
    """
    if not isinstance(case.optimizer, SONew):
        return
    group = case.optimizer.param_groups[0]
    device, band = group["params"][0].device, group["band"]
    small = Case(
        name="awkward tensors",
        shapes=((1,),),
        device=device.type,
        band=band,
        state_dtype=group["state_dtype"],
        direction_dtype=group["direction_dtype"],
    )
    for backend, config in dict.fromkeys((plan.backend, plan.config) for plan in case.optimizer.plans()):
        if config.kernel:
            check_config(small, backend, config.kernel, config.as_dict())
        else:
            check_step(band, _plain_stepper(band, backend, device))


def ready_cases(
    wanted: Sequence[Wanted], workload: Workload, device: torch.device, *, check: Check = check_case
) -> tuple[list[TimedCase], dict[str, str]]:
    """Build the cases of a workload, step each once and check it.

    Args:
        wanted: the cases. workload: what they step. device: where.
        check: raises for a case that must not be timed.

    Returns:
        (cases that may be timed, reasons of the others by name): one that fails does not stop the others.

    Raises:
        InvalidConfigError: a case that nobody can step.
    """
    ready: list[TimedCase] = []
    reasons: dict[str, str] = {}
    for one in wanted:
        try:
            case = one.build(workload, device)
            case.work()
            check(case)
        except (WrongResultError, WrongStepError) as error:
            reasons[one.name] = f"{WRONG}{error}"
        except InvalidConfigError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this case's result
            reasons[one.name] = reason_of(error)
        else:
            ready.append(case)
    return ready, reasons
