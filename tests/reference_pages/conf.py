"""Sphinx's settings for the API reference: `make docs` writes it from the docstrings into build/api, and any warning ends it.

Docstrings are Google's sections in plain text. A name in single backticks is a link where this reference knows it; one that
begins with a package of this project must be known. Described arguments and attributes must exist.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from enum import EnumType
from importlib import import_module
from pathlib import Path
from typing import Final

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger
from triton.runtime.jit import JITFunction

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "perf")]

project = "SONew"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["__pycache__"]
html_theme = "furo"
html_title = "SONew API reference"
html_static_path = ["static"]
html_css_files = ["reference.css"]
html_theme_options = {
    "light_css_variables": {"color-highlight-on-target": "#eef3ff"},
    "dark_css_variables": {"color-highlight-on-target": "#1c2433"},
}
html_copy_source = False
html_show_copyright = False
smartquotes_action = "D"  # dashes only: "adam" is code

default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!sonew(_autotune|_kernels|_perf)?\.).*")]  # names of others, which stay plain

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]

KERNELS: Final = ("band", "block", "direction", "norms", "prologue", "storage", "update", "window")
SECTION: Final = re.compile(r"^(Args|Attributes):\n((?:    .*\n|\n)+)", re.MULTILINE)
ENTRY: Final = re.compile(r"^    ([\w*]+(?:, [\w*]+)*):", re.MULTILINE)
ARRAY_LIKE: Final = re.compile(
    r"~?[\w.]*\bArray \| ~?numpy\.ndarray \| ~?numpy\.bool \| ~?numpy\.number \| bool \| int \| float \| complex"
)
NORM: Final = re.compile(r"(?<!\w)\|(?=\S)")  # |u|


def described(lines: list[str]) -> Iterator[str]:
    """The names that a docstring's sections of arguments and attributes describe."""
    for _, body in SECTION.findall("\n".join([*lines, ""])):
        for names in ENTRY.findall(body):
            yield from (name.strip("* ") for name in names.split(","))


def owned(subject: object) -> set[str]:
    """Arguments that it takes; a class's attributes as well."""
    taken = set(inspect.signature(subject).parameters) if callable(subject) else set()
    return taken | set(dir(subject)) | {name for kind in getattr(subject, "__mro__", ()) for name in inspect.get_annotations(kind)}


def prepare(app: Sphinx, kind: str, name: str, subject: object, options: object, lines: list[str]) -> None:
    """Warn of what a docstring describes and its subject has not, and make plain text of what is no markup here."""
    del app, options
    if unknown := [each for each in described(lines) if each not in owned(subject)]:
        getLogger(__name__).warning("docstring of %s describes %s, which it does not have", name, ", ".join(unknown))
    inherited = kind == "data" and "\n".join(lines).strip() == inspect.getdoc(type(subject))  # a value without one has that of its type
    lines[:] = [] if inherited else [NORM.sub(r"\\|", line) for line in lines]


def shorten(
    app: Sphinx, kind: str, name: str, subject: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """A signature for people: one of JAX's names for what it stands for, and nothing for an enumeration, which nobody calls."""
    del app, kind, name, options
    if signature is None:
        return None
    return "" if isinstance(subject, EnumType) else ARRAY_LIKE.sub("jax.typing.ArrayLike", signature), returns


def unwrap_kernels() -> None:
    """Put the plain functions in the place of what `triton.jit` made of them, so that they are documented as functions."""
    for module in (import_module(f"sonew_kernels.{name}") for name in KERNELS):
        for name, value in list(vars(module).items()):
            if isinstance(value, JITFunction):
                setattr(module, name, value.fn)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    unwrap_kernels()
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon, at 500, takes the sections apart
