from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import StringIO
from math import prod
from pathlib import Path
from weakref import ref

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from sonew.dispatch import split_launch_groups
from sonew_autotune.measure import Samples, paired_ratio
from sonew_autotune.problems import MODELS
from sonew_kernels.spec import Column
from sonew_perf.cli import app
from sonew_perf.machine import describe, headline
from sonew_perf.records.files import Entry
from sonew_perf.steps import host
from sonew_perf.steps.host import (
    BARE,
    CPU,
    FUSED,
    GRADIENTS,
    OURS,
    HostStep,
    host_clock,
    null_sonew,
    renew_gradients,
    scalars,
    without_kernels,
)
from sonew_perf.steps.workloads import Workload

SHAPES = ((3, 4), (4,), ())
ROUNDS = 7


@pytest.fixture(autouse=True, scope="module")
def _short_samples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "SAMPLE_S", 0.0005)
        yield


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return host.measure_host(Workload("small", SHAPES), band=2, rounds=ROUNDS, machine=describe(CPU))


def _of(entries: list[Entry], optimizer: str, gradients: str) -> Entry:
    return next(entry for entry in entries if entry["settings"] == {"optimizer": optimizer, "gradients": gradients})


def test_the_null_backend_keeps_plan_and_table_and_leaves_out_only_the_launches() -> None:
    shapes = MODELS["gpt2-small"]
    optimizer, groups = null_sonew(shapes, band=1)
    assert [len(group.table.leaves) for group in groups] == [len(split) for split in split_launch_groups([prod(shape) for shape in shapes])]
    params = optimizer.param_groups[0]["params"]
    assert [param.ndim for param in params] == [len(shape) for shape in shapes]
    for taken in (2, 3):
        renew_gradients(params)
        optimizer.step()
        assert [group.launches for group in groups] == [4 * taken] * len(groups), "planned anew, or a phase was left out"
        written = [address for group in groups for address in group.table.rows[:, Column.GRAD].tolist()]
        assert written == [param.grad.data_ptr() for param in params]
    assert all(torch.equal(param, torch.ones_like(param)) for param in params)
    assert not any(bool(value.any()) for state in optimizer.state.values() for value in state.values())


def test_new_gradients_are_right_and_lie_elsewhere() -> None:
    params = scalars(SHAPES)
    for _ in range(3):
        before = {param.grad.data_ptr() for param in params if param.grad is not None}
        renew_gradients(params)
        after = [param.grad for param in params if param.grad is not None]
        assert len(before) == len(after) == len(SHAPES)
        assert before.isdisjoint(grad.data_ptr() for grad in after)
        assert all(torch.equal(grad, torch.full_like(param, 2.0)) for grad, param in zip(after, params, strict=True))
    assert params[0].grad is not None
    old, lived = ref(params[0].grad), []
    params[0].register_post_accumulate_grad_hook(lambda _: lived.append(old() is not None))
    del after
    renew_gradients(params)
    assert lived == [True], "the old gradient's memory was free while the new one was made"
    assert old() is None


def test_bare_adamw_does_everything_but_move_numbers() -> None:
    params = scalars(SHAPES)
    optimizer = torch.optim.AdamW(params, lr=0.5, fused=True)
    with without_kernels():
        optimizer.step()
    assert all(torch.equal(param, torch.ones_like(param)) for param in params)
    assert [optimizer.state[param]["step"].item() for param in params] == [0.0] * len(SHAPES)
    optimizer.step()
    assert [optimizer.state[param]["step"].item() for param in params] == [1.0] * len(SHAPES)
    assert not any(torch.equal(param, torch.ones_like(param)) for param in params)


def test_only_the_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = 0.0, []

    def spend(seconds: float, name: str) -> None:
        nonlocal now
        now += seconds
        calls.append(name)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    step, renew = partial(spend, 1.0, "step"), partial(spend, 100.0, "renew")
    assert host_clock(HostStep(step, renew), 3) == 3.0
    assert calls == ["renew", "step"] * 3
    assert host_clock(HostStep(step), 2) == 2.0
    assert host_clock(renew, 2) == 200.0
    calls.clear()

    @contextmanager
    def around() -> Iterator[None]:
        spend(10.0, "before")
        yield
        spend(10.0, "after")

    assert host_clock(HostStep(step, around=around), 2) == 2.0
    assert calls == ["before", "step", "step", "after"]


def test_every_optimizer_is_compared_under_its_own_kind_of_gradients(entries: list[Entry]) -> None:
    assert len(entries) == 4 * len(GRADIENTS)
    for gradients in GRADIENTS:
        ours = _of(entries, OURS, gradients)
        assert len(ours["samples_ms"]) == ROUNDS
        assert ours["least_ms"] == min(ours["samples_ms"])
        assert (ours["launches"], ours["launch_groups"], ours["band"]) == (4, 1, 2)
        assert len(ours["against"]) == 2
        for peer in (FUSED, BARE):
            pair = [Samples(tuple(entry["samples_ms"])) for entry in (ours, _of(entries, peer, gradients))]
            assert ours["against"][f"{peer}, gradients {gradients}"]["median"] == pytest.approx(paired_ratio(*pair).median, rel=1e-3)


def _with_ratio(entry: Entry, median: float) -> Entry:
    against = {name: {"median": median, "low": 1.0, "high": 9.0} for name in entry["against"]}
    return {**entry, "against": against}


def test_the_table_and_the_verdict_say_what_the_entries_hold(entries: list[Entry]) -> None:
    stay, new = _of(entries, OURS, "stay"), _of(entries, OURS, "new")
    lines = host.verdict_lines([_with_ratio(stay, 2.9), _with_ratio(new, 3.1), *entries[1:2]])
    assert lines == [
        "Target met, gradients stay: 2.90 [1.00, 9.00] times fused AdamW, both bare; at most 3",
        "Target missed, gradients new: 3.10 [1.00, 9.00] times fused AdamW, both bare; at most 3",
    ]
    console = Console(file=StringIO(), width=80)
    console.print(host.host_table([_with_ratio({**stay, "median_ms": 0.1234, "least_ms": 0.1}, 2.9)], headline(stay["machine"])))
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]  # a StringIO
    assert "small, 3 tensors of one element, launch groups: 1, band: 2" in shown
    assert f"{OURS} stay 123 100" in shown
    assert "2.90 2.90 [1.00, 9.00]" in shown
    assert "SONew's 4 launches" in shown


def test_the_command_prints_verdicts_and_writes_the_record_it_prints_as_json(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    arguments = ["host", "--model", "mnist-autoencoder", "--rounds", "7", "--output", str(path)]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("Target ") == len(GRADIENTS)
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert printed.exit_code == 0, printed.output
    record = json.loads(printed.stdout)
    assert record == json.loads(path.read_text())
    assert {entry["kind"] for entry in record["entries"]} == {"host time"}
    assert {entry["workload"]["tensors"] for entry in record["entries"]} == {16}
    assert CliRunner().invoke(app, ["host", "--rounds", "6"]).exit_code == 2
