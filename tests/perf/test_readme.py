"""The pages of sonew-perf: their commands are what the command line takes, the cheap ones run, and the pages say nothing else of it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner

from sonew_perf.cli import app
from tests.readme import ROOT, fenced

PAGES: Final = ("README.md", "perf/README.md", "perf/sonew_perf/training/README.md")
GROUP: Final[Any] = typer.main.get_command(app)
RUNS: Final = {  # what measures and trains nothing: exit code over an empty store and the committed records, a part of what is printed
    "run --list --effort full": (0, "step/torch/"),
    "train --report": (0, "MNIST autoencoder, 6000 steps"),
    "history 'SONew band 1*'": (3, "nothing can be judged"),
    "regressions": (0, "Regressions: 0"),
}
RECORDED: Final = re.compile(r"<!-- numbers: [\w-]+ -->\n(.*?)<!-- /numbers -->", re.DOTALL)
OLDER: Final = "sonew-bf16-state"  # of an earlier form of the command, which its page calls so
OPEN: Final = {  # what stands for any value, with one
    "BAND": "1",
    "PRECISION": "fp32",
    "BETA1": "0.9",
    "BETA2": "0.9",
    "GAMMA": "0.1",
    "EPS": "1e-6",
    "EPS_REL": "0",
    "GRAFT": "sgd",
    "LR": "1e-3",
    "IDEA": "pivot-floor",
    "CHAIN": "row",
    "LAYERS": "all",
    "...": "",
}


def commands(page: str) -> list[str]:
    """Every sonew-perf line and span of a page that has a subcommand, what a record was made with among them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = [line for block in fenced(text, "console") for line in block.splitlines() if line.startswith("sonew-perf ")]
    return list(dict.fromkeys([*shown, *re.findall(r"`(?:OMP_NUM_THREADS=1 )?(sonew-perf [^`]+)`", text)]))


def words(line: str) -> list[str]:
    """A line's words after the program's name; what stands for any value is given one."""
    program, *rest = shlex.split(line, comments=True)
    assert program == "sonew-perf"
    for name, value in OPEN.items():
        rest = [re.sub(rf"(^|=){re.escape(name)}$", rf"\g<1>{value}", word) for word in rest]
    return [word for word in rest if word]


@pytest.mark.parametrize(("page", "line"), [(page, line) for page in PAGES for line in commands(page) if OLDER not in line])
def test_a_command_is_taken_as_it_is_shown(page: str, line: str) -> None:
    """By the program itself, its values too; not run."""
    command, *arguments = words(line)
    assert command in GROUP.commands, page
    if arguments or not any(parameter.required for parameter in GROUP.commands[command].params):
        GROUP.commands[command].make_context(command, arguments)


@pytest.mark.parametrize(
    ("line", "said"), [("train --method sgdm", "is not one of"), ("train --seeds 3", "No such option"), ("jax --bands 1", "No such option")]
)
def test_what_is_no_command_is_noticed(line: str, said: str) -> None:
    command, *arguments = words(f"sonew-perf {line}")
    with pytest.raises(Exception, match=said):
        GROUP.commands[command].make_context(command, arguments)


@pytest.mark.parametrize("line", RUNS)
def test_what_costs_nothing_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path))
    assert any(line == shlex.join(words(shown)) for page in PAGES for shown in commands(page))
    result = CliRunner().invoke(app, words(f"sonew-perf {line}"))
    code, said = RUNS[line]
    assert (result.exit_code, said in result.output) == (code, True), result.output


def test_every_recorded_training_names_its_command() -> None:
    """Blocks of the training page that come from today's command begin with it."""
    page = (ROOT / PAGES[2]).read_text(encoding="utf-8")
    blocks = RECORDED.findall(page)
    assert len(blocks) > 9
    assert sum(block.startswith("`sonew-perf train ") for block in blocks) == len(blocks) - 3  # the three older ones
