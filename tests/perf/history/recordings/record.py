"""Records this machine's noise: the same work timed again and again, as a perf history of an unchanged program would be.

    python -m tests.perf.history.recordings.record --output aa.json

What comes out is A/A data: no change is in it, so whatever a detector finds in it is a false alarm.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sonew_autotune.measure import Work, interleave
from sonew_autotune.store.files import write_atomically
from sonew_perf.entries import digits
from sonew_perf.machine import describe
from sonew_perf.steps.cases import adamw_wanted, copy_case, sonew_wanted
from sonew_perf.steps.workloads import one_tensor

CPU = torch.device("cpu")
ELEMENTS = 2**20
LONGEST_WAIT_S = 5.0


def works() -> dict[str, Work]:
    """What is timed."""
    workload = one_tensor(ELEMENTS)
    made = [
        adamw_wanted("fused").build(workload, CPU),
        copy_case(workload, CPU),
        *(sonew_wanted(band, tuning="off").build(workload, CPU) for band in (1, 4)),
    ]
    return {case.name.removesuffix(", untuned"): case.work for case in made}


def idle_share(seconds: float) -> float:
    """How much of all processors nobody used for so long (Linux)."""

    def counted() -> tuple[int, int]:
        ticks = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)

    idle, every = counted()
    time.sleep(seconds)
    idle_now, every_now = counted()
    return (idle_now - idle) / max(every_now - every, 1)


def wait_for_idle(share: float) -> None:
    """Until so much is idle, as somebody who measures would; not for ever, since somebody in a hurry would not."""
    give_up = time.monotonic() + LONGEST_WAIT_S
    while share and idle_share(0.2) < share and time.monotonic() < give_up:
        pass


def record(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """After each run: samples in ms, a row per run and case, with the seconds since the start and the load average before each run."""
    timed = works()
    cases: dict[str, list[list[float]]] = {name: [] for name in timed}
    at_s, load, start = [], [], time.monotonic()
    for number in range(options.runs):
        wait_for_idle(options.idle)
        at_s.append(round(time.monotonic() - start, 1))
        load.append(round(os.getloadavg()[0], 2))
        samples = interleave(timed, rounds=options.rounds, target_sample_s=options.sample_ms / 1000, seed=number)
        for name, row in samples.items():
            cases[name].append([digits(value) for value in row.times_ms])
        yield {"at_s": at_s, "load": load, "samples_ms": cases}
        time.sleep(options.pause)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sample-ms", type=float, default=4.0, help="how long one sample lasts")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two runs")
    parser.add_argument("--idle", type=float, default=0.0, help="share of the processors to wait for before a run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = {
        "schema_version": 1,
        "what": f"the same work over and over, {ELEMENTS} float32 elements: no change is in this",
        "command": f"python -m tests.perf.history.recordings.record {' '.join(sys.argv[1:])}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(CPU),
    }
    for made in record(options):
        write_atomically(options.output, json.dumps(head | made, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
