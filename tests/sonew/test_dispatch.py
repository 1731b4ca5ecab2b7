"""Dispatch: the choice of backend and configuration, and that every miss is visible and none is a crash."""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sonew import BackendUnavailableError, InvalidConfigError, SonewFallbackWarning, dispatch
from sonew.config import LaunchConfig, Problem
from sonew.registry import BACKENDS, BackendRow
from sonew.torch import SONew
from sonew.tuned import Entry, make_key
from sonew_kernels.spec import CPU, source_hash

ENVIRONMENT: dict[str, str | int] = {"device": "A CPU", "capability": "avx2", "threads": 2, "toolchain": "g++ 12"}
PROBLEM = Problem(device="cpu", band=1, total=4096, median=1024)
HASH = source_hash("cpu")
DEFAULT = LaunchConfig.of("cpu", CPU.default(1))


def other_config(**changes: int) -> LaunchConfig:
    """A valid configuration that is not the default: another segment, then the changes."""
    return LaunchConfig.of("cpu", {**CPU.default(1), "segment": 262144, **changes})


def entry(kind: Any = "measured", config: LaunchConfig | None = None, **changes: Any) -> dict[str, Any]:
    """A stored entry that serves PROBLEM, unless changed."""
    key = replace(make_key(PROBLEM, "cpu", ENVIRONMENT, HASH), **changes)
    return Entry(key=key, kind=kind, config=config or other_config(), evidence={"date": "2026-01-01"}).as_json()


def write(path: Path, *entries: Any) -> None:
    """A store file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema_version": 1, "entries": list(entries)}), encoding="utf-8")


@pytest.fixture
def user_store() -> Path:
    """Where this test's user store is looked for."""
    return Path(os.environ["SONEW_STORE"])


@pytest.fixture
def shipped_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped store for this test, at first missing."""
    path = tmp_path / "shipped.json"
    monkeypatch.setattr(dispatch, "shipped_store_paths", lambda: [path])
    return path


@pytest.fixture
def fake_backends(monkeypatch: pytest.MonkeyPatch, shipped_store: Path) -> Callable[..., None]:
    """Backends whose verdicts the test sets: calling it with name=reason changes them; "cpu" has the CPU kernels' space."""
    reasons: dict[str, str | None] = {"triton": "no GPU", "cpu": None, "reference": None}
    rows = []
    for name, kernel, device in (("triton", "triton", "cuda"), ("cpu", "cpu", "cpu"), ("reference", "", "")):
        module = ModuleType(f"fake_{name}")
        rejects = functools.partial(lambda name, _problem: reasons[name], name)
        module.__dict__.update(KERNEL=kernel, rejects=rejects, environment=lambda: ENVIRONMENT)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        rows.append(BackendRow(name, "torch", module.__name__, device))
    monkeypatch.setattr(dispatch, "BACKENDS", tuple(rows))
    assert not shipped_store.exists()
    return lambda **changes: reasons.update(changes)


pytestmark = pytest.mark.usefixtures("fake_backends")


def test_auto_takes_the_first_that_can_and_lists_all() -> None:
    explanation = dispatch.explain(PROBLEM)
    assert [(c.backend, c.reason) for c in explanation.candidates] == [("triton", "no GPU"), ("cpu", None), ("reference", None)]
    assert explanation.plan.backend == "cpu"
    assert dispatch.make_plan(PROBLEM) == explanation.plan


def test_falling_to_the_reference_warns_with_the_reason(fake_backends: Callable[..., None]) -> None:
    fake_backends(cpu="no compiler: install g++")
    with pytest.warns(SonewFallbackWarning, match="slow reference backend on cpu: cpu cannot run .no compiler: install g"):
        plan = dispatch.make_plan(PROBLEM)
    assert (plan.backend, plan.provenance) == ("reference", "nothing to tune; cpu passed over (no compiler: install g++)")


def test_a_backend_behind_the_chosen_one_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    late = ModuleType("fake_late")
    late.__dict__.update(KERNEL="", rejects=lambda _problem: "no compiler", environment=dict)
    monkeypatch.setitem(sys.modules, late.__name__, late)
    rows = tuple(BackendRow(name, "torch", f"fake_{name}", "cpu") for name in ("cpu", "late"))
    monkeypatch.setattr(dispatch, "BACKENDS", rows)
    plan = dispatch.make_plan(PROBLEM)
    assert (plan.backend, "passed over" in plan.provenance) == ("cpu", False)


