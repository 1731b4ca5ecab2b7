"""The README's programs run as they are printed."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.readme import NOT_INSTALLED, ROOT, blocks, imported, losses, run_blocks
from tests.tolerances import as_float64


def run_command(line: str, folder: Path) -> str:
    """Run a console line with this environment's programs; what it printed."""
    program, *arguments = shlex.split(line, comments=True)
    start = {"python": [sys.executable], "torchrun": [sys.executable, "-m", "torch.distributed.run"]}[program]
    done = subprocess.run([*start, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quick_start(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_blocks("Quick start")
    printed = capsys.readouterr().out
    assert losses(printed)[-1] < 0.1
    assert names["optimizer"].plans()[0].backend in printed


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's compiler, about torch itself
def test_pytorch(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of the section in one process: the loss falls from one to the next, and the bad step is the one that is skipped."""
    monkeypatch.chdir(tmp_path)
    names = run_blocks("PyTorch")
    printed = capsys.readouterr().out
    first, *others = losses(printed)
    assert 0 < max(others) < first
    assert "1 step skipped" in printed
    assert "group 1 (no decay)" in printed
    assert "bytes per element" in printed
    assert (tmp_path / "checkpoint.pt").exists()
    assert torch.isnan(names["model"][0].weight.grad).any()  # the guard's, on which the compiled step skipped as well
    assert names["optimizer"].read_counters().skipped == 2
    assert all(torch.isfinite(param).all() for param in names["model"].parameters())
    assert isinstance(names["adamw"], torch.optim.AdamW)


def test_trainers_snippets_are_well_formed() -> None:
    """They import only what is tried by hand and what is ours; ours exists, and takes the arguments that are shown."""
    from sonew.torch import SONew, param_groups

    shown = [block for block in blocks("PyTorch", "python") if imported(block) & NOT_INSTALLED]
    assert len(shown) == 2
    assert set().union(*map(imported, shown)) == NOT_INSTALLED
    model = torch.nn.Linear(3, 2)
    calls = [node for block in shown for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "SONew"]
    assert len(made) == 2
    for call in made:
        given: dict[str, Any] = {
            keyword.arg or "": 1e-3 if keyword.arg == "lr" else ast.literal_eval(keyword.value) for keyword in call.keywords
        }
        optimizer = SONew(param_groups(model), **given)
        assert as_float64(optimizer.param_groups[0]["lr"]) == given["lr"]


@pytest.mark.parametrize("line", [line for block in blocks("PyTorch", "console") for line in block.splitlines()])
def test_examples(line: str, tmp_path: Path) -> None:
    """The loss falls by half, and a run that was stopped ends with the bits of one that was not."""
    printed = run_command(line, tmp_path)
    found = losses(printed)
    straight, resumed = found[: len(found) // 2], found[len(found) // 2 :]
    assert straight == resumed
    assert straight[-1] < 0.5 * straight[0]
    assert "the same bits as without a stop" in printed
    assert ("1 step skipped" in printed) == ("train" in line)


def test_the_examples_are_all_in_the_readme() -> None:
    shown = " ".join(blocks("PyTorch", "console"))
    modules = [file.stem for file in (ROOT / "sonew" / "examples").glob("*.py") if file.stem != "__init__"]
    assert sorted(modules) == sorted(re.findall(r"-m sonew\.examples\.(\w+)", shown))
