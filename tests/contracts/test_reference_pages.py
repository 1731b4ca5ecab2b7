"""What `make docs` promises: every public name has its place, its arguments are described, and a docstring that is wrong ends it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = ROOT / "tests/reference_pages"
OPTIONS: Final = ("--fresh-env", "--write-all", "--fail-on-warning", "--quiet")
SURFACES: Final = ("sonew", "sonew.torch", "sonew.jax", "sonew_autotune")  # packages that people import from

HEALTHY: Final = '''
def healthy(count, *rest):
    """As it should be: |u|, `count`, `planted.healthy`.

    Args:
        count, rest: described together.
    """
'''
FAULTS: Final = '''
def markup():
    """An *emphasis that does not end."""


def reference():
    """A name that is gone: `sonew.no_such_name`."""


def argument(count):
    """Described under another name.

    Args:
        counts: how many.
    """


class Attribute:
    """Described, and not there.

    Attributes:
        total: of all.
    """
'''


def build(source: Path, target: Path, *, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run what `make docs` runs, in a process of its own: it loads torch and JAX."""
    command = [sys.executable, "-m", "sphinx", *OPTIONS, "--conf-dir", str(PAGES), str(source), str(target)]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All pages as one text."""
    target = tmp_path_factory.mktemp("api")
    done = build(PAGES, target)
    assert done.returncode == 0, done.stderr
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(target.glob("*.html")))


def described(page: str, name: str) -> set[str]:
    """Arguments that the reference describes for an object, whose entry ends where the next one begins."""
    entry = re.search(rf'<dt class="sig[^>]*id="{re.escape(name)}">(.*?)(?=<dt class="sig|\Z)', page, re.DOTALL)
    assert entry is not None, name
    return set(re.findall(r"<strong>(\w+)</strong>", entry[1]))


def arguments(file: str, function: str) -> set[str]:
    """Arguments of a function as its source states them."""
    nodes = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    (found,) = (node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == function)
    return {argument.arg for argument in (*found.args.args, *found.args.kwonlyargs)} - {"self"}


def test_make_docs_runs_what_is_tested() -> None:
    """Without a fresh environment a second run would forget the warnings of the first."""
    recipe = re.search(r"^docs:.*\n\t@(.*)\n", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert recipe is not None
    assert recipe[1] == f".venv/bin/python -m sphinx {' '.join(OPTIONS)} $(ARGS) {PAGES.relative_to(ROOT)} build/api"


@pytest.mark.parametrize("package", SURFACES)
def test_every_public_name_has_its_place(page: str, package: str) -> None:
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    assignments = (node for node in tree.body if isinstance(node, ast.Assign))
    (names,) = (ast.literal_eval(node.value) for node in assignments if ast.unparse(node.targets[0]) == "__all__")

    assert names
    assert [name for name in names if name != "__version__" and f'id="{package}.{name}"' not in page] == []


@pytest.mark.parametrize(
    ("name", "file", "function"),
    [
        ("sonew.torch.SONew", "sonew/torch/optimizer.py", "__init__"),
        ("sonew.torch.SONew.step", "sonew/torch/optimizer.py", "step"),
        ("sonew.torch.param_groups", "sonew/torch/policies.py", "param_groups"),
        ("sonew.jax.sonew", "sonew/jax/transform.py", "sonew"),
        ("sonew.jax.scale_by_sonew", "sonew/jax/transform.py", "scale_by_sonew"),
        ("sonew_autotune.tune", "sonew_autotune/api.py", "tune"),
    ],
)
def test_every_argument_is_described(page: str, name: str, file: str, function: str) -> None:
    wanted = arguments(file, function)

    assert wanted
    assert wanted - described(page, name) == set()


def test_planted_faults_are_found(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(HEALTHY + FAULTS, encoding="utf-8")
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.rst").write_text("Planted\n=======\n\n.. automodule:: planted\n   :members:\n", encoding="utf-8")

    done = build(source, tmp_path / "target", path=tmp_path)

    assert done.returncode == 1
    assert set(re.findall(r"docstring of planted\.(\w+)", done.stderr)) == {"markup", "reference", "argument", "Attribute"}
    assert (tmp_path / "target/index.html").is_file()