def test_an_explicit_request_never_falls_back(fake_backends: Callable[..., None]) -> None:
    fake_backends(cpu="no compiler")
    with pytest.raises(BackendUnavailableError) as caught:
        dispatch.make_plan(PROBLEM, backend="cpu")
    for part in ("backend='cpu'", "cpu: no compiler", "triton: no GPU", "reference: available", "backend='auto'"):
        assert part in str(caught.value)


def test_environment_variable_decides_where_the_argument_does_not(
    monkeypatch: pytest.MonkeyPatch, fake_backends: Callable[..., None]
) -> None:
    fake_backends(cpu="no compiler")
    monkeypatch.setenv("SONEW_BACKEND", "reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was asked for, so nothing is passed over
        assert dispatch.make_plan(PROBLEM).backend == "reference"
    fake_backends(cpu=None)
    assert dispatch.make_plan(PROBLEM, backend="cpu").backend == "cpu"
    monkeypatch.setenv("SONEW_BACKEND", "triton")
    with pytest.raises(BackendUnavailableError, match="triton: no GPU"):
        dispatch.make_plan(PROBLEM)
    monkeypatch.setenv("SONEW_BACKEND", "")
    assert dispatch.make_plan(PROBLEM).backend == "cpu"


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidConfigError, match=r"backend='gpu' is not one of \['auto', 'triton', 'cpu', 'reference'\]"):
        dispatch.explain(PROBLEM, backend="gpu")
    with pytest.raises(InvalidConfigError, match=r"tuning='maybe' is not one of \['on', 'off', 'pinned'\]"):
        dispatch.explain(PROBLEM, tuning="maybe")
    monkeypatch.setenv("SONEW_BACKEND", "fast")
    with pytest.raises(InvalidConfigError, match="SONEW_BACKEND='fast' is not one of"):
        dispatch.explain(PROBLEM)


