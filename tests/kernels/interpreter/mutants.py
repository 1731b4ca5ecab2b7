"""Kernels with a planted fault: a copy of the sources with one text replaced, put in the kernels' place for a test's time."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Final

import pytest

import sonew_kernels
from sonew.backends import triton_torch

MODULES: Final = ("band", "storage", "window", "prologue", "block", "direction", "norms", "update")  # each imports earlier ones only
PHASES: Final = ("prologue", "direction", "norms", "update")
DIRECT: Final = {
    "prologue_direct": "prologue",
    "direction_direct": "direction",
    "direction_in_place": "direction",
    "roots_direct": "norms",
}
"""Direct entry -> the module it stands in."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A text of one kernel module, which must stand there exactly once, and what stands there instead."""

    module: str
    old: str
    new: str


def load_kernels(folder: Path, patch: pytest.MonkeyPatch, fault: Fault | None, users: Sequence[ModuleType] = ()) -> None:
    """Let the torch backend, and the direct entries that `users` imported, be those of a copy of the kernels in `folder`.

    Modules before the faulty one, which cannot import it, are the real ones: the interpreter need not read those anew.

    Args:
        folder: empty; the interpreter reads the copied sources when they run.
        patch: its end brings the real kernels back.
        fault: what is changed; None copies the kernels as they are.
        users: modules of tests that call direct entries.
    """
    modules = {}
    first = 0 if fault is None else MODULES.index(fault.module)
    for name in MODULES[:first]:
        modules[name] = importlib.import_module(f"sonew_kernels.{name}")
    for name in MODULES[first:]:
        source = (Path(sonew_kernels.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
        if fault is not None and fault.module == name:
            found = source.count(fault.old)
            assert found == 1, f"{fault.old!r} stands {found} times in {name}.py: update this fault"
            source = source.replace(fault.old, fault.new)
        path = folder / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"sonew_kernels.{name}", path)
        assert spec is not None
        assert spec.loader is not None
        modules[name] = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, modules[name])
        spec.loader.exec_module(modules[name])
    table = SimpleNamespace(**{phase: getattr(modules[phase], f"{phase}_table") for phase in PHASES})
    patch.setattr(triton_torch, "_kernels", lambda: table)
    for user in users:
        for entry, module in DIRECT.items():
            if hasattr(user, entry):
                patch.setattr(user, entry, getattr(modules[module], entry))
