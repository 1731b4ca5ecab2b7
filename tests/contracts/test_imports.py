"""Imports go downward only, frameworks never meet, and importing has no effect."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.contracts.import_graph import LAYERS, PACKAGES, edges, reach, source_files, violations

ROOT: Final = Path(__file__).resolve().parents[2]
MEASUREMENT: Final = "sonew_autotune.measure"


def copy_sources(target: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def plant(tree: Path, file: str, code: str) -> None:
    with (tree / file).open("a", encoding="utf-8") as source:
        source.write(f"\n\n{code}\n")


def probe(*modules: str, root: Path = ROOT) -> dict[str, list[str]]:
    """What importing these in a fresh interpreter loads and does."""
    paths = os.pathsep.join([*(str(root / folder) for folder in (".", "kernels", "perf")), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.contracts.import_probe", str(root), *modules]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    report: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_the_tree_keeps_the_import_order() -> None:
    assert violations(ROOT) == []


def test_the_packages_are_read_at_all() -> None:
    modules = source_files(ROOT)

    assert {name.split(".", 1)[0] for name in modules} == {"sonew", "sonew_autotune", "sonew_kernels", "sonew_perf"}
    assert ("sonew.torch.optimizer", "torch") in {(edge.importer, edge.imported) for edge in edges(ROOT)}


@pytest.mark.parametrize(
    ("file", "planted", "expected"),
    [
        ("sonew/config.py", "import sonew_autotune", "(core) imports sonew_autotune (autotune)"),
        ("sonew/config.py", "import numpy", "(core) imports numpy"),
        ("sonew/config.py", "from sonew import torch", "(core) imports sonew.torch (torch surface)"),
        ("sonew/layout.py", "from sonew_kernels import spec", "(core) imports sonew_kernels.spec (specs)"),
        ("sonew/layout.py", "def late():\n    from . import dispatch", "(core) imports sonew.dispatch (dispatch)"),
        ("kernels/sonew_kernels/spec.py", "import triton", "(specs) imports triton"),
        ("kernels/sonew_kernels/band.py", "from sonew.config import Hyper", "(kernels) imports sonew.config (core)"),
        ("sonew/backends/table.py", "import sonew.dispatch", "(backends) imports sonew.dispatch (dispatch)"),
        ("sonew/backends/table.py", "import jax", "(backends) reaches jax and torch, allowed 1"),
        ("sonew/dispatch.py", "from sonew.backends import table", "(dispatch) imports sonew.backends.table (backends)"),
        ("sonew/dispatch.py", "import_module('torch')", "(dispatch) imports torch"),
        ("sonew/torch/optimizer.py", "import jax", "(torch surface) imports jax"),
        ("sonew/torch/optimizer.py", "import sonew_perf", "(torch surface) imports sonew_perf (perf)"),
        ("sonew_autotune/__init__.py", "import sonew_perf", "(autotune) imports sonew_perf (perf)"),
        ("sonew_autotune/__init__.py", "import optuna", "(autotune) imports optuna"),
        ("sonew_autotune/commands/render.py", "from sonew_autotune.search import tuner", "(autotune) loads optuna when it is imported"),
        ("perf/sonew_perf/__init__.py", "import optuna", "(perf) imports optuna"),
        ("perf/sonew_perf/__init__.py", "import pytorch_optimizer", "(perf) imports pytorch_optimizer"),
        ("perf/sonew_perf/__init__.py", "import tests", "(perf) imports tests"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, file: str, planted: str, expected: str) -> None:
    tree = copy_sources(tmp_path)
    plant(tree, file, planted)

    new = set(violations(tree)) - set(violations(ROOT))
    assert any(expected in line for line in new), new


def test_allowed_packages_are_declared() -> None:
    """What a layer may import, the distribution asks for; the core's needs are unconditional."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {requirement.split(";")[0].split("[")[0].split(">")[0].split("<")[0].strip() for requirement in requirements}

    always = names(project["dependencies"])
    declared = always.union(*map(names, project["optional-dependencies"].values()))
    allowed = {name.replace("_", "-") for layer in LAYERS for name in (*layer.third_party, *layer.deferred)}
    core = {name for layer in LAYERS if layer.name in {"core", "specs", "dispatch"} for name in layer.third_party}

    assert allowed - declared == set()
    assert core - always == set()


def test_measurement_loads_no_optuna() -> None:
    """It is shared with the benchmarks, which ask for a study and never make one."""
    assert "optuna" not in reach(edges(ROOT), deferred=False)[MEASUREMENT]


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (("sonew", "sonew.dispatch", "sonew.reference", "sonew_kernels.spec"), {"jax", "numpy", "optuna", "torch", "triton"}),
        (("sonew.torch",), {"jax", "jaxlib", "optax", "optuna", "sonew_autotune"}),
        (("sonew.jax",), {"jax_triton", "optuna", "sonew_autotune", "torch", "triton"}),
        ((MEASUREMENT,), {"jax", "jaxlib", "optax", "optuna"}),
    ],
)
def test_importing_leaves_the_others_out(modules: tuple[str, ...], absent: set[str]) -> None:
    loaded = set(probe(*modules)["loaded"])

    assert {name.split(".", 1)[0] for name in modules} <= loaded
    assert loaded & absent == set()


def test_importing_everything_has_no_effect() -> None:
    third_party = sorted({edge.imported for edge in edges(ROOT)} - set(source_files(ROOT)))
    own = [name for name in source_files(ROOT) if not name.endswith("__main__")]

    assert probe(*third_party, *own)["effects"] == []


def test_planted_effects_are_found(tmp_path: Path) -> None:
    tree = copy_sources(tmp_path)
    plant(tree, "sonew/layout.py", "import os\nHOME = os.environ.get('HOME')")
    plant(tree, "sonew/paths.py", "STORE = store_path()")
    plant(tree, "sonew/backends/table.py", "GPU = torch.cuda.is_available()")
    plant(tree, "sonew/backends/reference_torch.py", "import subprocess\nsubprocess.run(['true'])")

    report = probe("torch", "sonew.layout", "sonew.paths", "sonew.backends.table", "sonew.backends.reference_torch", root=tree)

    found = {(effect.split(":")[0], effect.split(" ", 1)[1].split(" /")[0]) for effect in report["effects"]}
    assert found >= {
        ("sonew/layout.py", "environment HOME"),
        ("sonew/paths.py", "environment SONEW_STORE"),
        ("sonew/backends/table.py", "torch.cuda.is_available"),
        ("sonew/backends/reference_torch.py", "subprocess.Popen true"),
    }
