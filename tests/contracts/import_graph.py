"""The import order as data, and one pure function that finds every import in a source tree that breaks it."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

PACKAGES: Final = ("kernels/sonew_kernels", "sonew", "sonew_autotune", "perf/sonew_perf")
FRAMEWORKS: Final[Mapping[str, str]] = {"torch": "torch", "jax": "jax", "jaxlib": "jax", "jax_triton": "jax", "optax": "jax"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Modules of one rank. A module belongs to the layer with its longest prefix; a layer may always import itself.

    Attributes:
        name: how other rows and messages call it.
        prefixes: dotted names whose module and submodules belong here.
        below: layers it may import.
        third_party: packages it may import besides the standard library.
        deferred: packages it may import too, but only when a function runs: extras that few have.
        frameworks: how many array frameworks one of its modules may reach, directly or through what it imports.
        optuna: whether importing one of its modules may load Optuna, directly or through what it imports.
    """

    name: str
    prefixes: tuple[str, ...]
    below: tuple[str, ...] = ()
    third_party: tuple[str, ...] = ()
    deferred: tuple[str, ...] = ()
    frameworks: int
    optuna: bool = False


_SURFACE_BELOW: Final = ("specs", "core", "backends", "dispatch")
_ALL_BELOW: Final = ("kernels", *_SURFACE_BELOW, "torch surface", "jax surface")
LAYERS: Final = (
    Layer(name="specs", prefixes=("sonew_kernels.spec", "sonew_kernels.traffic"), frameworks=0),
    Layer(name="kernels", prefixes=("sonew_kernels",), below=("specs",), third_party=("triton",), frameworks=0),
    Layer(name="core", prefixes=("sonew",), third_party=("platformdirs",), frameworks=0),
    Layer(
        name="backends",
        prefixes=("sonew.backends",),
        below=("specs", "kernels", "core"),
        third_party=("jax", "jax_triton", "numpy", "torch", "triton"),
        frameworks=1,
    ),
    Layer(name="dispatch", prefixes=("sonew.dispatch",), below=("specs", "kernels", "core"), frameworks=0),
    Layer(
        name="torch surface",
        prefixes=("sonew.torch",),
        below=_SURFACE_BELOW,
        third_party=("torch",),
        frameworks=1,
    ),
    Layer(
        name="torch examples",
        prefixes=("sonew.examples",),
        below=("torch surface",),
        third_party=("torch",),
        frameworks=1,
    ),
    Layer(name="jax surface", prefixes=("sonew.jax",), below=_SURFACE_BELOW, third_party=("jax", "numpy", "optax"), frameworks=1),
    Layer(
        name="autotune",
        prefixes=("sonew_autotune",),
        below=(*_ALL_BELOW, "search"),
        third_party=("numpy", "plotly", "rich", "scipy", "torch", "triton", "typer"),
        frameworks=2,
    ),
    Layer(
        name="search",
        prefixes=("sonew_autotune.api", "sonew_autotune.report", "sonew_autotune.search"),
        below=(*_ALL_BELOW, "autotune"),
        third_party=("optuna", "plotly", "sqlalchemy"),
        frameworks=2,
        optuna=True,
    ),
    Layer(
        name="perf",
        prefixes=("sonew_perf",),
        below=(*_ALL_BELOW, "autotune", "search"),
        third_party=(
            "jax",
            "numpy",
            "optax",
            "platformdirs",
            "plotly",
            "rich",
            "ruptures",
            "scipy",
            "starlette",
            "torch",
            "triton",
            "typer",
            "uvicorn",
        ),
        deferred=("pytorch_optimizer",),
        frameworks=2,
    ),
)


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """One import: who, what, in which line, and whether only when a function runs."""

    importer: str
    imported: str
    line: int
    deferred: bool


def layer_of(module: str) -> Layer:
    """The layer with the longest prefix of the module's name."""
    fits = [(len(prefix), layer) for layer in LAYERS for prefix in layer.prefixes if f"{module}.".startswith(f"{prefix}.")]
    return max(fits, key=lambda fit: fit[0])[1]


