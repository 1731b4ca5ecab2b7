"""torch and JAX take the same steps: the optimizer's, stepped in a process of its own, beside the transformation's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew.jax import ScaleBySonewState, scale_by_sonew
from tests.jax.cases import CASES, SHAPES, Case
from tests.tolerances import assert_close

ROOT: Final = Path(__file__).resolve().parents[2]
Read = Callable[[Case, int, str], list[np.ndarray]]


@pytest.fixture(scope="module")
def torch_side(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """What torch made of a case in a step: direction, momentum or stats of every tensor."""
    file = tmp_path_factory.mktemp("torch") / "steps.npz"
    done = subprocess.run([sys.executable, "-m", "tests.jax.torch_side", str(file)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(file) as arrays:
        made = dict(arrays)
    return lambda case, step, name: [made[f"{case}/{i}/{step}/{name}"] for i in range(len(SHAPES))]


def compare(case: Case, step: int, torch_side: Read, direction: Any, state: ScaleBySonewState) -> None:
    """Direction and state of every tensor after a step."""
    rounded = case.state_dtype == "bfloat16"
    rows = {"direction": "float32", "momentum": "float32 averages", "stats": "float32 averages"}
    for name, made in {"direction": direction, "momentum": state.momentum, "stats": state.stats}.items():
        row = "bfloat16 stochastic" if rounded and name != "direction" else rows[name]
        for i, (got, want) in enumerate(zip(made, torch_side(case, step, name), strict=True)):
            assert_close(got, want, row, context=f"{name} of tensor {i}, step {step}")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=pytest.mark.full if case.band in (5, 6, 7) else ())  # XLA takes seconds for wide bands
        for case in CASES
        if case.state_dtype == "float32"
    ],
)
def test_a_run(case: Case, torch_side: Read) -> None:
    """From nothing to the end of a history: directions and averages within float32's rounding, whatever torch's backend."""
    tx = scale_by_sonew(**case.settings)
    update = jax.jit(tx.update)
    columns = [jnp.asarray(column) for column in case.gradients()]
    state = tx.init([column[0] for column in columns])
    steps = len(columns[0])
    for step in range(steps):
        direction, state = update([column[step] for column in columns], state)
    assert int(state.count) == steps
    compare(case, steps - 1, torch_side, direction, state)


@pytest.mark.parametrize("case", [case for case in CASES if case.state_dtype == "bfloat16"], ids=str)
def test_steps_of_bfloat16_state(case: Case, torch_side: Read) -> None:
    """Each step from torch's state: the noise is the same, so the stored bits are, but where float32's last digits decide."""
    tx = scale_by_sonew(**case.settings)
    update = jax.jit(tx.update)
    columns = [jnp.asarray(column) for column in case.gradients()]
    state = tx.init([column[0] for column in columns])
    others = total = 0
    for step in range(len(columns[0])):
        direction, state = update([column[step] for column in columns], state)
        if step >= case.band + 1:  # before, windows have low rank
            compare(case, step, torch_side, direction, state)
        wanted = [[jnp.asarray(x, jnp.bfloat16) for x in torch_side(case, step, name)] for name in ("momentum", "stats")]
        for got, want in zip((state.momentum, state.stats), wanted, strict=True):
            others += sum(int(np.sum(np.asarray(a) != np.asarray(b))) for a, b in zip(got, want, strict=True))
            total += sum(a.size for a in got)
        state = ScaleBySonewState(state.count, *wanted)
    assert others <= total * 2e-4
