"""Ranking for a device that is not here: what is compiled, what wins, what is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonew import tuned
from sonew.config import LaunchConfig
from sonew.errors import InvalidConfigError
from sonew_autotune.compiler import candidates, cross
from sonew_autotune.compiler.candidates import Outcome, Part, StaticResult
from sonew_autotune.compiler.cross import CompileRequest, Compilers, answer_compile, check_target, requests_of, tune_static
from sonew_autotune.compiler.kernel import ALL_FLOAT32, Compiled, Dtypes
from sonew_autotune.compiler.targets import Architecture, architecture
from sonew_autotune.problems import Case
from sonew_autotune.space import build_space
from sonew_autotune.store import winners
from sonew_autotune.trials.outcome import Failure
from sonew_kernels.spec import SPECS, source_hash
from tests.autotune.compiler.made import USED, built, make_sleeper, used

TARGET = "cuda:90"
HEAVY = used(spill_store_bytes=30, spill_load_bytes=30)
Cost = Callable[[Mapping[str, int]], float]


def _case(band: int = 1, size: int = 4096) -> Case:
    return Case(name=str(size), shapes=((size,),), device="cuda", band=band)


class Silent:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[int] = []

    def begin(self, _title: str, count: int) -> None:
        self.begun.append(count)

    def told(self, *_: object) -> None:
        pass

    def warn(self, _line: str) -> None:
        pass


class FakeCompilers(Compilers):
    """Everything compiles but what is named, and costs what is said."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, cost: Cost, *, failing: Part | None = None, heavy: Part | None = None, most: int = 10**6
    ) -> None:
        super().__init__(1)
        self.requests: list[CompileRequest] = []
        self.failing, self.heavy, self.most, self.shares = failing, heavy, most, list[float]()
        monkeypatch.setattr(candidates, "static_rank", lambda _compiled, config, _band, _dtypes, _chip: cost(config))

    def _outcome(self, request: CompileRequest) -> Outcome:
        if request.part == self.failing:
            return Failure("compile", "ptxas: too much")
        resources = HEAVY if request.part == self.heavy else USED
        return replace(built(request.kernel, TARGET, request.band), resources=resources)

    def compile(self, requests: Sequence[CompileRequest], *, deadline: float, told: Any) -> dict[Any, Outcome]:
        self.shares.append(deadline - time.monotonic())
        done = list(requests)[: self.most]
        self.requests += done
        for request in done:
            told(request, self._outcome(request))
        return {request.code: self._outcome(request) for request in done}


def _tune(folder: Path, compilers: Compilers, *cases: Case, seconds: float = 60) -> list[StaticResult]:
    deadline = time.monotonic() + seconds
    return list(tune_static(cases, TARGET, compilers, store_path=folder / "tuned.json", deadline=deadline, report=Silent()))


def test_every_kernel_of_the_space_is_compiled_once_the_nearest_to_the_default_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compilers = FakeCompilers(monkeypatch, lambda _: 1.0)
    _tune(tmp_path, compilers, _case(), _case(size=10**6))
    parts = [request.part for request in compilers.requests]
    points = build_space("triton", 1, threads=0).points()
    wanted = {("direction", (p["block"], p["num_warps"])) for p in points} | {
        ("update", (p["update_block"], p["update_num_warps"])) for p in points
    }
    assert len(parts) == len(set(parts)) == 35
    assert set(parts) == wanted
    default = SPECS["triton"].default(1)
    assert set(parts[:2]) == {("direction", (default["block"], default["num_warps"])), ("update", (1024, 4))}
    assert parts[-1] == ("direction", (128, 1))  # six steps away


def test_another_band_compiles_its_direction_kernels_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compilers = FakeCompilers(monkeypatch, lambda _: 1.0)
    _tune(tmp_path, compilers, _case(), _case(band=4))
    assert {request.kernel for request in compilers.requests[35:]} == {"direction"}
    assert len(compilers.requests) == 35 + 21
    assert [round(share) for share in compilers.shares] == [30, 60]  # of a minute: half, then what is left


def test_update_kernels_know_no_band() -> None:
    """Which is why bands share them."""
    outcomes = [
        answer_compile(CompileRequest(kernel="update", config=SPECS["triton"].default(1), band=band, target="hip:gfx942", dtypes=dtypes))
        for band, dtypes in ((1, ALL_FLOAT32), (4, Dtypes(grad="bfloat16", state="bfloat16")))
    ]
    assert all(isinstance(outcome, Compiled) for outcome in outcomes)
    assert getattr(outcomes[0], "resources", 0) == getattr(outcomes[1], "resources", 1)