def source_files(root: Path) -> dict[str, Path]:
    """Every module of the packages under `root`: dotted name to file."""
    files: dict[str, Path] = {}
    for package in PACKAGES:
        base = (root / package).parent
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(base).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def _targets(node: ast.AST, module: str, *, is_package: bool) -> list[str]:
    """Dotted names a node imports; `from a import b` yields "a.b", which may be a module or a name in a."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            parents = module.split(".")
            parents = parents[: len(parents) - node.level + is_package] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            return [f"{base}.{alias.name}" for alias in node.names]
        case ast.Call(func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module")):
            return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return []


def _walk(node: ast.AST, *, deferred: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, with whether it is met only when a function runs, or by a type checker."""
    for child in ast.iter_child_nodes(node):
        yield child, deferred
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types_only(child)
        yield from _walk(child, deferred=deferred or later)


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache  # the planted trees of the tests differ in one file each
def _imports(text: str, module: str, *, is_package: bool) -> tuple[tuple[str, int, bool], ...]:
    """(dotted name, line, deferred) of everything a module imports."""
    return tuple(
        (target, getattr(node, "lineno", 0), deferred)
        for node, deferred in _walk(ast.parse(text))
        for target in _targets(node, module, is_package=is_package)
    )


def edges(root: Path) -> list[Edge]:
    """Every import of the tree except of the standard library; a package of our own by module, others by their first name."""
    files = source_files(root)
    own = {name.split(".", 1)[0] for name in files}
    found: set[Edge] = set()
    for module, file in files.items():
        for target, line, deferred in _imports(file.read_text(encoding="utf-8"), module, is_package=file.name == "__init__.py"):
            first = target.split(".", 1)[0]
            if first in own:
                imported = target if target in files else target.rpartition(".")[0] or target
            elif first in sys.stdlib_module_names:
                continue
            else:
                imported = first
            found.add(Edge(module, imported, line, deferred))
    return sorted(found)


def reach(found: Iterable[Edge], *, deferred: bool = True) -> dict[str, set[str]]:
    """For each importer everything it loads, packages above a module included; without `deferred` at import time only."""
    direct: defaultdict[str, set[str]] = defaultdict(set)
    for edge in found:
        if deferred or not edge.deferred:
            parts = edge.imported.split(".")
            direct[edge.importer] |= {".".join(parts[: i + 1]) for i in range(len(parts))}
    closed: dict[str, set[str]] = {}
    for name in list(direct):
        seen: set[str] = set()
        todo = [name]
        while todo:
            new = direct.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        closed[name] = seen
    return closed


def violations(root: Path) -> list[str]:
    """Every import that breaks the order, one line each, sorted; empty where the tree keeps it."""
    all_edges = edges(root)
    own = {name.split(".", 1)[0] for name in source_files(root)}
    found: list[str] = []
    for edge in all_edges:
        layer = layer_of(edge.importer)
        if edge.imported.split(".", 1)[0] in own:
            other = layer_of(edge.imported).name
            if other != layer.name and other not in layer.below:
                found.append(f"{edge.importer}:{edge.line} ({layer.name}) imports {edge.imported} ({other})")
        elif edge.imported not in (*layer.third_party, *(layer.deferred if edge.deferred else ())):
            found.append(f"{edge.importer}:{edge.line} ({layer.name}) imports {edge.imported}")
    for module, loads in reach(all_edges).items():
        layer = layer_of(module)
        frameworks = sorted({FRAMEWORKS[name] for name in loads if name in FRAMEWORKS})
        if len(frameworks) > layer.frameworks:
            found.append(f"{module} ({layer.name}) reaches {' and '.join(frameworks)}, allowed {layer.frameworks}")
    for module, loads in reach(all_edges, deferred=False).items():
        if "optuna" in loads and not layer_of(module).optuna:
            found.append(f"{module} ({layer_of(module).name}) loads optuna when it is imported")
    return sorted(found)
