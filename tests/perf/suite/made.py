"""Groups, answers and runs that these tests share: nothing in them was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from typer.testing import CliRunner, Result

from sonew_autotune.trials.outcome import Failure
from sonew_perf.cli import app
from sonew_perf.records.files import Entry
from sonew_perf.records.machines import machine_of
from sonew_perf.records.model import Point, Run
from sonew_perf.steps.workloads import one_tensor
from sonew_perf.suite.groups import HOST, PHASE, STEP, Group
from sonew_perf.suite.torch_process import Timed
from tests.perf.records.made import read_run

Play = Callable[[Callable[[Group], Timed | Failure]], None]
SIZE = 3000
MACHINE = {"device": "Some CPU", "type": "cpu", "threads": 2, "torch": "2.13.0"}
RUN = Run(id="20260101T000000Z-00000001", date="2026-01-01T00:00:00+00:00", machine=machine_of(MACHINE))
JAX = Group(what=STEP, effort="quick", framework="jax", workload=one_tensor(SIZE), bands=(0, 1))


def step_group(*bands: int, state: str = "float32", main: bool = True) -> Group:
    """A step in torch over one small tensor."""
    return Group(what=STEP, effort="quick", framework="torch", workload=one_tensor(SIZE), bands=bands, state=state, main=main)


def phase_group(*bands: int) -> Group:
    """The phases of the same."""
    return Group(what=PHASE, effort="quick", framework="torch", workload=one_tensor(SIZE), bands=bands)


def host_group() -> Group:
    """The host's part for one small tensor."""
    return Group(what=HOST, effort="quick", framework="torch", workload=one_tensor(SIZE), bands=(1,))


def timed(group: Group, ms: float = 2.0, ratio: float = 2.0) -> list[Entry]:
    """An entry of every case of a group, as its process would make them."""
    return [
        {
            **{name: value for name, value in case.items() if name != "group"},
            "machine": MACHINE,
            "date": "2026-01-01T00:00:00+00:00",
            "samples_ms": [ms] * 7,
            "repetitions": 1,
            "median_ms": ms,
            "p20_ms": ms,
            "p80_ms": ms,
            "against": {"AdamW fused": {"median": ratio, "low": ratio, "high": ratio}},
            "state_bytes": 12 * SIZE,
            "peak_bytes": 20 * SIZE,
            "phases_ms": {},
            "plans": [],
        }
        for case in group.cases
    ]


GROUPS = [step_group(1), phase_group(1)]


def good(group: Group) -> Timed:
    """What a group's process answers when all is well."""
    return Timed(timed(group), {})


def call(*arguments: str | Path) -> Result:
    """`sonew-perf run` with these arguments."""
    return CliRunner().invoke(app, ["run", *(str(argument) for argument in arguments)])


def runs_of(store: Path) -> list[Path]:
    """The runs that a store holds."""
    return sorted((store / "runs").glob("*.json"))


def points_of(path: Path) -> Sequence[Point]:
    """The points of a run."""
    return read_run(path, origin="store")[2]


class Silence:
    """Is told of groups and remembers their names."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    def begin(self, group: Group) -> None:
        self.begun.append(group.name)

    def end(self, group: Group, entries: Sequence[Entry], seconds: float) -> None:
        assert seconds >= 0
        assert len(entries) == len(group.cases)
        self.ended.append(group.name)