def test_a_clear_winner_is_stored_as_static_for_any_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = {128: 1.0, 256: 0.5}
    compilers = FakeCompilers(monkeypatch, lambda config: cost.get(config["block"], 2.0) + 0.1 * (config["num_warps"] != 4))
    (result,) = _tune(tmp_path, compilers, _case())
    assert result.entry is not None
    best = result.entry.config.as_dict()
    assert (best["block"], best["num_warps"]) == (256, 4)
    default = SPECS["triton"].default(1)
    assert {name: best[name] for name in ("update_block", "update_num_warps")} == {
        name: default[name] for name in ("update_block", "update_num_warps")
    }
    key, evidence = result.entry.key, result.entry.evidence
    assert (key.device, key.capability, key.threads, key.source_hash) == (tuned.ANY_DEVICE, TARGET, 0, source_hash("triton"))
    assert key.toolchain.startswith("triton ")
    assert evidence["ratio_to_default"]["median"] == pytest.approx(0.5 / 2.1, abs=1e-4)
    assert evidence["resources"]["direction"] == "40 registers, 0 spill bytes, 0 shared bytes, 100 instructions, occupancy 50%"
    (stored,) = tuned.read_store("user store", tmp_path / "tuned.json").entries
    assert (stored.key, stored.kind, stored.config) == (key, "static", result.entry.config)
    there = replace(key, device="NVIDIA H100 80GB HBM3")
    assert tuned.judge("user store", stored, there, None).reasons == ()
    assert tuned.judge("user store", stored, replace(there, capability="cuda:80"), None).reasons


def test_a_measured_entry_stays_and_goes_before_a_static_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it is of another size, and where the static one is newer."""
    compilers = FakeCompilers(monkeypatch, lambda config: 0.1 if config["block"] == 256 else 1.0)
    (first,) = _tune(tmp_path, compilers, _case())
    assert first.entry is not None
    device = "NVIDIA H100 80GB HBM3"
    key = replace(first.entry.key, device=device, total_log2=30, median_log2=30)
    config = LaunchConfig.of("triton", SPECS["triton"].default(1))
    measured = tuned.Entry(key=key, kind="measured", config=config, evidence={"result": "tuned"})
    winners.save(tmp_path / "tuned.json", measured, warn=pytest.fail)
    _tune(tmp_path, compilers, _case())
    store = tuned.read_store("user store", tmp_path / "tuned.json")
    assert {entry.kind for entry in store.entries} == {"measured", "static"}
    wanted = replace(first.entry.key, device=device)
    used_here = tuned.best([tuned.judge("user store", entry, wanted, None) for entry in store.entries])
    assert used_here is not None
    assert used_here.entry == measured


def test_a_gain_within_the_models_error_does_not_displace_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compilers = FakeCompilers(monkeypatch, lambda config: 0.9 if config["block"] == 256 else 1.0)
    (result,) = _tune(tmp_path, compilers, _case())
    assert result.entry is not None
    assert result.ranked[0].config["block"] == 256
    assert result.entry.config.as_dict() == SPECS["triton"].default(1)
    assert result.entry.evidence["result"] == "default kept"
    assert result.entry.evidence["challenger"]["ratio_to_default"] == pytest.approx(0.9)


def test_a_gain_that_rests_on_one_number_does_not_displace_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 256 take half the time, but for a memory a third slower than on the data sheet."""
    compilers = FakeCompilers(monkeypatch, lambda _: 1.0)
    chip = architecture(TARGET)

    def cost(_compiled: object, config: Mapping[str, int], _band: int, _dtypes: Dtypes, other: Architecture | None) -> float:
        return 0.5 if config["block"] == 256 and (other or chip).bandwidth >= chip.bandwidth else 1.0

    monkeypatch.setattr(candidates, "static_rank", cost)
    (result,) = _tune(tmp_path, compilers, _case())
    assert result.entry is not None
    assert result.ranked[0].config["block"] == 256
    assert result.entry.config.as_dict() == SPECS["triton"].default(1)
    assert result.entry.evidence["challenger"] == {"config": result.ranked[0].config, "ratio_to_default": 0.5, "certain": 1.0}


