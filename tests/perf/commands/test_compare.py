from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from sonew_perf.cli import app
from sonew_perf.cli import compare as command
from sonew_perf.compare.cases import Case
from tests.perf.compare.played import Played, drawn

QUICK = ("--launches", "3", "--rounds", "8", "--device", "cpu")


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *(str(argument) for argument in arguments)])


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """Processes replaced by drawn noise; what the test puts in slows the head's cases down, by name, "" standing for all."""
    slower: dict[str, float] = {}
    rng = np.random.default_rng(0)

    class Drawn(Played):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__({})

        def __enter__(self) -> Played:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def prepare(self, wanted: Case) -> tuple[int, list[dict[str, Any]]]:
            self.samples = {**self.samples, **drawn(rng, [wanted.name], 8, scatter=0.004)}
            self.slower = {**self.slower, wanted.name: slower.get(wanted.name, slower.get("", 1.0))}
            return super().prepare(wanted)

    monkeypatch.setattr(command, "launched", Drawn)
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path / "store"))
    return slower


def test_equal_sides_are_exit_code_0_and_the_record_goes_to_the_store(play: dict[str, float], tmp_path: Path) -> None:
    assert play == {}
    done = _call("HEAD", *QUICK)
    assert done.exit_code == 0, done.output
    assert "SAME" in done.output
    assert "UNSURE" not in done.output
    (stored,) = (tmp_path / "store" / "compares").iterdir()
    about = json.loads(stored.read_text())["comparison"]
    assert (about["base"]["spec"], about["head"]["spec"], about["mode"]) == ("HEAD", ".", "A/B")


def test_a_confirmed_slowdown_is_exit_code_1_unless_it_is_allowed(play: dict[str, float], tmp_path: Path) -> None:
    play[""] = 1.06
    output, markdown = tmp_path / "record.json", tmp_path / "table.md"
    done = _call("HEAD", ".", *QUICK, "--json", "--no-keep", "--output", output, "--markdown", markdown)
    assert done.exit_code == 1
    assert json.loads(done.stdout) == json.loads(output.read_text())
    assert {entry["verdict"] for entry in json.loads(done.stdout)["entries"]} == {"SLOWER"}
    assert "| SLOWER |" in markdown.read_text()
    assert not (tmp_path / "store").exists()
    assert _call("HEAD", *QUICK, "--fail-on", "8").exit_code == 0


def test_a_side_with_itself_tells_the_noise_floor(play: dict[str, float]) -> None:
    assert play == {}
    done = _call(".", "--aa", *QUICK)
    assert done.exit_code == 0, done.output
    assert "Noise floor: equals differed by up to 0." in done.output


def test_cases_can_be_chosen(play: dict[str, float]) -> None:
    assert play == {}
    chosen = ("--size", "1000", "--band", "0", "--band", "2", "--framework", "torch", "--framework", "jax")
    entries = json.loads(_call("HEAD", *QUICK, *chosen, "--json").stdout)["entries"]
    assert [(entry["framework"], entry["band"], entry["elements"]) for entry in entries] == [
        ("torch", 0, 1000),
        ("torch", 2, 1000),
        ("jax", 0, 1000),
        ("jax", 2, 1000),
    ]
    (only,) = json.loads(_call("HEAD", *QUICK, *chosen, "--only", "jax*band 2*", "--json").stdout)["entries"]
    assert only["case"] == "jax step, band 2, 1000 elements"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("no-such-commit",), "no commit that git knows"),
        ((".", "HEAD", "--aa"), "Leave it out, or leave out --aa"),
        ((".", "--effort", "heroic"), "'heroic' is not one of"),
        ((".", "--only", "nothing"), "matches none of"),
        ((".", "--band", "9"), "band=9 is not one of"),
        ((".", "--model", "huge"), "model='huge' is not one of"),
        ((".", "--launches", "1"), "launches=1 of rounds=30 judge nothing"),
        ((".", "--tolerance", "0"), "tolerance=0 is not allowed"),
        ((".", "--python-head", "missing"), "is no program"),
    ],
)
def test_wrong_use_is_exit_code_2_with_the_fix(play: dict[str, float], arguments: tuple[str, ...], named: str) -> None:
    assert play == {}
    done = _call(*arguments, "--device", "cpu")
    assert done.exit_code == 2, done.output
    assert named in " ".join(done.output.replace("│", " ").split())


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(play: dict[str, float], tmp_path: Path) -> None:
    assert play == {}
    (tmp_path / "file").touch()
    for option in ("--store", "--output", "--markdown"):
        done = _call("HEAD", *QUICK, option, tmp_path / "file" / "below")
        assert done.exit_code == 2, done.output
        assert "cannot be written" in done.output
        assert "measuring" not in done.output
