"""The same reference functions on numpy, torch and jax.numpy arrays give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sonew import reference
from sonew.config import GRAFTS, Chain, Hyper
from tests.strategies import history
from tests.tolerances import assert_close

NAMESPACES: Final[dict[str, tuple[Any, Callable[[np.ndarray], Any]]]] = {
    "numpy": (np, np.asarray),
    "torch": (torch, torch.tensor),
    "jax": (jnp, jnp.asarray),
}
BAND_CHAINS: Final[list[tuple[int, Chain]]] = [(0, "tensor"), (1, "row"), (2, 5), (4, "tensor"), (8, "row")]


def run(namespace: str, grads: np.ndarray, hyper: Hyper) -> tuple[Any, Any, Any]:
    """(param, momentum, stats) after all gradients; the parameter moves in the last step only."""
    xp, array = NAMESPACES[namespace]

    def step(param: Any, grad: Any, momentum: Any, stats: Any, count: Any) -> Any:
        return reference.step(xp, param, grad, momentum, stats, count, hyper)

    advance: Any = jax.jit(step) if namespace == "jax" else step  # uncompiled, jax takes seconds per shape
    start = array(np.linspace(-1, 1, grads[0].size, dtype=grads.dtype).reshape(grads[0].shape))
    param, momentum, stats = start, array(np.zeros_like(grads[0])), array(np.zeros((hyper.band + 1, *grads[0].shape), grads.dtype))
    for count, grad in enumerate(grads, start=1):
        param, momentum, stats = advance(start, array(grad), momentum, stats, array(np.asarray(count, np.int32)))
    return param, momentum, stats


@pytest.mark.parametrize(("band", "chain"), BAND_CHAINS)
@pytest.mark.parametrize("graft", GRAFTS)
def test_torch_equals_numpy_in_float64(band: int, chain: Chain, graft: Any) -> None:
    hyper = Hyper(band=band, chain=chain, graft=graft, lr=0.5, weight_decay=0.1, eps_rel=1e-3)
    grads = history(band, (4, 9), band=band).astype(np.float64)
    for got, want in zip(run("torch", grads, hyper), run("numpy", grads, hyper), strict=True):
        assert got.dtype == torch.float64
        assert_close(got, want, "float64")


@pytest.mark.parametrize("namespace", ["torch", "jax"])
@pytest.mark.parametrize(("band", "chain"), BAND_CHAINS[:4])  # compiling band 8 takes jax ten seconds and says nothing new
def test_float32_equals_numpy(namespace: str, band: int, chain: Chain) -> None:
    hyper = Hyper(band=band, chain=chain, lr=0.5, weight_decay=0.1)
    grads = history(band, (4, 9), band=band)
    got, want = run(namespace, grads, hyper), run("numpy", grads, hyper)
    assert [str(array.dtype).removeprefix("torch.") for array in got] == ["float32"] * 3
    assert_close(got[0], want[0], "float32", context="param")
    assert_close(got[1], want[1], "float32 averages", context="momentum")
    assert_close(got[2], want[2], "float32 averages", context="stats")


@pytest.mark.parametrize("namespace", ["torch", "jax"])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (2,)])
def test_tiny_shapes_equal_numpy(namespace: str, shape: tuple[int, ...]) -> None:
    grads = history(2, shape, band=2)
    for got, want in zip(run(namespace, grads, Hyper(band=2)), run("numpy", grads, Hyper(band=2)), strict=True):
        assert_close(got, want, "float32")


@pytest.mark.parametrize("namespace", ["torch", "jax"])
def test_singular_windows_and_overflow_equal_numpy(namespace: str) -> None:
    """The fallback rule and the infinities come out alike: dead coordinates, vanishing pivots, a gradient whose square overflows."""
    grad = np.array([[1.0, 2.0, 0.0, -4.0, 1e30, 0.5, 8.0]], np.float32)
    hyper = Hyper(band=2, beta1=0.0, beta2=0.0, eps=0.0, graft="none")
    with np.errstate(all="ignore"):
        want = run("numpy", grad, hyper)
    for got, expected in zip(run(namespace, grad, hyper), want, strict=True):
        assert_close(got, expected, "float32")


def test_jax_without_jit_equals_numpy() -> None:
    hyper = Hyper(band=0)
    grads, param = history(4, (11,), band=1), np.linspace(-1, 1, 11, dtype=np.float32)
    _, momentum, stats = run("numpy", grads[:-1], hyper)
    count = np.asarray(len(grads), np.int32)
    want = reference.step(np, param, grads[-1], momentum, stats, count, hyper)
    arrays = [jnp.asarray(array) for array in (param, grads[-1], momentum, stats, count)]
    got = reference.step(jnp, arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], hyper)
    for array, expected in zip(got, want, strict=True):
        assert_close(array, expected, "float32")


def test_reference_imports_no_framework() -> None:
    modules = [value.__name__ for value in vars(reference).values() if isinstance(value, ModuleType)]
    assert modules == ["math"]
