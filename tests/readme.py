"""The README's programs, run as they are printed; of no framework, because each section runs in the process of its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
SECTIONS: Final[dict[str, str]] = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL))

NOT_INSTALLED: Final = {"lightning", "transformers"}  # what its programs may import that no test installs: tried by hand


def fenced(text: str, language: str) -> list[str]:
    """The fenced blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def blocks(section: str, language: str) -> list[str]:
    """The section's fenced blocks of a language."""
    return fenced(SECTIONS[section], language)


def imported(block: str) -> set[str]:
    """Top-level names of the packages that a program imports."""
    nodes = list(ast.walk(ast.parse(block)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}}


def run_blocks(section: str) -> dict[str, Any]:
    """Run the section's Python one block after the other, as a reader would; what they left behind."""
    names: dict[str, Any] = {"__name__": "readme"}
    for block in blocks(section, "python"):
        if not imported(block) & NOT_INSTALLED:
            exec(compile(block, "README.md", "exec"), names)  # noqa: S102  # our own page
    return names


def losses(printed: str) -> list[float]:
    """The numbers that follow the word loss."""
    return [float(number) for number in re.findall(r"\bloss (\S+?);?\s", printed)]
