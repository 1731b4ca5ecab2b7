"""Measure whole landscapes on this CPU: every point of the space in the same rounds. `python -m tests.autotune.recordings.measure FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from sonew_autotune.measure import TARGET_SAMPLE_S, interleave
from sonew_autotune.problems import cases_of
from sonew_autotune.search.targets import find_target
from sonew_autotune.settings import Problems
from sonew_autotune.store.evidence import now, versions
from sonew_autotune.trials.check import check_config
from sonew_autotune.trials.landscape import Landscape, LandscapeRecord, write_landscapes
from sonew_autotune.trials.trial import COPY, DEFAULT, Evaluator

PROBLEMS: Final = Problems(bands=(1, 4), sizes=(65536, 4194304), models=("mnist-autoencoder",), device="cpu")
ROUNDS: Final = 60


def measure(problems: Problems, rounds: int) -> list[Landscape]:
    """Every point of every problem, checked, then timed in rounds that all points share."""
    landscapes = []
    for case in cases_of(problems, "cpu"):
        target, evaluator = find_target(case), Evaluator()
        subject, points = target.subject, target.space.points()
        for point in points:
            check_config(case, subject.backend, subject.kernel, point)
        default, group = evaluator._work(subject, subject.default)
        work = {str(index): evaluator._work(subject, point, group.table.direction)[0] for index, point in enumerate(points)}
        samples = interleave({**work, DEFAULT: default, COPY: evaluator._copy(case)}, rounds=rounds, target_sample_s=TARGET_SAMPLE_S / 2)
        records = tuple(
            LandscapeRecord(
                config=point,
                times_ms=tuple(round(time, 5) for time in samples[str(index)].times_ms),
                default_ms=tuple(round(time, 5) for time in samples[DEFAULT].times_ms),
                copy_ms=tuple(round(time, 5) for time in samples[COPY].times_ms),
            )
            for index, point in enumerate(points)
        )
        landscapes.append(
            Landscape(key=target.key, case=case, default=dict(subject.default), records=records, versions=versions(), date=now())
        )
    return landscapes


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    write_landscapes(chosen.file, measure(PROBLEMS, chosen.rounds))


if __name__ == "__main__":
    main()
