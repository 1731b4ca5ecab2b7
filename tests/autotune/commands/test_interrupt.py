"""The first Ctrl-C is heard, the impatient ones after it are not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from sonew_autotune.commands.interrupt import interrupted_once


def test_only_the_first_signal_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    heard = 0
    with interrupted_once():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("not interrupted")
        except KeyboardInterrupt:
            heard += 1
        os.kill(os.getpid(), signal.SIGINT)
    assert heard == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_it_does_nothing_in_other_threads() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def inside() -> None:
        with interrupted_once():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
