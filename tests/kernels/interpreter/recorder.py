"""What the programs of a launch read and write, address by address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from triton.runtime.interpreter import InterpreterBuilder


class Access(NamedTuple):
    """The entries that one load or store of one program touches: their addresses with repeats, masked ones left out, and their bytes."""

    program: int
    write: bool
    addresses: np.ndarray
    size: int

    @property
    def granules(self) -> np.ndarray:
        """The pairs of bytes that are touched, each once."""
        return np.unique((self.addresses // 2)[:, None] + np.arange(max(1, self.size // 2), dtype=np.uint64))


class Recorder:
    """The accesses of one launch, in their order."""

    def __init__(self) -> None:
        self.program = -1
        self.accesses: list[Access] = []

    def add(self, pointers: Any, mask: Any, *, write: bool) -> None:
        """Record one load or store."""
        self.accesses.append(Access(self.program, write, pointers.data[mask.data], pointers.get_element_ty().primitive_bitwidth // 8))

    def conflicts(self) -> list[str]:
        """Written granules that another program touches, and those a program reads again after it wrote them."""
        writer: dict[int, int] = {}
        found = []
        accesses = [(access.program, access.write, access.granules.tolist()) for access in self.accesses]
        for program, granule in ((p, g) for p, write, granules in accesses if write for g in granules):
            if writer.setdefault(granule, program) != program:
                found.append(f"programs {writer[granule]} and {program} write {granule}")
        seen: set[int] = set()
        for program, write, granules in accesses:
            for granule in granules:
                if writer.get(granule, program) != program:
                    found.append(f"program {program} touches what program {writer[granule]} writes")
                elif not write and granule in seen:
                    found.append(f"program {program} reads back what it wrote")
            seen.update(granules if write else ())
        return found


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Record every access of the launches inside."""
    recorder = Recorder()
    load, store, set_index = (getattr(InterpreterBuilder, name) for name in ("create_masked_load", "create_masked_store", "set_grid_idx"))

    def watched_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        recorder.add(pointers, mask, write=False)
        return load(self, pointers, mask, *rest)

    def watched_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        recorder.add(pointers, mask, write=True)
        return store(self, pointers, value, mask, *rest)

    def watched_index(self: Any, x: int, y: int, z: int) -> None:
        recorder.program = x
        set_index(self, x, y, z)

    with monkeypatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_masked_load", watched_load)
        patch.setattr(InterpreterBuilder, "create_masked_store", watched_store)
        patch.setattr(InterpreterBuilder, "set_grid_idx", watched_index)
        yield recorder
