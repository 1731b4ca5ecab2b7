"""`warm` from outside, and the launches it takes a training to need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import triton

from sonew import paths
from sonew.config import LaunchConfig, Problem
from sonew.tuned import Entry, make_key
from sonew_autotune.commands import inspection
from sonew_autotune.commands.choices import Variants, launches_of, launches_there
from sonew_autotune.compiler.warm import Launch
from sonew_autotune.settings import Problems
from sonew_kernels.spec import SPECS, source_hash
from tests.autotune.commands.command_line import entries, invoke


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for Triton."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stored(kind: str, device: str, block: int, band: int = 0) -> Entry:
    """An entry for an H100 or for every GPU of its capability."""
    environment: dict[str, str | int] = {
        "device": device,
        "capability": "cuda:90",
        "threads": 0,
        "toolchain": f"triton {triton.__version__}",
    }
    key = make_key(Problem(device="cuda", band=band, total=2**20, median=2**20), "triton", environment, source_hash("triton"))
    config = {"block": block, "num_warps": 8, "update_block": 1024, "update_num_warps": 4}
    return Entry(key=key, kind=kind, config=LaunchConfig.of("triton", config), evidence={})  # type: ignore[arg-type]


def write_store(*kept: Entry) -> None:
    path = paths.store_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema_version": 1, "entries": [entry.as_json() for entry in kept]}), encoding="utf-8")


def blocks(launches: Sequence[Launch]) -> list[tuple[int, int]]:
    """(band, block) of each launch."""
    return [(launch.band, launch.config.as_dict()["block"]) for launch in launches]


@pytest.fixture
def unshipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No entries but the user's."""
    monkeypatch.setattr(inspection, "shipped_store_paths", list)


@pytest.mark.usefixtures("unshipped")
def test_the_configurations_are_those_that_would_be_chosen_there() -> None:
    """By stored entries where some are usable there, one per GPU of that capability; else, and for named problems, the defaults, too."""
    everything, nothing = Problems(), Variants()
    defaults = [(band, SPECS["triton"].default(band)["block"]) for band in (1, 2, 4)]
    assert blocks(launches_there(everything, nothing, "cuda:90")) == defaults
    write_store(stored("static", "any", 2048), stored("measured", "NVIDIA H100", 256), stored("measured", "NVIDIA H200", 1024))
    assert blocks(launches_there(everything, nothing, "cuda:90")) == [(0, 2048), (0, 256), (0, 1024)]
    assert blocks(launches_there(everything, nothing, "cuda:80")) == defaults
    assert blocks(launches_there(Problems(bands=[1], sizes=[9]), nothing, "cuda:90")) == [(1, 1024)]
    assert blocks(launches_there(Problems(bands=[0], sizes=[9]), nothing, "cuda:90")) == [(0, 2048), (0, 256), (0, 1024)]


def test_shipped_entries_are_chosen_from_and_do_not_ask_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cover every band and type; only what the user tuned or names is compiled."""
    write_store(*(stored("static", "any", 512, band) for band in (0, 1)))
    shipped = paths.store_path().rename(tmp_path / "shipped.json")
    monkeypatch.setattr(inspection, "shipped_store_paths", lambda: [shipped])
    by_default = {band: SPECS["triton"].default(band)["block"] for band in (1, 2, 4)}
    assert blocks(launches_there(Problems(), Variants(), "cuda:90")) == [*{**by_default, 1: 512}.items()]
    write_store(stored("measured", "NVIDIA H100", 256))
    assert blocks(launches_there(Problems(), Variants(), "cuda:90")) == [(0, 512), (0, 256)]


def test_variants_multiply_where_they_change_the_code() -> None:
    problem = Problem(device="cuda", band=1, chain="row", param_dtype="bfloat16", total=9, median=9)
    config = LaunchConfig.of("triton", SPECS["triton"].default(1))
    both = Variants(grafts=("sgd", "adam"), counters=True, sharded=True, stochastic_rounding=True)
    found = launches_of([(problem, config), (problem, config)], both)
    assert len(found) == len(set(found)) == 2**5
    assert {launch.graft for launch in found} == {"adam", "sgd"}
    plain_problem = Problem(device="cuda", band=1, total=9, median=9)
    assert launches_of([(plain_problem, config)], Variants(stochastic_rounding=True)) == [Launch(band=1, config=config)]


@pytest.mark.usefixtures("unshipped")
def test_the_command_tells_what_was_there(cache: Path) -> None:
    write_store(stored("static", "any", 512))
    code, out, err = invoke("warm", "--target", "cuda:90", "--json")
    made = entries(out)
    assert (code, [entry["cached"] for entry in made]) == (0, [False] * 6)
    assert {entry["launch"]["config"]["block"] for entry in made} == {512}
    assert {entry["tiles"] for entry in made} == {"", "several tiles", "one tile", "a multiple of 16 tiles"}
    assert "6 compiled in" in err
    assert f"Triton's cache: {cache}" in err
    code, out, _ = invoke("warm", "--target", "cuda:90")
    assert code == 0
    assert "0 compiled in 0.0 s, 6 were there." in out
    assert out.count("was there") == 6


def test_on_a_cpu_the_library_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("warm", "--device", "cpu", "--band", "1", "--size", "100")
    invoke(*arguments)
    code, out, _ = invoke(*arguments, "--json")
    assert code == 0
    assert [(entry["kernel"], entry["band"], entry["cached"]) for entry in entries(out)] == [("cpu", 1, True)]
    monkeypatch.setenv("CXX", "no-such-compiler")
    code, out, _ = invoke(*arguments)
    assert code == 1
    assert "failed: no C++ compiler found" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "h100"), "target='h100' is not of the form"),
        (("--graft", "lion"), "graft='lion' is not one of"),
        (("--chain", "column"), "chain='column' is not one of"),
        (("--band", "99", "--target", "cuda:90"), "band=99 is not one of"),
        (("--device", "tpu"), "device='tpu' is not one of"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(arguments: tuple[str, ...], message: str) -> None:
    code, out, err = invoke("warm", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
