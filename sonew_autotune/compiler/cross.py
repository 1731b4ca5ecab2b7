"""Tuning for a GPU that is not here: compile every candidate, read what it costs, rank by the model of `static.static_rank`."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sonew import tuned
from sonew.config import LaunchConfig
from sonew.errors import InvalidConfigError
from sonew.registry import BACKENDS
from sonew_autotune.compiler.kernel import ALL_FLOAT32, TARGETS, Compiled, Dtypes, compile_kernel, parse_target, static_rank
from sonew_autotune.compiler.resources import Resources
from sonew_autotune.problems import Case
from sonew_autotune.space import Space, available_cores, build_space
from sonew_autotune.store import winners
from sonew_autotune.store.evidence import now, versions
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import classify
from sonew_autotune.trials.worker import Worker
from sonew_kernels.spec import SPECS, source_hash

KERNEL: Final = "triton"
PARTS: Final[Mapping[str, tuple[str, ...]]] = {"direction": ("block", "num_warps"), "update": ("update_block", "update_num_warps")}
COMPILE_SECONDS: Final = 60.0
COMPILERS: Final = 8  # processes at most: each holds torch and a compiler
MODEL_ERROR: Final = 0.15  # a predicted gain below this does not displace the default: the model orders, it does not measure


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """One kernel under one configuration; `part` is what of the configuration the kernel depends on."""

    kernel: str
    config: Mapping[str, int]
    band: int
    target: str
    dtypes: Dtypes

    @property
    def part(self) -> tuple[str, tuple[int, ...]]:
        """The kernel and its own tunables: configurations that agree here share the compiled code."""
        return self.kernel, tuple(self.config[name] for name in PARTS[self.kernel])


Outcome = Compiled | Failure


def answer_compile(request: CompileRequest) -> Outcome:
    """Compile; the stages' text stays behind, only the resources travel."""
    try:
        compiled = compile_kernel(request.kernel, request.config, request.band, request.target, dtypes=request.dtypes)
    except Exception as error:  # noqa: BLE001  # whatever the compiler raises ends this candidate only
        return replace(classify(error), kind="compile")
    return replace(compiled, stages={})


def make_compiler() -> Callable[[CompileRequest], Outcome]:
    """For `worker.Worker`."""
    return answer_compile


def _quiet_compiler() -> Callable[[CompileRequest], Outcome]:
    """For the trial of a target: what the compilers print on their way down says less than the error does."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    return answer_compile


def check_target(target: str, band: int) -> None:
    """Refuse a target that nothing can be compiled for, in a process of its own: for an unknown one, LLVM aborts.

    Raises:
        InvalidConfigError: not of the form of a target, or the compilers reject it.
    """
    parse_target(target)
    if target in TARGETS:
        return
    config, worker = SPECS[KERNEL].default(band), Worker(_quiet_compiler)
    try:
        outcome = worker.answer(
            CompileRequest(kernel="update", config=config, band=band, target=target, dtypes=ALL_FLOAT32), COMPILE_SECONDS
        )
    finally:
        worker.close()
    if isinstance(outcome, Failure):
        reason = outcome.message.replace("the worker process", "the compiler")
        msg = f"target={target!r} cannot be used: {reason}. Use for example one of {list(TARGETS)}: pass --target {TARGETS[1]}."
        raise InvalidConfigError(msg)


def compile_all(
    requests: Sequence[CompileRequest], *, processes: int, deadline: float, told: Callable[[CompileRequest, Outcome], None]
) -> dict[tuple[str, tuple[int, ...]], Outcome]:
    """Compile in parallel, a process per core; one that takes too long is stopped and ends only its own candidate.

    Args:
        requests: compiled in this order.
        processes: how many at once.
        deadline: `time.monotonic()` after which none is begun.
        told: called for each, one at a time.
    """
    waiting: queue.SimpleQueue[CompileRequest] = queue.SimpleQueue()
    for request in requests:
        waiting.put(request)
    outcomes: dict[tuple[str, tuple[int, ...]], Outcome] = {}
    lock, stop = threading.Lock(), threading.Event()
    workers = [Worker(make_compiler) for _ in range(max(1, min(processes, COMPILERS, len(requests))))]

    def serve(worker: Worker) -> None:
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                request = waiting.get_nowait()
            except queue.Empty:
                return
            allowed = min(COMPILE_SECONDS, max(deadline - time.monotonic(), 1.0))
            outcome: Outcome = worker.answer(request, allowed)
            if isinstance(outcome, Failure) and outcome.kind == "timeout" and allowed < COMPILE_SECONDS:
                return  # the budget ended, which says nothing about the candidate
            with lock:
                if not stop.is_set():
                    outcomes[request.part] = outcome
                    told(request, outcome)

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        for worker in workers:
            worker.close()
    return outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A candidate that compiled: the model's clocks per element, and what its kernels take."""

    config: dict[str, int]
    score: float
    resources: Mapping[str, Resources]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticResult:
    """What compiling told of one problem: candidates best first, failures, and the stored entry (None if the default failed)."""

    case: Case
    ranked: tuple[Ranked, ...]
    failures: tuple[tuple[CompileRequest, Failure], ...]
    left_out: int
    default: Ranked | None
    entry: tuned.Entry | None


def _requests(space: Space, case: Case, target: str) -> Iterator[CompileRequest]:
    """Every different kernel of the space, the default's first."""
    seen = set()
    for config in (space.default, *space.points()):
        for kernel in PARTS:
            request = CompileRequest(
                kernel=kernel,
                config=config,
                band=case.band,
                target=target,
                dtypes=Dtypes(case.param_dtype, case.grad_dtype, case.state_dtype, case.direction_dtype),
            )
            if request.part not in seen:
                seen.add(request.part)
                yield request


def rank(space: Space, outcomes: Mapping[tuple[str, tuple[int, ...]], Outcome]) -> list[Ranked]:
    """Every configuration whose kernels all compiled, best first; where the model sees no difference, the nearer to the default."""
    ranked, default = [], space.default
    for config in space.points():
        parts = {kernel: outcomes.get((kernel, tuple(config[name] for name in names))) for kernel, names in PARTS.items()}
        compiled = {kernel: outcome for kernel, outcome in parts.items() if isinstance(outcome, Compiled)}
        if len(compiled) == len(PARTS):
            score = static_rank(compiled, config, space.band)
            ranked.append(Ranked(config=config, score=score, resources={kernel: done.resources for kernel, done in compiled.items()}))
    return sorted(ranked, key=lambda c: (float(f"{c.score:.3g}"), sum(c.config[name] != value for name, value in default.items())))


def _environment(target: str) -> dict[str, str | int]:
    """The key fields of a device that is not here: its capability, and this machine's compiler."""
    module = import_module(next(row.module for row in BACKENDS if row.name == KERNEL))
    toolchain = module.environment()["toolchain"]
    return {"device": tuned.ANY_DEVICE, "capability": target, "threads": 0, "toolchain": toolchain}


def _entry(case: Case, target: str, ranked: Sequence[Ranked], default: Ranked, failed: int) -> tuned.Entry:
    ranked_first = ranked[0].score / default.score
    best = ranked[0] if ranked_first <= 1 - MODEL_ERROR else default
    ratio = best.score / default.score
    key = tuned.make_key(case.problem, KERNEL, _environment(target), source_hash(KERNEL))
    evidence: dict[str, Any] = {
        "result": "ranked first" if best is ranked[0] else "default kept",
        "case": case.name,
        "target": target,
        "model": "sonew_autotune.compiler.kernel.static_rank, clocks per element",
        "score": best.score,
        "default_score": default.score,
        "challenger": {"config": ranked[0].config, "ratio_to_default": ranked_first},
        "ratio_to_default": {"median": ratio, "low": ratio, "high": ratio},
        "resources": {kernel: asdict(used) for kernel, used in best.resources.items()},
        "candidates": len(ranked),
        "failed": failed,
        "versions": versions(),
        "date": now(),
    }
    return tuned.Entry(key=key, kind="static", config=LaunchConfig.of(KERNEL, best.config), evidence=evidence)


def tune_static(
    cases: Sequence[Case],
    target: str,
    *,
    store_path: Path,
    deadline: float,
    told: Callable[[CompileRequest, Outcome], None],
    warn: Callable[[str], None],
    begin: Callable[[Case, int], None],
) -> Iterator[StaticResult]:
    """Rank and store, problem by problem; problems that differ only in size share their compilations.

    Args:
        cases: bands, dtypes and sizes.
        target: "cuda:90", "hip:gfx942" and the like.
        store_path: where entries go. deadline: `time.monotonic()` after which nothing is begun.
        told: each compilation. warn: what the user must know. begin: a problem and its number of compilations.
    """
    parse_target(target)
    known: dict[tuple[int, str, str], dict[tuple[str, tuple[int, ...]], Outcome]] = {}
    for case in cases:
        space = build_space(KERNEL, case.band, threads=0)
        requests = list(_requests(space, case, target))
        method = (case.band, case.param_dtype, case.grad_dtype)
        if method not in known:
            begin(case, len(requests))
            known[method] = compile_all(requests, processes=available_cores(), deadline=deadline, told=told)
        outcomes = known[method]
        ranked = rank(space, outcomes)
        default = next((candidate for candidate in ranked if candidate.config == SPECS[KERNEL].default(case.band)), None)
        by_part = {request.part: request for request in requests}
        failures = tuple((by_part[part], outcome) for part, outcome in outcomes.items() if isinstance(outcome, Failure))
        entry = _entry(case, target, ranked, default, len(failures)) if default is not None else None
        if entry is not None:
            winners.save(store_path, entry, warn=warn)
        left_out = len(requests) - len(outcomes)
        yield StaticResult(case=case, ranked=tuple(ranked), failures=failures, left_out=left_out, default=default, entry=entry)
