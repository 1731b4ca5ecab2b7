"""The worker process: it answers, and its death or silence costs one request."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.worker import CLOSED, Answer, Worker

TUNER = """
from tests.autotune.trials.test_worker import make_answer
from sonew_autotune.trials.worker import Worker
worker = Worker(make_answer)
print(worker.answer("pid", 60), flush=True)
worker.answer("hang", 60)
"""


def make_answer() -> Answer:
    """Doubles numbers; "die" kills the process, "hang" never answers, a failure is given back.

    "die compiling" leaves a program behind that has all open files, as Triton starts ptxas.
    """

    def answer(request: object) -> object:
        if request == "die compiling":
            subprocess.Popen(["sleep", "20"], close_fds=False)  # noqa: S607  # outlives this process, by far
        if request in ("die", "die compiling"):
            os.kill(os.getpid(), signal.SIGKILL)
        if request == "hang":
            time.sleep(60)
        if isinstance(request, Failure):
            return request
        return os.getpid() if request == "pid" else (request, request)

    return answer


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(make_answer)
    yield made
    made.close()


def _gone(pid: int) -> bool:
    """Ended, if not yet collected: in a container nobody may collect orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not _gone(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_answers_come_from_one_process_until_it_dies(worker: Worker) -> None:
    assert worker.answer(21, 60) == (21, 21)
    pid = worker.answer("pid", 60)
    assert isinstance(pid, int)
    assert pid != os.getpid()
    assert worker.answer("pid", 60) == pid
    os.kill(pid, signal.SIGINT)  # Ctrl-C reaches the whole group; only the parent decides
    assert worker.answer("pid", 60) == pid

    assert worker.answer(Failure("wrong", "differs"), 60) == Failure("wrong", "differs")
    assert worker.answer("pid", 60) == pid
    assert worker.answer(Failure("error", "illegal access"), 60) == Failure("error", "illegal access")
    assert _gone(pid)  # whatever it left behind in the device is gone with it

    died = worker.answer("die", 60)
    assert died == Failure("crash", "the worker process died (signal 9)")
    second = worker.answer("pid", 60)
    start = time.monotonic()
    hung = worker.answer("hang", 1)
    assert hung == Failure("timeout", "no result after 1 s, the worker was stopped")
    assert time.monotonic() - start < 50
    assert len({pid, second, worker.answer("pid", 60)}) == 3


def slow_to_start() -> Answer:
    """As a busy machine that imports torch."""
    time.sleep(60)
    return make_answer()


def test_starting_counts_against_the_time() -> None:
    worker = Worker(slow_to_start)
    start = time.monotonic()
    assert worker.answer(21, 1) == Failure("timeout", "no result after 1 s, the worker was stopped")
    assert time.monotonic() - start < 30


def test_close_ends_the_process(worker: Worker) -> None:
    pid = worker.answer("pid", 60)
    assert not _gone(pid)
    worker.close()
    assert _gone(pid)


def test_make_answer_is_a_plain_function() -> None:
    made: Callable[[], Answer] = make_answer
    assert made()(3) == (3, 3)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_inside_a_trial_ends_with_a_tuner_that_is_killed(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", TUNER], stdout=subprocess.PIPE, text=True) as tuner:
        assert tuner.stdout is not None
        pid = int(tuner.stdout.readline())
        time.sleep(0.2)  # the request that hangs is on its way
        assert not _gone(pid)
        tuner.send_signal(number)
        tuner.wait()
    assert _gone_within(pid, 20)


def test_a_death_is_seen_while_a_program_that_the_worker_started_lives_on(worker: Worker) -> None:
    worker.answer("pid", 60)
    start = time.monotonic()
    assert worker.answer("die compiling", 60) == Failure("crash", "the worker process died (signal 9)")
    assert time.monotonic() - start < 4


def test_close_gives_a_waiting_thread_a_failure_and_nothing_starts_afterwards(worker: Worker) -> None:
    pid = worker.answer("pid", 60)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(worker.answer, "hang", 60)
        time.sleep(0.2)
        start = time.monotonic()
        worker.close()
        assert waiting.result() == CLOSED
    assert time.monotonic() - start < 10
    assert _gone(pid)
    assert worker.answer("pid", 60) == CLOSED
    worker.close()


def test_close_while_a_thread_starts_the_process_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, release, start = threading.Event(), threading.Event(), SpawnProcess.start
    before = set(multiprocessing.active_children())

    def held_up(process: SpawnProcess) -> None:
        entered.set()
        release.wait()
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", held_up)
    worker = Worker(make_answer)
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(worker.answer, "hang", 60)
        entered.wait()
        closed = threads.submit(worker.close)
        time.sleep(0.1)
        release.set()
        assert asked.result() == CLOSED
        assert closed.result() is None
    assert set(multiprocessing.active_children()) <= before


def test_a_process_that_cannot_be_started_is_a_failure_and_the_next_request_tries_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_process: SpawnProcess) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(SpawnProcess, "start", refused)
        assert worker.answer(21, 60) == Failure("crash", "the worker process died (it was not started)")
    assert worker.answer(21, 60) == (21, 21)
