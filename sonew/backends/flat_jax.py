"""What JAX backends work on: tensors as flat arrays, each with what is known of it when the program is traced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sonew.config import Chain, GraftName

Number = float | jax.Array  # a number that is known, or one that the program computes
LARGEST: Final = 2**31 - 1  # elements of a tensor: positions are int32


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Settings of the method as `sonew.reference` reads them; see `sonew.config.Hyper`. Numbers may be scalars of the program."""

    band: int
    graft: GraftName
    chain: Chain
    beta1: Number
    beta2: Number
    eps: Number
    eps_rel: Number
    gamma: Number

    def split(self) -> tuple[Numbers, dict[str, jax.Array]]:
        """The settings with a placeholder for every number that the program computes, and those numbers."""
        traced = {field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), jax.Array)}
        placeholders: dict[str, Any] = dict.fromkeys(traced, 0.0)
        return replace(self, **placeholders), traced

    def joined(self, traced: Mapping[str, jax.Array]) -> Numbers:
        """The settings with these numbers."""
        numbers: dict[str, Any] = dict(traced)
        return replace(self, **numbers)


@dataclass(frozen=True, slots=True)
class Facts:
    """A piece of a tensor, as far as the program's text knows it.

    Attributes:
        length: elements of the piece. total: of the whole tensor. chain: elements per chain.
        seed: of the tensor's stochastic rounding, an int32.
    """

    length: int
    total: int
    chain: int
    seed: int

    @property
    def whole(self) -> bool:
        """Whether the piece is the tensor."""
        return self.length == self.total


class Flat(NamedTuple):
    """A piece's arrays: grad (n,) of any type, momentum (n,) and stats (b + 1, n) of the state's.

    `piece` is the piece's number, int32 (): it starts at piece * length. `outer` (2, b + 3, b), float32 or wider, holds what lies beyond
    its two ends: old momentum, old stats, gradient; None for a whole tensor.
    """

    grad: jax.Array
    momentum: jax.Array
    stats: jax.Array
    piece: jax.Array | int = 0
    outer: jax.Array | None = None


class Direction(NamedTuple):
    """What a direction phase makes of a piece.

    Attributes:
        u: the direction before grafting (n,), float32 or wider.
        roots: (2,), fourth roots of the sums of u^2 and of the grafting target's squares: no norm of finite numbers overflows.
        momentum, stats: the new state, in the old one's type.
    """

    u: jax.Array
    roots: jax.Array
    momentum: jax.Array
    stats: jax.Array


def vary_like(x: jax.Array, arrays: Any) -> jax.Array:  # noqa: ANN401  # a tree
    """The same array, said to differ between the devices between which these do: inside `shard_map` types tell so."""
    varying_over = [jax.typeof(array).manual_axis_type.varying for array in (x, *jax.tree.leaves(arrays))]
    axes = frozenset[str]().union(*varying_over) - varying_over[0]
    if not axes:
        return x
    varying: jax.Array = lax.pcast(x, tuple(axes), to="varying")
    return varying


@cache
def find_gpu() -> Any:  # noqa: ANN401  # a jax.Device, whose attributes depend on its kind
    """The first CUDA GPU that JAX sees in this process, None where there is none."""
    try:
        return jax.devices("cuda")[0]
    except RuntimeError:
        return None


def gpu_capability() -> int | None:
    """The compute capability of `find_gpu`'s GPU: 90."""
    gpu = find_gpu()
    return None if gpu is None else int(str(gpu.compute_capability).replace(".", ""))


@jax.custom_jvp
def root_of(x: jax.Array) -> jax.Array:
    """Square root with derivative 0 at 0: there roots of squares have a kink, and infinity times 0 would spoil every derivative."""
    return jnp.sqrt(x)


@root_of.defjvp
def _root_of_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    root = root_of(*primals)
    return root, tangents[0] * jnp.where(root == 0, 0, 0.5 / jnp.where(root == 0, 1, root))


def combine_roots(roots: jax.Array, axes: tuple[str, ...] = ()) -> jax.Array:
    """Fourth roots of sums of squares, of parts: of what they have in all.

    Args:
        roots: of parts one behind the other (parts, ...), or, with `axes`, of the part on each device along these axes of the mesh.
    """
    fixed = lax.stop_gradient(roots)  # the result depends on no unit
    largest = lax.pmax(fixed, axes) if axes else jnp.max(fixed, 0)
    unit = jnp.where(largest > 0, largest, 1)
    powers = (roots / unit) ** 4
    return unit * root_of(root_of(lax.psum(powers, axes) if axes else jnp.sum(powers, 0)))


def graft_scale(roots: jax.Array) -> jax.Array:
    """Square root of |a| / |u| from roots (..., 2): applied twice it neither overflows nor flushes. 0 where |u| is 0, NaN if not finite."""
    u, target = roots[..., 0], roots[..., 1]
    return jnp.where(u == 0, 0, target / jnp.where(u == 0, 1, u) + (u - u))
