"""Compiling in the background: candidates are compiled while another is timed, and a compiler that hangs costs one candidate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from sonew.backends.triton_torch import StepGroup
from sonew_autotune.compiler.warm import warm
from sonew_autotune.problems import Case
from sonew_autotune.search.opening import open_search
from sonew_autotune.search.plan import Plan
from sonew_autotune.space import build_space
from sonew_autotune.trials.ahead import CompileAhead, CompileRequest, answer_compile, launch_of
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import Timed
from sonew_autotune.trials.worker import Worker
from sonew_kernels.spec import SPECS
from tests.autotune.samples import timed

CASE = Case(name="5000", shapes=((5000,),), device="cuda", band=1)
DEFAULT = SPECS["triton"].default(1)


def make_moody() -> Callable[[CompileRequest], Failure | None]:
    """Hangs at blocks of 4096, dies at 2048, refuses 128."""

    def answer(request: CompileRequest) -> Failure | None:
        block = dict(request.launch.config.meta)["block"]
        if block == 4096:
            time.sleep(600)
        if block == 2048:
            raise SystemExit(3)
        return Failure("compile", "ptxas: too much") if block == 128 else None

    return answer


def make_looker() -> Callable[[CompileRequest], list[tuple[str, bool]]]:
    """Says what the cache has of a candidate's kernels, in a fresh process as the one that times."""

    def answer(request: CompileRequest) -> list[tuple[str, bool]]:
        return [(warmed.kernel, warmed.hit) for warmed in warm([request.launch], request.target, lambda _: None)]

    return answer


def _request(**config: int) -> CompileRequest:
    return CompileRequest(launch=launch_of(CASE, "triton", {**DEFAULT, **config}), target="cuda:90")


@contextmanager
def _closing(ahead: CompileAhead) -> Iterator[CompileAhead]:
    try:
        yield ahead
    finally:
        ahead.close()


def test_each_compiler_failure_is_typed_and_the_next_candidate_compiles() -> None:
    with _closing(CompileAhead(5.0, processes=1, make_answer=make_moody)) as ahead:
        fine, refused, died, hung, after = (ahead.submit(_request(block=block)) for block in (1024, 128, 2048, 4096, 512))
        assert fine.result() is None
        assert refused.result() == Failure("compile", "ptxas: too much")
        assert died.result() is None  # killed for memory, say: the candidate is judged where it is timed
        assert hung.result() == Failure("compile timeout", "not compiled after 5 s, the compiler was stopped")
        assert after.result() is None


def test_a_cache_that_cannot_be_used_is_not_the_candidates_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").touch()
    assert answer_compile(_request()) is None
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITON_ALWAYS_COMPILE", "1")
    assert answer_compile(_request()) is None


@pytest.mark.parametrize(
    ("error", "kind"), [(OSError(28, "No space left on device"), None), (MemoryError(), None), (RuntimeError("ptxas: too much"), "compile")]
)
def test_only_what_the_compiler_refuses_is_the_candidates_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str | None
) -> None:
    def fails(_group: object) -> None:
        raise error

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for phase in ("prologue", "direction", "norms", "update"):
        monkeypatch.setattr(StepGroup, phase, fails)
    failure = answer_compile(_request())
    assert (failure and failure.kind) == kind
    assert failure is None or "ptxas: too much" in failure.message


def test_closing_ends_the_threads_whatever_they_wait_for() -> None:
    ahead = CompileAhead(60.0, processes=2, make_answer=make_moody)
    hung = [ahead.submit(_request(block=4096)) for _ in range(3)]
    time.sleep(0.3)
    start = time.monotonic()
    ahead.close()
    assert time.monotonic() - start < 20
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("compile")] == []
    assert [future.cancelled() for future in hung] == [False, False, True]
    assert hung[0].result() is None


def test_what_was_compiled_ahead_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    request = _request()
    with _closing(CompileAhead(120.0, processes=1)) as ahead:
        assert ahead.submit(request).result() is None
    worker = Worker(make_looker)  # a process of its own: Triton's hash of a kernel depends on what the process hashed before
    try:
        found = worker.answer(request, 60)
    finally:
        worker.close()
    assert {kernel for kernel, _ in found} == {"prologue", "direction", "norms", "update"}
    assert [kernel for kernel, hit in found if not hit] == []


class Compilers:
    """Compilations of which one ends with each timing, and how many were under way during each."""

    def __init__(self) -> None:
        self.open: list[Future[Failure | None]] = []
        self.under_way: list[int] = []

    def prepare(self, config: dict[str, int]) -> Future[Failure | None]:
        future: Future[Failure | None] = Future()
        if config["block"] == 128:
            future.set_result(Failure("compile", "no"))
        elif not self.open:
            future.set_result(None)
        self.open.append(future)
        return future

    def evaluate(self, config: dict[str, int]) -> Timed | Failure:
        assert config["block"] != 128
        pending = [future for future in self.open if not future.done()]
        self.under_way.append(len(pending))
        if pending:
            pending[0].set_result(None)
        return timed(1.0)


def test_candidates_are_compiled_while_one_is_timed(tmp_path: Path) -> None:
    compilers = Compilers()
    with open_search(tmp_path, "s", build_space("triton", 1, threads=0), Plan(trials=24)) as search:
        search.run(compilers.evaluate, prepare=compilers.prepare, ahead=3)
        records = search.records
    assert len(records) == 24
    assert max(compilers.under_way) == 3
    broken = [record for record in records if record.config["block"] == 128]
    assert broken
    assert all(record.failure == Failure("compile", "no") for record in broken)


def test_nothing_is_compiled_ahead_where_the_cpu_is_timed(tmp_path: Path) -> None:
    compilers = Compilers()
    with open_search(tmp_path, "s", build_space("cpu", 1, threads=2, cores=2), Plan(trials=5)) as search:
        search.run(compilers.evaluate)
    assert compilers.open == []
