"""Several processes, one plan: the first to ask decides, and on each machine one compiles while the others wait.

What is agreed travels through the key-value store that torch.distributed holds anyway, so nobody must take part, and a process that
steps alone waits for nobody. Without a process group nothing happens here.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist

from sonew.config import LaunchConfig, Plan, Problem
from sonew.errors import BackendUnavailableError

Store = Any  # torch.distributed.Store, which torch does not declare


def _store() -> Store | None:
    """The store of the default process group, None where there is nobody to agree with."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1 or dist.get_backend() == "fake":
        return None
    return dist.PrefixStore("sonew", dist.distributed_c10d._get_default_store())  # type: ignore[attr-defined]  # noqa: SLF001  # no public name


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _device_name(problem: Problem) -> str:
    return torch.cuda.get_device_name() if problem.device == "cuda" else problem.device


def _first(store: Store, key: str) -> bool:
    return bool(store.add(f"{key}/asked", 1) == 1)


def _wait(store: Store, key: str, what: str) -> bytes:
    try:
        store.wait([key])
        answer: bytes = store.get(key)
    except RuntimeError as error:
        msg = f"another process was to {what} and has not: {error}. Look for its error, or raise the timeout of init_process_group."
        raise BackendUnavailableError(msg) from error
    return answer


def agree(problem: Problem, backend: str, tuning: str, make: Callable[[], Plan]) -> Plan:
    """The plan that all processes use for this problem: of the process that asks first. An error stays as long as the group, too.

    Args:
        problem: in sizes that all processes share.
        backend, tuning: as asked for.
        make: makes a plan here.

    Raises:
        BackendUnavailableError: `make` failed in the process that decides, or that process is gone. Where `make` runs, its own error.
    """
    store = _store()
    if store is None:
        return make()
    key = f"plan/{_digest(asdict(problem), backend, tuning, _device_name(problem))}"
    if _first(store, key):
        try:
            plan = make()
        except BaseException as error:  # others must not wait for it
            store.set(key, json.dumps({"error": f"{type(error).__name__}: {error}"}))
            raise
        chosen = {"kernel": plan.config.kernel, "meta": plan.config.as_dict()}
        store.set(key, json.dumps({"backend": plan.backend, "config": chosen, "provenance": plan.provenance}))
        return plan
    answer = json.loads(_wait(store, key, "plan a launch group"))
    if "error" in answer:
        raise BackendUnavailableError(answer["error"])
    config = LaunchConfig.of(answer["config"]["kernel"], answer["config"]["meta"])
    return Plan(problem=problem, backend=answer["backend"], config=config, provenance=answer["provenance"])


def in_turn(plan: Plan, compile_step: Callable[[], None]) -> None:
    """Compile: first in one process of this machine, then, from its cache, in the others."""
    store = _store()
    if store is None:
        return
    key = f"compiled/{socket.gethostname()}/{_digest(asdict(plan.problem), plan.backend, plan.config.meta, _device_name(plan.problem))}"
    if _first(store, key):
        try:
            compile_step()
        finally:
            store.set(key, "done")
        return
    _wait(store, key, "compile a step")
    compile_step()
