"""A program of its own, because torch and JAX's tests do not share a process: steps `cases.CASES` with `sonew.torch.SONew`.

`python -m tests.jax.torch_side FILE.npz` writes, per case c, tensor i and step t, `c/i/t/direction`, `momentum` and `stats`: the update of
a parameter of zeros at lr 1, and the state after it, in float32, which holds bfloat16 exactly.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from sonew.torch import SONew
from tests.jax.cases import CASES, SHAPES, Case


def stepped(case: Case) -> dict[str, np.ndarray]:
    """All steps of a case."""
    params = [torch.nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    optimizer = SONew(params, lr=1.0, backend=case.backend, tuning="off", **case.settings)
    columns = case.gradients()
    made: dict[str, np.ndarray] = {}
    for step in range(len(columns[0])):
        for param, column in zip(params, columns, strict=True):
            param.data.zero_()
            param.grad = torch.from_numpy(np.asarray(column[step]))
        optimizer.step()
        for i, param in enumerate(params):
            state = optimizer.state[param]
            made[f"{case}/{i}/{step}/direction"] = -param.detach().numpy()
            made |= {f"{case}/{i}/{step}/{name}": state[name].float().numpy().copy() for name in ("momentum", "stats")}
    return made


def main(file: Path) -> None:
    """Step all cases."""
    torch.set_num_threads(1)
    np.savez(file, allow_pickle=False, **{name: array for case in CASES for name, array in stepped(case).items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
