from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sonew.errors import InvalidConfigError
from sonew_perf.compare.environments import differing_dependencies, interpreter
from sonew_perf.compare.sides import Side, checked_out, parse_side
from sonew_perf.errors import MeasurementError


def _git(root: Path, *arguments: str) -> str:
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(root), *names, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits, the first one tagged; the second one changes the file."""
    root = tmp_path_factory.mktemp("repository")
    _git(root, "init", "--quiet", "--initial-branch", "main")
    for text in ("first", "second"):
        (root / "speed.txt").write_text(text)
        _git(root, "add", "speed.txt")
        _git(root, "commit", "--quiet", "-m", text)
        if text == "first":
            _git(root, "tag", "v1")
    return root


def test_a_side_is_a_commit_a_tag_or_the_working_tree(repository: Path) -> None:
    first, second = (_git(repository, "rev-parse", name) for name in ("v1", "main"))
    assert parse_side("v1", root=repository).commit == first
    assert parse_side(second[:10], root=repository).commit == second
    here = parse_side(".", root=repository)
    assert (here.commit, here.in_place, here.modified) == (second, True, False)
    assert here.commit_date.startswith("20")
    (repository / "new.txt").write_text("not committed")
    assert parse_side(".", root=repository).modified
    assert not parse_side("main", root=repository).modified
    (repository / "new.txt").unlink()


def test_a_commit_is_unpacked_aside_and_leaves_the_repository_as_it_was(repository: Path) -> None:
    before = _git(repository, "worktree", "list")
    with checked_out(parse_side("v1", root=repository), root=repository) as tree:
        assert (tree / "speed.txt").read_text() == "first"
        assert tree != repository
    assert not tree.exists()
    assert _git(repository, "worktree", "list") == before
    assert _git(repository, "status", "--porcelain") == ""
    with checked_out(parse_side(".", root=repository), root=repository) as tree:
        assert tree == repository


def test_a_side_names_its_configurations(repository: Path, tmp_path: Path) -> None:
    assert parse_side(".@off", root=repository).tuning == "off"
    winners = tmp_path / "winners.json"
    winners.write_text("{}")
    side = parse_side(f"v1@{winners}", root=repository)
    assert (side.tuning, side.store, side.in_place) == ("on", winners, False)
    assert len(str(side.described()["store"])) == 12


@pytest.mark.parametrize("spec", ["nowhere", "", "@off", ".@fast", "--output=x", "v1 --hard"])
def test_a_name_that_is_none_is_refused_with_what_may_stand_there(repository: Path, spec: str) -> None:
    with pytest.raises(InvalidConfigError, match="A side is a commit"):
        parse_side(spec, root=repository)


def test_outside_a_repository_only_the_working_tree_can_be_measured(tmp_path: Path) -> None:
    assert parse_side(".", root=tmp_path).commit == ""
    with pytest.raises(InvalidConfigError, match="no commit that git knows"):
        parse_side("main", root=tmp_path)


def test_the_environment_is_this_one_a_chosen_one_or_one_of_its_own(tmp_path: Path) -> None:
    side = Side(spec="v1", commit="0" * 40)
    assert "python" in Path(interpreter(side, tmp_path)).name
    (tmp_path / "python").touch(mode=0o755)
    assert interpreter(side, tmp_path, environment="own", python=tmp_path / "python") == str(tmp_path / "python")
    with pytest.raises(InvalidConfigError, match="is no program"):
        interpreter(side, tmp_path, python=tmp_path / "missing")
    with pytest.raises(MeasurementError, match="make env failed"):
        interpreter(side, tmp_path, environment="own")
    (tmp_path / "Makefile").write_text("env:\n\t@mkdir -p .venv/bin\n")
    assert interpreter(side, tmp_path, environment="own") == str(tmp_path / ".venv" / "bin" / "python")


def test_dependencies_that_differ_are_named(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for tree in (one, other):
        tree.mkdir()
        (tree / "pyproject.toml").write_text("same")
    assert differing_dependencies(one, other) == []
    (other / "constraints-py311.txt").write_text("new")
    assert differing_dependencies(one, other) == ["constraints-py311.txt"]
