"""CONTRIBUTING.md keeps its word: its snippets run against the code as it is, and each command, file and name in it exists."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner

import sonew_autotune.cli
import sonew_perf.cli
from tests.contracts.import_graph import source_files
from tests.contracts.test_tree import ROOT, project_files

PAGE: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FENCED: Final = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PROSE: Final = " ".join(FENCED.sub("", PAGE).split())
QUOTED: Final = re.findall(r"`([^`]+)`", PROSE)
RECIPES: Final = ["A band", "A dtype", "A backend", "A kernel", "A device", "A benchmark case", "A training method or task"]

APPS: Final = {"sonew-autotune": sonew_autotune.cli.app, "sonew-perf": sonew_perf.cli.app}
OTHERS: Final = {"apt-get", "cd", "git", "pip"}  # programs of others
RUN: Final = {"check", "explain", "run --list"}  # commands of ours that measure nothing and take no time
ELSEWHERE: Final = ("build/", "/proc/", "/path")  # what is made, or is not ours
TABLES: Final = {"ARCHITECTURES", "MODELS", "SUPPORTED_BANDS"}

FILE: Final = r"`[^`]*[/.][^`]*`|`Makefile`"
NAMES: Final = r"`\w+`(?:(?:, | and | or |, and )`\w+`)*"
DEFINED: Final = re.compile(rf"({NAMES})(?: in |: | \()({FILE})((?:(?:, | and )(?:{FILE}))*)")


def snippets(language: str) -> list[str]:
    """The fenced blocks of a language, also those inside lists."""
    return [textwrap.dedent(text) for _, found, text in FENCED.findall(PAGE) if found == language]


def commands() -> list[str]:
    """Every command line: those of the console blocks, and those in the prose."""
    shown = [line for block in snippets("console") for line in block.splitlines()]
    programs = ("make ", ".venv/bin/", *APPS, *(f"{name} " for name in OTHERS))
    return list(dict.fromkeys([*shown, *(text for text in QUOTED if text.startswith(programs))]))


def targets() -> set[str]:
    """Targets of the Makefile that are for people."""
    return set(re.findall(r"^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def is_file(text: str) -> bool:
    """Whether quoted text is meant as a file or folder of the project."""
    return bool(re.fullmatch(r"[\w./-]+", text)) and not text.startswith(ELSEWHERE) and ("/" in text or Path(text).suffix != "")


def defined_in(file: Path) -> set[str]:
    """Names that a Python file binds; the words of any other file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        return set(re.findall(r"\w+", text))
    nodes = list(ast.walk(ast.parse(text)))
    made = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return made | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def parsed(app: typer.Typer, arguments: list[str]) -> dict[str, Any]:
    """The arguments as the command line takes them, its checks of values included; nothing is run."""
    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    taken: dict[str, Any] = group.commands[name].make_context(name, rest).params
    return taken


def test_the_recipes_are_there_and_the_page_is_read_in_ten_minutes() -> None:
    adding = PAGE.split("## Adding something\n")[1].split("\n## ")[0]
    assert re.findall(r"^### (.+)$", adding, re.MULTILINE) == RECIPES
    assert len(PAGE.split()) < 3000


@pytest.mark.parametrize("code", snippets("python"))
def test_a_snippet_runs(code: str) -> None:
    """One that names a file runs in its module's names, and adds to the module's tables something that they lack."""
    place = re.match(r"# (\S+\.py)\n", code)
    if place is None:
        exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "snippet"})  # noqa: S102  # our own page
        return
    module = import_module({str(file.relative_to(ROOT)): name for name, file in source_files(ROOT).items()}[place[1]])
    names = dict(vars(module))
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)  # noqa: S102  # our own page
    made = {name: value for name, value in names.items() if name != "__builtins__" and value is not vars(module).get(name)}
    assert made
    for name in TABLES & set(made):
        assert set(vars(module)[name]) < set(made[name])


@pytest.mark.parametrize("line", commands())
def test_a_command_is_taken_as_it_is_shown(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    program, arguments = Path(words[0]).name, words[1:]
    if program == "make":
        assert not arguments or arguments[0] in targets()
    elif program == "python":
        assert arguments[0] == "-m"
        assert arguments[1] in ("pytest", "tests")
        check_pytest(arguments[2:])
    elif program in APPS:
        assert parsed(APPS[program], arguments)
        if any(" ".join(arguments).startswith(shown) for shown in RUN):
            monkeypatch.chdir(tmp_path)
            result = CliRunner().invoke(APPS[program], arguments)
            assert result.exit_code == 0, result.output
    else:
        assert program in OTHERS


def check_pytest(arguments: list[str]) -> None:
    """Paths exist, marks are declared, and a name to be selected is one that the file makes."""
    options = dict(itertools.pairwise(arguments))
    paths = [ROOT / text for text in arguments if text.startswith("tests/")]
    assert all(path.exists() for path in paths)
    assert options.get("-m") in (None, "not full")
    if (word := options.get("-k")) is not None:
        made = re.compile(re.sub(r"\d+", r"\\{\\w+\\}", word))
        assert any(made.search(path.read_text(encoding="utf-8")) for path in paths)


@pytest.mark.parametrize(("line", "reason"), [("run --bandwidth 1", "No such option"), ("run --size many", "valid integer")])
def test_wrong_options_would_be_found(line: str, reason: str) -> None:
    assert parsed(APPS["sonew-autotune"], ["run", "--band", "1"])["band"] == [1]
    with pytest.raises(Exception, match=reason):
        parsed(APPS["sonew-autotune"], shlex.split(line))


def test_every_file_exists() -> None:
    """By its path, or by a name that is in the tree; links too."""
    names = {file.name for file in project_files()}
    named = {text for text in QUOTED if is_file(text)} | {link.split("#")[0] for link in re.findall(r"\]\((?!https?:)([^)]+)\)", PROSE)}
    assert len(named) > 30
    assert {text for text in named if not ((ROOT / text).exists() or ("/" not in text and text in names))} == set()


def test_every_name_is_defined_where_the_page_says() -> None:
    missing, found = [], 0
    for listed, first, more in DEFINED.findall(PROSE):
        for text in (text for text in re.findall(r"`([^`]+)`", first + more) if is_file(text) or text == "Makefile"):
            files = [ROOT / text] if (ROOT / text).exists() else [file for file in project_files() if file.name == text]
            for name in re.findall(r"`(\w+)`", listed):
                found += 1
                missing += [] if any(file.is_file() and name in defined_in(file) for file in files) else [f"{name} in {text}"]
    assert found > 30
    assert missing == []


def test_every_other_name_is_a_word_of_the_code() -> None:
    own = {Path(__file__).resolve(), ROOT / "CONTRIBUTING.md"}
    code = [file for file in project_files() if file.suffix in {".cpp", ".h", ".py", ".toml"} and file not in own]
    words = set(re.findall(r"\w+", "\n".join(file.read_text(encoding="utf-8") for file in code)))
    assert {text for text in QUOTED if re.fullmatch(r"[A-Za-z_]\w*", text)} - words - {"git", "make", "Makefile"} == set()