def test_a_backend_of_torch_alone_asks_nothing_of_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable speaks to a whole process, in which both may be used."""
    for asked, heard in (("cpu", "auto"), ("triton", "triton"), ("reference", "reference")):
        monkeypatch.setenv("SONEW_BACKEND", asked)
        assert (dispatch.requested_backend("auto"), dispatch.requested_backend("auto", "jax")) == (asked, heard)


def test_explicit_configurations_are_checked() -> None:
    plan = dispatch.make_plan(PROBLEM, config=other_config())
    assert (plan.config, plan.provenance) == (other_config(), "explicit configuration")
    with pytest.raises(InvalidConfigError, match="segment=3 is not one of"):
        dispatch.make_plan(PROBLEM, config=other_config(segment=3))
    with pytest.raises(InvalidConfigError, match="nothing to tune"):
        dispatch.make_plan(PROBLEM, backend="reference", config=other_config())


def test_a_stored_entry_is_used_and_named(user_store: Path) -> None:
    assert dispatch.make_plan(PROBLEM).provenance == "analytic default (no stored entry fits)"
    write(user_store, entry())
    explanation = dispatch.explain(PROBLEM)
    assert explanation.plan.config == other_config()
    assert explanation.plan.provenance == "tuned entry (measured, user store, exact size bucket, 2026-01-01)"
    assert [(v.reasons, v.distance) for v in explanation.verdicts] == [((), 0)]
    assert explanation.key == make_key(PROBLEM, "cpu", ENVIRONMENT, HASH)


def test_the_exact_bucket_comes_before_the_nearest(user_store: Path) -> None:
    near, nearer = entry(total_log2=15), entry(config=other_config(segment=16384), total_log2=11, median_log2=9)
    write(user_store, near, nearer)
    plan = dispatch.make_plan(PROBLEM)
    assert plan.config == other_config(segment=16384)
    assert "nearest size bucket, 2 steps away" in plan.provenance
    write(user_store, near, nearer, entry(config=other_config(segment=4096)))
    assert dispatch.make_plan(PROBLEM).config == other_config(segment=4096)


def test_measured_comes_before_static(user_store: Path) -> None:
    static = entry("static", other_config(segment=4096), device="any", threads=0)
    write(user_store, static, entry(total_log2=20))
    assert dispatch.make_plan(PROBLEM).config == other_config()
    write(user_store, static)
    plan = dispatch.make_plan(PROBLEM)
    assert plan.config == other_config(segment=4096)
    assert plan.provenance.startswith("tuned entry (static, user store")


def test_modes_choose_the_stores(user_store: Path, shipped_store: Path) -> None:
    write(user_store, entry(config=other_config(segment=4096)))
    write(shipped_store, entry(config=other_config(segment=16384)))
    assert dispatch.make_plan(PROBLEM).config == other_config(segment=4096)
    pinned = dispatch.make_plan(PROBLEM, tuning="pinned")
    assert pinned.config == other_config(segment=16384)
    assert "shipped store" in pinned.provenance
    off = dispatch.make_plan(PROBLEM, tuning="off")
    assert (off.config, off.provenance) == (DEFAULT, "analytic default (tuning is off)")
    user_store.unlink()
    assert dispatch.make_plan(PROBLEM).config == other_config(segment=16384)
    shipped_store.unlink()
    assert dispatch.make_plan(PROBLEM, tuning="pinned").provenance == "analytic default (no shipped entry fits)"


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (entry(device="B CPU"), "device is 'B CPU', here 'A CPU'"),
        (entry(threads=64), "threads is 64, here 2"),
        (entry(capability="avx512f"), "capability is 'avx512f', here 'avx2'"),
        (entry(source_hash="0" * 16), f"stale: source_hash is '{'0' * 16}', here '{HASH}'"),
        (entry(toolchain="g++ 9"), "stale: toolchain is 'g++ 9', here 'g++ 12'"),
        (entry(band=2), "band is 2, here 1"),
        (entry(chain="row"), "chain is 'row', here 'tensor'"),
        (entry(param_dtype="bfloat16"), "param_dtype is 'bfloat16', here 'float32'"),
        (entry(entry="direct"), "entry is 'direct', here 'table'"),
        (entry("static", device="B CPU"), "device is 'B CPU', here 'A CPU'"),
        (entry(config=other_config(segment=5)), "configuration not valid: segment=5 is not one of"),
        (entry(config=LaunchConfig.of("cpu", {"warp": 3})), "configuration not valid: cpu takes"),
    ],
)
def test_entries_that_do_not_fit_are_a_visible_miss(user_store: Path, stored: dict[str, Any], reason: str) -> None:
    write(user_store, stored)
    explanation = dispatch.explain(PROBLEM)
    assert explanation.plan.config == DEFAULT
    assert [reason in line for v in explanation.verdicts for line in v.reasons] == [True]
    assert explanation.plan.provenance.startswith(f"analytic default (no stored entry fits; nearest entry: {reason}")


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1, "ent', b"[]", b'{"schema_version": 9, "entries": []}', b"\xff\xfe\x00"])
def test_a_damaged_store_is_a_visible_miss(user_store: Path, shipped_store: Path, content: bytes) -> None:
    user_store.parent.mkdir(parents=True, exist_ok=True)
    user_store.write_bytes(content)
    explanation = dispatch.explain(PROBLEM)
    assert explanation.plan.config == DEFAULT
    assert len(explanation.problems) == 1
    assert explanation.problems[0].startswith(f"user store {user_store}: ")
    assert explanation.problems[0] in explanation.plan.provenance
    write(shipped_store, entry())  # also where another store steps in
    explanation = dispatch.explain(PROBLEM)
    assert explanation.plan.config == other_config()
    assert explanation.problems[0] in explanation.plan.provenance


def test_one_bad_entry_does_not_hide_a_good_one(user_store: Path) -> None:
    write(user_store, {"key": 1}, entry())
    explanation = dispatch.explain(PROBLEM)
    assert explanation.plan.config == other_config()
    assert "entry 0" in explanation.problems[0]


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 60))
def test_launch_groups_cover_in_order_within_the_cap(lengths: list[int], cap: int) -> None:
    groups = dispatch.split_launch_groups(lengths, cap)
    assert [index for group in groups for index in group] == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[i] for i in group) <= cap
    for first, second in itertools.pairwise(groups):
        assert sum(lengths[i] for i in first) + lengths[second[0]] > cap, "a group ends only where the next tensor does not fit"


def test_phases_run_in_order() -> None:
    calls: list[str] = []

    class Recorder:
        def __getattr__(self, name: str) -> Callable[[], None]:
            return lambda: calls.append(name)

    recorder: Any = Recorder()
    dispatch.step(recorder)
    assert calls == ["prologue", "direction", "norms", "update"]


def test_the_optimizer_uses_and_names_what_was_tuned(user_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real CPU backend: a stored entry reaches the optimizer's plan."""
    monkeypatch.setattr(dispatch, "BACKENDS", BACKENDS)
    param = torch.nn.Parameter(torch.zeros(4096))
    param.grad = torch.ones(4096)
    key = dispatch.explain(replace(PROBLEM, median=4096), backend="cpu").key
    assert key is not None
    write(user_store, Entry(key=key, kind="measured", config=other_config(), evidence={}).as_json())
    optimizer = SONew([param])
    optimizer.step()
    (plan,) = optimizer.plans()
    assert (plan.backend, plan.config) == ("cpu", other_config())
    assert plan.provenance == "tuned entry (measured, user store, exact size bucket, no date)"