def test_a_failing_kernel_takes_its_candidates_out_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = _tune(tmp_path, FakeCompilers(monkeypatch, lambda _: 1.0, failing=("direction", (4096, 8))), _case())
    points = build_space("triton", 1, threads=0).points()
    assert len(result.ranked) == sum((p["block"], p["num_warps"]) != (4096, 8) for p in points)
    assert result.failures == ((("direction", (4096, 8)), Failure("compile", "ptxas: too much")),)

    default = SPECS["triton"].default(1)
    failing = ("direction", (default["block"], default["num_warps"]))
    (broken,) = _tune(tmp_path / "other", FakeCompilers(monkeypatch, lambda _: 1.0, failing=failing), _case())
    assert (broken.entry, broken.default) == (None, None)


def test_a_pruned_kernel_never_wins_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast the model would call it."""
    compilers = FakeCompilers(monkeypatch, lambda config: 0.1 if config["block"] == 4096 else 1.0, heavy=("direction", (4096, 8)))
    (result,) = _tune(tmp_path, compilers, _case())
    assert all((c.config["block"], c.config["num_warps"]) != (4096, 8) for c in result.ranked)
    (pruned,) = result.pruned
    assert (pruned.kernel, pruned.config) == ("direction", {"block": 4096, "num_warps": 8})
    assert pruned.reason == "spills heavily: 60 bytes per thread, more than the 48 that it loads and stores"
    assert result.entry is not None
    assert result.entry.config.as_dict()["num_warps"] == 16
    assert result.entry.evidence["pruned"] == 1


def test_a_budget_that_ends_leaves_out_the_farthest_and_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = _tune(tmp_path, FakeCompilers(monkeypatch, lambda _: 1.0, most=5), _case())
    assert result.left_out == 30
    assert result.entry is not None
    assert result.entry.evidence["left_out"] == 30
    (nothing,) = _tune(tmp_path / "other", FakeCompilers(monkeypatch, lambda _: 1.0, most=0), _case())
    assert (nothing.left_out, nothing.entry) == (35, None)


def test_compiling_runs_in_processes_and_reports_each() -> None:
    default, dtypes = SPECS["triton"].default(1), ALL_FLOAT32
    requests = [
        CompileRequest(kernel="update", config={**default, **change}, band=1, target="hip:gfx942", dtypes=dtypes)
        for change in ({"update_block": 256}, {"update_block": 512}, {"update_block": 3})
    ]
    told: list[tuple[CompileRequest, Any]] = []
    with Compilers(1) as compilers:
        outcomes = compilers.compile(requests, deadline=time.monotonic() + 120, told=lambda *pair: told.append(pair))
        assert compilers.compile(requests, deadline=time.monotonic() - 1, told=lambda *_: None) == {}
    assert [request for request, _ in told] == requests
    for request in requests[:2]:
        compiled = outcomes[request.code]
        assert isinstance(compiled, Compiled)
        assert compiled.resources == getattr(answer_compile(request), "resources", None)
        assert (compiled.stages, compiled.binary) == ({}, None)
    assert outcomes[requests[2].code] == Failure("compile", told[2][1].message)
    assert "update_block=3 is not one of" in told[2][1].message


def test_a_compilation_in_progress_ends_with_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says nothing about its candidate."""
    monkeypatch.setattr(cross, "make_compiler", make_sleeper)
    start = time.monotonic()
    with Compilers(2) as compilers:
        requests = requests_of(build_space("triton", 1, threads=0), ALL_FLOAT32, TARGET)
        assert compilers.compile(requests, deadline=start + 1, told=lambda *_: pytest.fail("told")) == {}
    assert time.monotonic() - start < 10


def test_only_what_given_configurations_need_is_asked_for() -> None:
    default = SPECS["triton"].default(1)
    requests = requests_of(build_space("triton", 1, threads=0), ALL_FLOAT32, TARGET, [default, {**default, "block": 256}])
    assert {request.part for request in requests} == {("direction", (1024, 8)), ("direction", (256, 8)), ("update", (1024, 4))}


def test_a_wrong_target_is_refused_before_anything_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compilers = FakeCompilers(monkeypatch, lambda _: 1.0)
    with pytest.raises(InvalidConfigError, match=r"target='h100' .*cuda:90"):
        list(tune_static([_case()], "h100", compilers, store_path=tmp_path / "t.json", deadline=0.0, report=Silent()))
    with pytest.raises(InvalidConfigError, match=r"target='h100' .*cuda:90"):
        check_target("h100", 1)
    assert compilers.requests == []
