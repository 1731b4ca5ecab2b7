"""Ranking for a device that is not here: what is compiled, what wins, what is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonew import tuned
from sonew.errors import InvalidConfigError
from sonew_autotune.compiler import cross
from sonew_autotune.compiler.cross import CompileRequest, answer_compile, compile_all, tune_static
from sonew_autotune.compiler.kernel import ALL_FLOAT32, Compiled
from sonew_autotune.compiler.resources import Resources
from sonew_autotune.problems import Case
from sonew_autotune.space import build_space
from sonew_autotune.trials.outcome import Failure
from sonew_kernels.spec import SPECS, source_hash

TARGET = "cuda:90"
USED = Resources(
    registers=40,
    spill_store_bytes=0,
    spill_load_bytes=0,
    shared_bytes=0,
    threads=128,
    instructions=100,
    load_widths={4: 3, 16: 2},
    store_widths={4: 1},
    occupancy=0.5,
)
Cost = Callable[[Mapping[str, int]], float]


def _case(band: int = 1, size: int = 4096) -> Case:
    return Case(name=str(size), shapes=((size,),), device="cuda", band=band)


class FakeCompiler:
    """Stands in for `compile_all`: everything compiles but what is named, and costs what is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: Cost, failing: tuple[str, tuple[int, ...]] | None = None) -> None:
        self.requests: list[CompileRequest] = []

        def compile_everything(requests: list[CompileRequest], *, told: Any, **_: Any) -> dict[Any, Any]:
            outcomes: dict[Any, Any] = {}
            for request in requests:
                self.requests.append(request)
                built = Compiled(kernel=request.kernel, target=TARGET, band=request.band, stages={}, resources=USED)
                outcomes[request.part] = Failure("compile", "ptxas: too much") if request.part == failing else built
                told(request, outcomes[request.part])
            return outcomes

        monkeypatch.setattr(cross, "compile_all", compile_everything)
        monkeypatch.setattr(cross, "static_rank", lambda _compiled, config, _band: cost(config))


def _tune(folder: Path, *cases: Case) -> list[cross.StaticResult]:
    silent: Any = lambda *_: None  # noqa: E731  # three callbacks that say nothing
    deadline = time.monotonic() + 60
    return list(tune_static(cases, TARGET, store_path=folder / "tuned.json", deadline=deadline, told=silent, warn=silent, begin=silent))


def test_every_kernel_of_the_space_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = FakeCompiler(monkeypatch, lambda _: 1.0)
    _tune(tmp_path, _case(), _case(size=10**6))
    parts = [request.part for request in compiler.requests]
    points = build_space("triton", 1, threads=0).points()
    wanted = {("direction", (p["block"], p["num_warps"])) for p in points} | {
        ("update", (p["update_block"], p["update_num_warps"])) for p in points
    }
    assert len(parts) == len(set(parts))
    assert set(parts) == wanted
    assert dict(compiler.requests[0].config) == SPECS["triton"].default(1)


def test_a_clear_winner_is_stored_as_static_for_any_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCompiler(monkeypatch, lambda config: {128: 1.0, 256: 0.5}.get(config["block"], 2.0) + 0.1 * (config["num_warps"] != 4))
    (result,) = _tune(tmp_path, _case())
    assert result.entry is not None
    best = result.entry.config.as_dict()
    assert (best["block"], best["num_warps"]) == (256, 4)
    default = SPECS["triton"].default(1)
    assert {name: best[name] for name in ("update_block", "update_num_warps")} == {
        name: default[name] for name in ("update_block", "update_num_warps")
    }
    key = result.entry.key
    assert (key.device, key.capability, key.threads, key.source_hash) == (tuned.ANY_DEVICE, TARGET, 0, source_hash("triton"))
    assert key.toolchain.startswith("triton ")
    assert result.entry.evidence["ratio_to_default"]["median"] == pytest.approx(0.5 / 2.1)
    (stored,) = tuned.read_store("user store", tmp_path / "tuned.json").entries
    assert (stored.key, stored.kind, stored.config) == (key, "static", result.entry.config)
    there = replace(key, device="NVIDIA H100 80GB HBM3")
    assert tuned.judge("user store", stored, there, None).reasons == ()
    assert tuned.judge("user store", stored, replace(there, capability="cuda:80"), None).reasons


def test_a_gain_within_the_models_error_does_not_displace_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCompiler(monkeypatch, lambda config: 0.9 if config["block"] == 256 else 1.0)
    (result,) = _tune(tmp_path, _case())
    assert result.entry is not None
    assert result.ranked[0].config["block"] == 256
    assert result.entry.config.as_dict() == SPECS["triton"].default(1)
    assert result.entry.evidence["result"] == "default kept"
    assert result.entry.evidence["challenger"]["ratio_to_default"] == pytest.approx(0.9)


def test_a_failing_kernel_takes_its_candidates_out_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCompiler(monkeypatch, lambda _: 1.0, failing=("direction", (4096, 8)))
    (result,) = _tune(tmp_path, _case())
    points = build_space("triton", 1, threads=0).points()
    assert len(result.ranked) == sum((p["block"], p["num_warps"]) != (4096, 8) for p in points)
    assert [(request.part, failure.kind) for request, failure in result.failures] == [(("direction", (4096, 8)), "compile")]

    default = SPECS["triton"].default(1)
    FakeCompiler(monkeypatch, lambda _: 1.0, failing=("direction", (default["block"], default["num_warps"])))
    (broken,) = _tune(tmp_path / "other", _case())
    assert (broken.entry, broken.default) == (None, None)


def test_compiling_runs_in_processes_and_reports_each() -> None:
    default, dtypes = SPECS["triton"].default(1), ALL_FLOAT32
    requests = [
        CompileRequest(kernel="update", config={**default, **change}, band=1, target=TARGET, dtypes=dtypes)
        for change in ({"update_block": 256}, {"update_block": 512}, {"update_block": 3})
    ]
    told: list[tuple[CompileRequest, Any]] = []
    outcomes = compile_all(requests, processes=1, deadline=time.monotonic() + 120, told=lambda *pair: told.append(pair))
    assert [request for request, _ in told] == requests
    for request in requests[:2]:
        built = outcomes[request.part]
        assert isinstance(built, Compiled)
        assert built.resources == getattr(answer_compile(request), "resources", None)
        assert built.stages == {}
    assert outcomes[requests[2].part] == Failure("compile", told[2][1].message)
    assert "update_block=3 is not one of" in told[2][1].message
    assert compile_all(requests, processes=1, deadline=time.monotonic() - 1, told=lambda *_: None) == {}


def test_a_wrong_target_is_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"target='h100' .*cuda:90"):
        list(tune_static([_case()], "h100", store_path=tmp_path / "t.json", deadline=0.0, told=print, warn=print, begin=print))
