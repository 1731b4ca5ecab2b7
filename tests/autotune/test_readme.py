"""The tuner's README: its program runs, its commands run or are at least what the command line takes, its tables are the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from sonew_autotune.cli import app
from sonew_autotune.compiler.targets import TARGETS
from sonew_autotune.settings import EFFORTS
from sonew_autotune.trials.landscape import write_landscapes
from tests.autotune.commands.command_line import invoke
from tests.autotune.search.workers import LANDSCAPE
from tests.readme import ROOT, fenced

FOLDER: Final = ROOT / "sonew_autotune"
PAGE: Final = (FOLDER / "README.md").read_text(encoding="utf-8")
LINES: Final = [line.strip() for line in PAGE.splitlines() if line.startswith("    sonew-autotune ")]
GROUP: Final[Any] = typer.main.get_command(app)
# What the test below runs: exit codes and a part of what is printed. Left out is what needs a GPU, a database or minutes.
RUNS: Final[dict[str, tuple[tuple[int, ...], str]]] = {
    "run": ((0,), "tuned, "),
    "show --usable --sort gain": ((0,), "None of the 1 stored entries fits"),
    "explain --band 4 --size 4194304 --device cpu": ((0,), "Backend: "),
    "check": ((0,), "1 entries, 1 sound, 0 wrong"),
    "report": ((0,), "tuning-report"),
    "doctor": ((0, 1), "store: 1 stored entr"),  # 1: it finds something to fix here
    "export winners.json": ((0,), "in winners.json, sha256"),
    "import winners.json": ((0,), "1 added"),
    "worker --storage studies.journal": ((0,), "reused (tuned)"),
    "run --replay times.json --store other.json": ((0,), "reused (tuned)"),
    "validate-model": ((3,), "not validated"),
}
RECORDED: Final = ("run", "worker --storage studies.journal")  # on a recorded device, where they would measure this one
OTHER_PAGES: Final = ("README.md", "kernels/README.md", "sonew/README.md", "sonew/torch/README.md", "sonew/jax/README.md")


def words(line: str) -> list[str]:
    """A command line's words after the program's name."""
    program, *rest = shlex.split(line, comments=True)
    assert program == "sonew-autotune"
    return rest


def options(command: str) -> set[str]:
    """The options of a command."""
    return {option for parameter in GROUP.commands[command].params for option in parameter.opts} | {"--help"}


def test_the_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = fenced(PAGE, "python")
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102  # our own page
    assert capsys.readouterr().out.startswith("band 1 65536 float32 on cpu ")


@pytest.mark.parametrize("line", LINES)
def test_the_command_line_takes_each_command(line: str) -> None:
    """Parsed by the program itself, options, values and what is required; not run."""
    command, *arguments = words(line)
    context = GROUP.commands[command].make_context(command, arguments)
    assert {name for name in arguments if name.startswith("--")} <= options(command)
    assert context.params


@pytest.mark.parametrize(
    ("line", "said"),
    [("show --sorted gain", "No such option"), ("explain --band four", "valid integer"), ("run --budget", "requires an argument")],
)
def test_what_is_no_command_is_noticed(line: str, said: str) -> None:
    command, *arguments = line.split()
    with pytest.raises(Exception, match=said):
        GROUP.commands[command].make_context(command, arguments)


def test_the_commands_run_in_the_order_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of `RUNS`, in one folder; a bundle goes into a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SONEW_STORE", str(tmp_path / "other.json"))
    write_landscapes(Path("times.json"), [LANDSCAPE])
    lines = [line for line in (" ".join(words(line)) for line in LINES) if line in RUNS]
    assert sorted(lines) == sorted(RUNS)
    for line in lines:
        (command, *arguments), (codes, said) = line.split(), RUNS[line]
        recorded = ["--replay", "times.json", "--store", str(tmp_path / "other.json")] if line in RECORDED else []
        if command == "import":
            monkeypatch.setenv("SONEW_STORE", str(tmp_path / "elsewhere.json"))
        code, out, err = invoke(command, *arguments, *recorded)
        assert code in codes, (line, out, err)
        assert said in out, line
    assert (tmp_path / "tuning-report" / "index.html").is_file()


def test_options_within_sentences_exist() -> None:
    """In backticks: of the command that is named there, or of any."""
    text = re.sub(r"^ {4}[^\n]*$|^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    unknown = []
    for span in re.findall(r"`([^`]+)`", text):
        first = span.removeprefix("sonew-autotune ").split()[0]
        known = options(first) if first in GROUP.commands else set().union(*map(options, GROUP.commands))
        unknown += [f"{span}: {option}" for option in re.findall(r"--[\w-]+", span) if option not in known]
    assert unknown == []
    assert "--study" in text


@pytest.mark.parametrize("page", OTHER_PAGES)
def test_commands_on_other_pages_are_taken(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for span in re.findall(r"`(sonew-autotune [a-z][^`]*)`", text) + re.findall(r"^ *(sonew-autotune .+)$", text, re.MULTILINE):
        command, *arguments = words(span)
        assert command in GROUP.commands, span
        if arguments:
            GROUP.commands[command].make_context(command, arguments)


def test_every_command_is_in_the_page() -> None:
    missing = [command for command in GROUP.commands if f"sonew-autotune {command}" not in PAGE and f"`{command}" not in PAGE]
    assert {"run", "worker", "compile"} <= set(GROUP.commands)
    assert missing == []


def test_the_efforts_and_targets_are_those_of_the_code() -> None:
    table = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\w+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert table == [
        (name, str(s.trials), str(s.rounds), "never" if s.patience is None else str(s.patience), f"{s.budget_s:.0f}")
        for name, s in EFFORTS.items()
    ]
    assert "takes cuda:80, 90, 100, 120 and hip:gfx942, gfx950, gfx1100." in PAGE
    assert TARGETS == ("cuda:80", "cuda:90", "cuda:100", "cuda:120", "hip:gfx942", "hip:gfx950", "hip:gfx1100")


def test_the_map_names_every_room() -> None:
    section = PAGE.split("## Map")[1]
    rooms = {f"{path.name}/" if path.is_dir() else path.name for path in FOLDER.iterdir() if not path.name.startswith("_")}
    assert {room for room in rooms - {"README.md", "py.typed"} if f"`{room}`" not in section} == set()
