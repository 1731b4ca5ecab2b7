"""A program of its own, in which torch and JAX meet as where a user converts: state goes over, both step on, state comes back.

Each function is a check that raises where it fails; `python -m tests.jax.both_sides` prints, as JSON, what became of each.
"""

from __future__ import annotations

import json
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
import torch

from sonew.jax import ScaleBySonewState, from_torch, scale_by_sonew, to_torch
from sonew.torch import SONew
from tests.strategies import history
from tests.tolerances import assert_close

SHAPES: Final = ((3, 5), (4,), (0, 2), ())  # in torch's order
NAMES: Final = ("net.weight", "net.bias", "net.empty", "net.scale")
NUMBERS: Final[dict[str, Any]] = {"band": 2, "eps": 1e-3}
BEFORE: Final = 12


def gradients(shapes: Sequence[tuple[int, ...]]) -> list[list[np.ndarray]]:
    """[step][tensor], BEFORE steps and three more."""
    columns = [history(i, shape, band=2, steps=BEFORE + 3) for i, shape in enumerate(shapes)]
    return [[np.array(column[step]) for column in columns] for step in range(BEFORE + 3)]


GRADS: Final = gradients(SHAPES)


def torch_run(steps: int, *, named: bool = False, **settings: Any) -> tuple[SONew, list[torch.nn.Parameter]]:
    """An optimizer after so many steps; parameters in two groups."""
    params = [torch.nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    made: list[Any] = list(zip(NAMES, params, strict=True)) if named else params
    optimizer = SONew([{"params": made[:1]}, {"params": made[1:]}], lr=1.0, **{**NUMBERS, **settings})
    for step in range(steps):
        torch_step(optimizer, params, step)
    return optimizer, params


def torch_step(optimizer: SONew, params: list[torch.nn.Parameter], step: int) -> list[np.ndarray]:
    """Directions."""
    for param, grad in zip(params, GRADS[step], strict=True):
        param.data.zero_()
        param.grad = torch.from_numpy(grad)
    optimizer.step()
    return [-param.detach().numpy() for param in params]


def equal(state: ScaleBySonewState, saved: Any, order: Sequence[int]) -> None:
    """Bit for bit; leaf i is torch's parameter order[i]."""
    for i, (momentum, stats) in zip(order, zip(jax.tree.leaves(state.momentum), jax.tree.leaves(state.stats), strict=True), strict=True):
        held = saved["state"][i]
        for array, tensor in ((momentum, held["momentum"]), (stats, held["stats"])):
            assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
            assert array.shape == tuple(tensor.shape)
            kind = {2: (np.int16, torch.int16), 4: (np.int32, torch.int32)}[array.dtype.itemsize]
            assert np.array_equal(np.asarray(array).view(kind[0]), tensor.view(kind[1]).numpy())
        assert int(state.count) == int(held["count"])


def tree(arrays: Sequence[Any]) -> Any:
    """Tensors as a tree whose order is another than torch's: bias, empty, scale, weight."""
    weight, bias, empty, scale = arrays
    return {"net": {"bias": bias, "empty": empty, "scale": scale, "weight": weight}}


def goes_over(state_dtype: str, order: Any, *, named: bool = False) -> None:
    """torch's state in JAX: the same bits, and the next step agrees; torch going on does not reach it."""
    optimizer, params = torch_run(BEFORE, named=named, state_dtype=getattr(torch, state_dtype))
    saved = optimizer.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(saved, Path(folder) / "optimizer.pt")
        loaded = torch.load(Path(folder) / "optimizer.pt", weights_only=True)
    shapes = tree([jax.ShapeDtypeStruct(shape, np.float32) for shape in SHAPES])
    state = from_torch(loaded, shapes, order=order)
    equal(state, saved, (1, 2, 3, 0))
    live = from_torch(saved, shapes, order=order)
    directions = tree(torch_step(optimizer, params, BEFORE))
    equal(live, loaded, (1, 2, 3, 0))
    got, after = jax.jit(scale_by_sonew(**NUMBERS, state_dtype=state_dtype, gamma=0.01).update)(tree(GRADS[BEFORE]), state)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(directions), strict=True):
        assert_close(one, other, "float32")
    assert int(after.count) == BEFORE + 1


def comes_back(state_dtype: str) -> None:
    """JAX's state in torch, by the two lines of `to_torch`: the same bits, and the next step agrees."""
    tx = scale_by_sonew(**NUMBERS, state_dtype=state_dtype, gamma=0.01)
    update = jax.jit(tx.update)
    state = tx.init(tree(GRADS[0]))
    for grads in GRADS[:BEFORE]:
        _, state = update(tree(grads), state)
    optimizer, params = torch_run(0, state_dtype=getattr(torch, state_dtype), gamma=0.01)
    saved = optimizer.state_dict()
    saved["state"] = jax.tree.map(torch.from_dlpack, to_torch(state, order=tree(range(4))))  # type: ignore[attr-defined]  # torch.from_dlpack is public
    optimizer.load_state_dict(saved)
    equal(state, optimizer.state_dict(), (1, 2, 3, 0))
    held = jax.tree.map(np.array, state)
    directions = tree(torch_step(optimizer, params, BEFORE))
    assert all(map(np.array_equal, jax.tree.leaves(held), jax.tree.leaves(state)))
    got, _ = update(tree(GRADS[BEFORE]), state)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(directions), strict=True):
        assert_close(one, other, "float32")


def default_order() -> None:
    """Without an order a list's leaves are torch's parameters one after the other; there and back again."""
    optimizer, _ = torch_run(2)
    saved = optimizer.state_dict()
    state = from_torch(saved, [np.zeros(shape, np.float32) for shape in SHAPES])
    equal(state, saved, range(4))
    back = to_torch(state)
    assert list(back) == list(range(4))
    assert all(np.array_equal(back[i][name], saved["state"][i][name].numpy()) for i in back for name in ("momentum", "stats", "count"))


CHECKS: Final[dict[str, Callable[[], None]]] = {
    "over, float32, by position": lambda: goes_over("float32", tree(range(4))),
    "over, bfloat16, by name": lambda: goes_over("bfloat16", tree(NAMES), named=True),
    "back, float32": lambda: comes_back("float32"),
    "back, bfloat16": lambda: comes_back("bfloat16"),
    "default order": default_order,
}


def verdict(check: Callable[[], None]) -> str:
    """What went wrong, or nothing."""
    try:
        check()
    except Exception:  # noqa: BLE001  # it is reported
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: verdict(check) for name, check in CHECKS.items()}))
