"""The tree's contract: the rooms that exist, files that fit a head, every test run by a stage, nothing that names a machine."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.__main__ import SUITES
from tests.contracts.import_graph import PACKAGES, source_files

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = {".ci", "kernels", "perf", "sonew", "sonew_autotune", "tests"}
FILES: Final = {
    ".editorconfig",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints-py311.txt",
    "constraints-py312-gpu.txt",
    "pyproject.toml",
}
MAX_LINES: Final = 350
# Absolute folders of one machine, and addresses of package registries, which belong into a user's own settings.
MACHINE_NAMES: Final = re.compile(r"(?<![\w.~$}/-])/(home|root|tmp|work|workspace|mnt|Users|private)/|index-url|index_url|find-links")


def project_files() -> list[Path]:
    """Every file of the project that is text of ours."""
    top = [ROOT / name for name in FILES if (ROOT / name).is_file()]
    below = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return sorted([*top, *below])


def test_no_other_top_level_entry() -> None:
    """What is committed; outside a git checkout, what is there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\n")  # noqa: S607  # git from PATH
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}
    entries = {name.split("/")[0] for name in listed if name} or {path.name for path in ROOT.iterdir()} - ignored

    assert entries - FOLDERS - FILES == set()
    assert (FOLDERS | FILES) - entries == set()


def test_python_files_fit_a_head() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for file in project_files()
        if file.suffix == ".py" and (lines := len(file.read_text(encoding="utf-8").splitlines())) >= MAX_LINES
    }

    assert long == {}


def test_nothing_names_a_machine() -> None:
    named = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in project_files()
        if file.suffix in {"", ".cpp", ".h", ".html", ".json", ".md", ".py", ".toml", ".txt"} and file != Path(__file__).resolve()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_NAMES.search(line)
    ]

    assert named == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("see /home/me/notes", True),
        ('open("/tmp/x")', True),
        ("pip install --extra-index-url x", True),
        ("https://example.org/home/x", False),
        ("perf/tmp/x", False),
        ("~/.cache", False),
    ],
)
def test_machine_names_are_recognised(line: str, *, found: bool) -> None:
    assert bool(MACHINE_NAMES.search(line)) == found


def test_every_test_file_is_run_by_one_suite() -> None:
    """A file in no suite proves nothing; one in two costs twice."""

    def suites_of(file: Path) -> int:
        relative = file.relative_to(ROOT)
        count = 0
        for _, arguments, _ in SUITES:
            ignored = [Path(argument.removeprefix("--ignore=")) for argument in arguments if argument.startswith("--ignore=")]
            chosen = [Path(argument) for argument in arguments if not argument.startswith("--")]
            count += any(relative.is_relative_to(path) for path in chosen) and not any(relative.is_relative_to(path) for path in ignored)
        return count

    files = sorted((ROOT / "tests").rglob("test_*.py"))

    assert Path(__file__).resolve() in files
    assert {str(file.relative_to(ROOT)): suites_of(file) for file in files if suites_of(file) != 1} == {}
    assert all((ROOT / argument).is_dir() for _, arguments, _ in SUITES for argument in arguments if not argument.startswith("--"))


def test_the_distribution_names_what_exists() -> None:
    """Packages, console scripts and the version, as pyproject.toml states them."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    modules = source_files(ROOT)
    names = {
        module: {name.id for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) for name in assigned(node)}
        for module, file in modules.items()
    }

    assert set(config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(PACKAGES)
    assert config["tool"]["hatch"]["version"]["path"] == "sonew/__init__.py"
    for target in config["project"]["scripts"].values():
        module, _, attribute = target.partition(":")
        assert attribute in names[module], target


def assigned(node: ast.AST) -> list[ast.Name]:
    """Names that an assignment statement sets."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target for target in targets if isinstance(target, ast.Name)]


def test_shipped_configurations_are_json() -> None:
    for file in (ROOT / "kernels/sonew_kernels/tuned").glob("*"):
        assert file.suffix == ".json", file
        assert {"schema_version", "entries"} <= set(json.loads(file.read_text(encoding="utf-8"))), file
