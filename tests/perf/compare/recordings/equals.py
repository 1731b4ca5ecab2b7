"""Records what two equal processes measure, launch after launch: `python -m tests.perf.compare.recordings.equals LAUNCHES ROUNDS`.

The noise of a real machine, for the tests of the verdicts: to be taken on a quiet machine, and the load average stands in the file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Self

import torch

from sonew_autotune.store.files import write_atomically
from sonew_perf.compare.cases import EFFORTS, Case, chosen_cases
from sonew_perf.compare.processes import Pair, Subject
from sonew_perf.compare.rounds import Limits, take_rounds
from sonew_perf.compare.sides import parse_side
from sonew_perf.machine import describe
from sonew_perf.process import ROOT
from tests.perf.compare.played import RECORDING

LATER = time.monotonic() + 7200


class Listening:
    """A launch that keeps every sample."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.samples: dict[str, tuple[list[float], list[float]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pair.close()

    def prepare(self, case: Case) -> tuple[int, list[dict[str, object]]]:
        self.samples[case.name] = ([], [])
        return self._pair.prepare(case)

    def renew(self, case: str) -> None:
        self._pair.renew(case)

    def sample(self, case: str, side: int, calls: int) -> float:
        taken = self._pair.sample(case, side, calls)
        self.samples[case][side].append(float(f"{taken:.4g}"))
        return taken


def main(launches: int, rounds: int) -> None:
    subject = Subject(side=parse_side("."), tree=ROOT)
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "load_before": round(os.getloadavg()[0], 2)}
    kept: list[Listening] = []

    def launch(framework: str) -> Listening:
        kept.append(Listening(Pair(subject, subject, framework=framework, device="cpu", deadline=LATER)))
        return kept[-1]

    cases = chosen_cases(EFFORTS["quick"])
    take_rounds(cases, launch, Limits(LATER), launches=launches, rounds=rounds, step=lambda: print(len(kept), flush=True))
    lines = ",\n".join(json.dumps(each.samples) for each in kept)
    head = json.dumps({"machine": describe(torch.device("cpu")), **about, "rounds": rounds})
    write_atomically(RECORDING, f'{head[:-1]}, "launches": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
