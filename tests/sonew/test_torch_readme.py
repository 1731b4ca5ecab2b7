"""torch's own README: its programs run one after the other, and what it says of names and files is so."""

from __future__ import annotations

import re
from inspect import signature
from typing import Any, Final

import pytest
import torch

from sonew.layout import VERSION
from sonew.torch import SONew
from sonew.torch.state import KEPT
from tests.readme import ROOT, fenced

FOLDER: Final = ROOT / "sonew" / "torch"
PAGE: Final = (FOLDER / "README.md").read_text(encoding="utf-8")
# A block may stand in a list, where it is indented.
PROGRAMS: Final = fenced(re.sub(r"^  (?=```|\S.*$|$)", "", PAGE, flags=re.MULTILINE), "python")
TORCHS: Final = {"fullgraph", "mode"}  # arguments of torch.compile


@pytest.fixture(scope="module")
def page() -> tuple[dict[str, Any], list[str]]:
    """What the programs leave behind, and print."""
    names: dict[str, Any] = {"__name__": "readme", "print": lambda *values: printed.append(" ".join(map(str, values)))}
    printed: list[str] = []
    for program in PROGRAMS:
        exec(compile(program, "sonew/torch/README.md", "exec"), names)  # noqa: S102  # our own page
    return names, printed


def test_groups_have_settings_of_their_own(page: tuple[dict[str, Any], list[str]]) -> None:
    names, printed = page
    first, second = names["optimizer"].param_groups
    assert (first["band"], first["lr"]) == (1, 3e-3)
    assert (second["band"], second["lr"]) == (0, 5e-3)
    assert [re.findall(r"band \d", line) for line in printed[0].splitlines()] == [["band 1"], ["band 0"]]
    assert all(int(state["count"]) == 2 for state in names["optimizer"].state.values())


def test_optimizers_in_hooks_step_and_free(page: tuple[dict[str, Any], list[str]]) -> None:
    names, printed = page
    assert printed[1] == "[None, None, None, None]"
    assert all(int(own.state[param]["count"]) == 1 for param, own in names["own"].items())
    assert all(torch.isfinite(param).all() for param in names["own"])


def test_a_state_is_fitted_to_another_band(page: tuple[dict[str, Any], list[str]]) -> None:
    names, printed = page
    assert printed[2] == "0.003 (5, 32, 64)"
    weight = names["model"][0].weight
    rows, before = (names[which].state[weight]["stats"] for which in ("wider", "optimizer"))
    assert torch.equal(rows[:2], before)
    assert not rows[2:].any()
    assert len(printed) == 3


def test_the_arguments_are_those_of_the_optimizer() -> None:
    arguments = set(signature(SONew).parameters)
    shown = set(re.findall(r"`(?:SONew\()?(\w+)=", PAGE)) | set(re.findall(r"`[^`\n]*, (\w+)=", PAGE))
    assert {"decoupled_weight_decay", "state_dtype", "graft", "chain", "band", "counters"} <= shown
    assert shown - arguments - TORCHS == set()
    table = PAGE.split("## Arguments that torch's optimizers share")[1].split("\n\n")[1]
    first = [re.findall(r"`(\w+)`", line.split(" | ")[0]) for line in table.splitlines()[2:]]
    assert {"lr", "weight_decay", "maximize", "capturable", "foreach", "fused", "differentiable"} <= {name for row in first for name in row}


def test_what_a_checkpoint_does_not_choose() -> None:
    said = re.search(r"not the checkpoint's business: (.+?) stay as they are", PAGE, re.DOTALL)
    assert said is not None
    assert set(re.findall(r"`(\w+)`", said[1])) == set(KEPT)
    assert f"another version than {VERSION} is refused" in PAGE


def test_every_file_has_its_place() -> None:
    section = PAGE.split("## Files, in the order in which a step passes them")[1]
    files = {file.name for file in FOLDER.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(\w+\.py)`", section)) == files
