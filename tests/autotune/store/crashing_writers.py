"""Writers of one store that are killed at random moments, for `test_winners.py`: a process without torch or threads, fit to fork.

Usage: FILE SEED ROUNDS. Every round forks eight writers of three entries each and kills half of them. A writer reports an entry on a
pipe once it is saved; what was reported must be in the store. Prints the number of kills that hit a writer at work.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from sonew_autotune.store import winners
from tests.autotune.entries import entry

WRITERS = 8
ENTRIES = 3


def write(path: Path, first: int, report: int) -> None:
    """Save entries one after the other, as a child; never returns."""
    code = 1
    try:
        for number in range(first, first + ENTRIES):
            winners.save(path, entry(total_log2=number), warn=sys.exit)
            os.write(report, f"{number}\n".encode())
        code = 0
    finally:
        os._exit(code)


def run_round(path: Path, start: int, chance: random.Random) -> tuple[set[int], int]:
    """(entries reported as saved, writers that a kill hit)."""
    reading, writing = os.pipe()
    children = []
    for writer in range(WRITERS):
        child = os.fork()
        if child == 0:
            write(path, start + writer * ENTRIES, writing)
        children.append(child)
    os.close(writing)
    for child in chance.sample(children, WRITERS // 2):
        time.sleep(chance.random() * 0.006)
        os.kill(child, signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert set(codes) <= {0, -signal.SIGKILL}, codes
    with os.fdopen(reading) as handle:
        return {int(line) for line in handle}, codes.count(-signal.SIGKILL)


def main(path: Path, seed: int, rounds: int) -> None:
    """See the module."""
    chance, reported, hit = random.Random(seed), set[int](), 0
    for number in range(rounds):
        saved, killed = run_round(path, number * WRITERS * ENTRIES, chance)
        reported |= saved
        hit += killed
        stored = [raw["key"]["total_log2"] for raw in json.loads(path.read_text(encoding="utf-8"))["entries"]]
        assert len(stored) == len(set(stored))
        assert reported <= set(stored), reported - set(stored)
    winners.save(path, entry(total_log2=-1), warn=sys.exit)
    litter = sorted(other.name for other in path.parent.iterdir() if other.name not in (path.name, f"{path.name}.lock"))
    assert litter == [], litter
    print(hit)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
