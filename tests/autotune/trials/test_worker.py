"""The worker process: it answers, and its death or silence costs one request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.worker import Answer, Worker


def make_answer() -> Answer:
    """Doubles numbers; "die" kills the process, "hang" never answers, a failure is given back."""

    def answer(request: object) -> object:
        if request == "die":
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
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


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
    start = time.monotonic()
    hung = worker.answer("hang", 5)
    assert hung == Failure("timeout", "no result after 5 s, the worker was stopped")
    assert time.monotonic() - start < 50
    assert worker.answer("pid", 60) != pid


def slow_to_start() -> Answer:
    """As a busy machine that imports torch."""
    time.sleep(60)
    return make_answer()


def test_starting_counts_against_the_time() -> None:
    worker = Worker(slow_to_start)
    start = time.monotonic()
    assert worker.answer(21, 2) == Failure("timeout", "no result after 2 s, the worker was stopped")
    assert time.monotonic() - start < 30


def test_close_ends_the_process(worker: Worker) -> None:
    pid = worker.answer("pid", 60)
    assert not _gone(pid)
    worker.close()
    assert _gone(pid)


def test_make_answer_is_a_plain_function() -> None:
    made: Callable[[], Answer] = make_answer
    assert made()(3) == (3, 3)
