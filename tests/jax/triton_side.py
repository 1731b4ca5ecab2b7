"""A program of its own, because the interpreter takes torch's tensors: launches kernels for a JAX process (TRITON_INTERPRET=1).

It reads names of .npz files from its input, one a line, until there are no more. Each holds one launch: "kernel" (module and name),
"grid", the arguments by their number, outputs among them, and constants as "constant NAME". It puts the arguments as they are after the
launch into the same file and prints the name. bfloat16 travels as uint16.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np
import torch

from tests.interpreting import patch_language_once


def _tensor(array: np.ndarray) -> Any:
    """A kernel's argument; scalars of int64 are numbers."""
    if array.dtype == np.int64:
        return int(array)
    tensor = torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


def launch(file: str) -> None:
    """Run one launch."""
    with np.load(file) as held:
        arrays = dict(held)
    module, name = arrays.pop("kernel").tolist()
    grid = tuple(arrays.pop("grid").tolist())
    constants = {key.removeprefix("constant "): array.item() for key, array in arrays.items() if key.startswith("constant ")}
    arguments = {key: array for key, array in arrays.items() if key.isdecimal()}
    with np.errstate(all="ignore"):  # as on a GPU
        getattr(import_module(module), name)[grid](*(_tensor(arguments[str(i)]) for i in range(len(arguments))), **constants)
    np.savez(file, allow_pickle=False, **arguments)


if __name__ == "__main__":
    patch_language_once()
    for line in sys.stdin:
        launch(line.strip())
        print(line.strip(), flush=True)
