"""Faults in a copy of the kernels' source text: a check that watches the kernels must see them."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sonew_kernels

DOUBLE_MOMENTUM: Final = (
    "window.py",
    "old_momentum = old_momentum + (tl.load(where, mask=mask, other=0.0).to(tl.float32),)",
    "again = tl.load(where, mask=mask, other=0.0, volatile=True).to(tl.float32)\n"
    "            old_momentum = old_momentum + (tl.load(where, mask=mask, other=0.0).to(tl.float32) + again * 0.0,)",
)
"""Reads every momentum twice; volatile, because the compiler merges equal loads."""
NEXT_GRADIENT: Final = (
    "window.py",
    "    return g\n",
    "    return g + tl.load(grad + element + 1, mask=mask & (element + 1 < length), other=0.0, volatile=True).to(tl.float32) * 0.0\n",
)
"""Reads the gradient after each gradient as well."""
DOUBLE_PARAMETER: Final = (
    "update.py",
    "    grafted = (u * scale) * scale\n",
    "    p += tl.load(param + element, mask=element < length, other=0.0, volatile=True).to(tl.float32) * 0.0\n"
    "    grafted = (u * scale) * scale\n",
)
"""Reads every parameter twice."""


@contextmanager
def planted(folder: Path, file: str, old: str, new: str) -> Iterator[None]:
    """Inside, what imports `sonew_kernels` gets a copy in `folder` where `new` stands for `old`; earlier imports keep the true one."""
    copy = shutil.copytree(Path(sonew_kernels.__path__[0]), folder / "sonew_kernels")
    text = (copy / file).read_text()
    assert text.count(old) == 1, f"{file} has changed: plant the fault anew"
    (copy / file).write_text(text.replace(old, new))
    true = _forget()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _forget()
        sys.modules.update(true)


def _forget() -> dict[str, object]:
    """Take the kernels' modules out of the import system, and return them."""
    names = [name for name in sys.modules if name.partition(".")[0] == "sonew_kernels"]
    return {name: sys.modules.pop(name) for name in names}
