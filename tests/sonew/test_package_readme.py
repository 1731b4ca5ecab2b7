"""The package's README: its programs run as they are printed, its tables are the code's, and no link of a folder's page leads nowhere."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

import sonew
from sonew.dispatch import LAUNCH_GROUP_ELEMENTS
from sonew.layout import state_layout
from tests.readme import ROOT, fenced

FOLDER: Final = ROOT / "sonew"
PAGE: Final = (FOLDER / "README.md").read_text(encoding="utf-8")
SECTIONS: Final[dict[str, str]] = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PAGES: Final = ("kernels/README.md", "sonew/README.md", "sonew/torch/README.md", "sonew/jax/README.md", "sonew_autotune/README.md")

BOTH: Final = [block for block in fenced(PAGE, "python") if "sonew.torch" in block and "sonew.jax" in block]
OURS: Final = [block for block in fenced(PAGE, "python") if "sonew.jax" not in block]
MEANT: Final = """
assert int(optimizer.state[weight]["count"]) == int(state[0].count) == 2
for name, tree in (("momentum", state[0].momentum), ("stats", state[0].stats)):
    assert (optimizer.state[weight][name].numpy() == tree[0]).all()
    assert optimizer.state[weight][name].any()
"""


def rows(section: str, columns: int) -> list[list[str]]:
    """Cells of the section's table rows of so many columns, without its heads."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [cells for line in lines if len(cells := [cell.strip() for cell in line.strip("|").split(" | ")]) == columns]


def names_in(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_the_programs_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    printed = []
    for block in OURS:
        exec(compile(block, "sonew/README.md", "exec"), names)  # noqa: S102  # our own page
        printed.append(capsys.readouterr().out)
    state, memory, adamw, border, error = printed
    assert fenced(PAGE, "text") == [state]
    assert re.search(r"^state +[\d,]+ bytes$", memory, re.MULTILINE)
    assert adamw == "True\n"
    assert error.startswith("graft='adamw' is not allowed")

    band = names["band"]
    one_side = 4 * band * (band + 3)  # what the page says of a border: b (b + 3) numbers of float32
    assert border == "".join(f"{rank} {sides * one_side}\n" for rank, sides in enumerate((1, 2, 2, 1)))
    assert {f"{one_side}", f"{2 * one_side}"} <= set(re.findall(r"\d+", SECTIONS["Many devices"]))


def test_state_moves_between_torch_and_jax() -> None:
    """In a process in which both may be loaded."""
    (program,) = BOTH
    done = subprocess.run([sys.executable, "-c", program + MEANT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tensor(2, dtype=torch.int32)\n"


def test_bytes_per_element() -> None:
    """The table of the state's bytes, from the layout."""
    bands = [int(cell) for cell in rows("State", 8)[0][1:-1]]
    shown = {cells[0]: [int(cell) for cell in cells[1:-1]] for cells in rows("State", 8)[1:]}
    numbers = [sum(math.prod(spec.shape) for name, spec in state_layout((5,), band).items() if name != "count") // 5 for band in bands]
    assert shown == {"float32": [4 * n for n in numbers], "bfloat16": [2 * n for n in numbers]}
    assert set(names_in(" ".join(cells[0] for cells in rows("State", 4)))) == set(state_layout((), 1))
    assert f"{LAUNCH_GROUP_ELEMENTS // 2**20} Mi elements" in PAGE


def test_every_file_has_its_place() -> None:
    section = SECTIONS["What lives where, in the order of a step"]
    files = {file.name for folder in (FOLDER, FOLDER / "backends") for file in folder.glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"`{name}`" not in section} == set()
    shown = {name for name in names_in(section) if name.endswith(".py")}
    assert shown - files == set()


def test_the_names_are_public() -> None:
    """Those of torch by import, those of JAX by its source: the two do not meet in one process."""
    shown = {names_in(module)[0]: names_in(text) for module, text in rows("Names", 2)[1:]}
    assert {"sonew.torch", "sonew.jax", "sonew.reference"} <= set(shown)
    for module, names in shown.items():
        if module == "sonew.jax":
            source = (FOLDER / "jax" / "__init__.py").read_text(encoding="utf-8")
            listed = re.findall(r'"(\w+)"', source.split("__all__")[1])
            assert sorted(names) == sorted(listed)
            continue
        found = import_module(module)
        wanted = [name for name in names if name.isidentifier()]
        assert [name for name in wanted if not hasattr(found, name)] == []
        if module == "sonew.torch":
            assert set(found.__all__) <= set(names)


def test_the_errors_are_all_there_with_their_bases() -> None:
    shown = {names_in(name)[0]: names_in(base)[0] for name, base, _ in rows("Errors", 3)[1:]}
    assert set(shown) == set(sonew.__all__) - {"__version__"}
    for name, base in shown.items():
        kind = getattr(sonew, name)
        assert base in {parent.__name__ for parent in kind.__mro__[1:]}
        assert issubclass(kind, sonew.SonewError) == (kind is not sonew.SonewFallbackWarning)


def test_the_environment_variables_are_those_that_are_read() -> None:
    read = {name for file in FOLDER.rglob("*.py") for name in re.findall(r'environ\.get\("(\w+)"\)', file.read_text(encoding="utf-8"))}
    shown = {names_in(cells[0])[0] for cells in rows("Environment variables", 2)[1:]}
    assert {"SONEW_BACKEND", "SONEW_STORE", "CXX"} <= read
    assert read - {"TRITON_CACHE_DIR"} == shown - {"TRITON_INTERPRET"}  # Triton's own; the first is only kept in place


def anchors(page: str) -> set[str]:
    """What links may name in a page, as GitHub makes it of headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(Path(file).read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []
