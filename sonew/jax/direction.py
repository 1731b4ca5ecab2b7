"""From gradients to grafted directions: which platform's backend forms them, and what vmap and differentiation see."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from sonew.backends import xla_jax
from sonew.backends.flat_jax import Direction, Facts, Flat, Numbers, find_gpu, gpu_capability
from sonew.config import Chain, Problem, chain_length
from sonew.dispatch import Tuning, load_backend, make_plan, requested_backend
from sonew.errors import BackendUnavailableError
from sonew.jax.leaves import Leaf, is_eager
from sonew.jax.sharding import Run, shard_of, sharded
from sonew.rounding import tensor_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the user says of how to step, beside the method's settings; see `scale_by_sonew`."""

    backend: str
    tuning: Tuning
    compute_capability: int | None
    seed: int


def step_leaves(leaves: Sequence[Leaf], shardings: Sequence[Any], count: jax.Array, numbers: Numbers, choice: Choice) -> list[Leaf]:
    """A tree's leaves after the step.

    Args:
        leaves: in the tree's order.
        shardings: what the user says of each leaf's, None: nothing.
        count: this step's number, int32 ().
        numbers, choice: settings.
    """
    out = list(leaves)  # empty leaves stay as they are
    seeds = [tensor_seed(choice.seed, i) for i in range(len(leaves))]
    shards = [shard_of(leaf.grad, given, numbers, str(leaf.momentum.dtype)) for leaf, given in zip(leaves, shardings, strict=True)]
    filled = [i for i, leaf in enumerate(leaves) if jnp.size(leaf.grad)]
    run = _run(choice)
    plain = [i for i in filled if shards[i] is None]
    if plain:
        static, traced = numbers.split()
        facts = tuple(_facts(jnp.shape(leaves[i].grad), numbers, seeds[i]) for i in plain)
        held = [leaves[i] for i in plain]
        step = _jitted if is_eager((held, count, traced)) else _step
        for i, leaf in zip(plain, step(facts, static, run)(held, count, traced), strict=True):
            out[i] = leaf
    cut = {i: shard for i in filled if (shard := shards[i]) is not None}
    if cut:
        stepped = sharded(list(cut.values()), [seeds[i] for i in cut], [leaves[i] for i in cut], count, numbers, run)
        for i, leaf in zip(cut, stepped, strict=True):
            out[i] = leaf
    return out


def _step(facts: tuple[Facts, ...], static: Numbers, run: Run) -> Callable[..., list[Leaf]]:
    """The step of whole leaves: of them, the count and the numbers that the program computes."""

    def step(leaves: Sequence[Leaf], count: jax.Array, traced: dict[str, jax.Array]) -> list[Leaf]:
        numbers = static.joined(traced)
        made = run(facts, [leaf.flat() for leaf in leaves], count, numbers)
        return [leaf.stepped(one, numbers) for leaf, one in zip(leaves, made, strict=True)]

    return step


@lru_cache(maxsize=64)
def _jitted(facts: tuple[Facts, ...], static: Numbers, run: Run) -> Callable[..., list[Leaf]]:
    """The same for steps outside of jit, where loops and branches would be compiled anew at every call."""
    return jax.jit(_step(facts, static, run))


def _facts(shape: tuple[int, ...], numbers: Numbers, seed: int) -> Facts:
    size = math.prod(shape)
    return Facts(size, size, chain_length(numbers.chain, shape), seed)


def gpu_problem(lengths: Sequence[int], *, band: int, chain: Chain = "tensor", grad: str = "float32", state: str = "float32") -> Problem:
    """What a plan is made for on a GPU: pieces of these lengths, all with gradients of one type."""
    return Problem(
        device="cuda",
        band=band,
        chain="block" if isinstance(chain, int) else chain,
        param_dtype=grad,
        grad_dtype=grad,
        state_dtype=state,
        total=sum(lengths),
        median=int(statistics.median(lengths)),
    )


def _tuning(choice: Choice) -> Tuning:
    """Configurations measured on the GPU here say nothing of another one that is compiled for."""
    return choice.tuning if choice.compute_capability in (None, gpu_capability()) else "off"


@cache
def _run(choice: Choice) -> Run:
    """The direction phase of pieces, one function per choice: by it compiled programs are found again."""
    return partial(_directions, choice=choice)


def _directions(facts: Sequence[Facts], flats: Sequence[Flat], count: jax.Array, numbers: Numbers, *, choice: Choice) -> list[Direction]:
    """Direction phase of pieces on the platform that the program is lowered for."""
    static, traced = numbers.split()
    explicit = requested_backend(choice.backend, "jax") == "triton"
    if explicit and choice.compute_capability is None and find_gpu() is None:
        msg = "backend='triton' cannot run: JAX sees no GPU. Use backend='auto' without SONEW_BACKEND, or install JAX for the GPU."
        raise BackendUnavailableError(msg)

    def by_xla(flats: Sequence[Flat], count: jax.Array, traced: dict[str, jax.Array]) -> list[Direction]:
        return xla_jax.directions(facts, flats, count, static.joined(traced))

    def on_cpu(flats: Sequence[Flat], count: jax.Array, traced: dict[str, jax.Array]) -> list[Direction]:
        return xla_jax.blocked_directions(facts, flats, count, static.joined(traced))

    def on_gpu(flats: Sequence[Flat], count: jax.Array, traced: dict[str, jax.Array]) -> list[Direction]:
        if choice.compute_capability is None and find_gpu() is None:
            return by_xla(flats, count, traced)  # traced like every branch, but no program for a GPU can be made here
        made: dict[int, Direction] = {}
        for dtype in dict.fromkeys(flat.grad.dtype for flat in flats):  # a plan each: what is tuned depends on it
            members = [i for i, flat in enumerate(flats) if flat.grad.dtype == dtype]
            parts = [facts[i] for i in members], [flats[i] for i in members]
            lengths, state = [fact.length for fact in parts[0]], str(parts[1][0].momentum.dtype)
            problem = gpu_problem(lengths, band=numbers.band, chain=numbers.chain, grad=str(dtype), state=state)
            plan = make_plan(problem, framework="jax", backend=choice.backend, tuning=_tuning(choice))
            backend: Any = load_backend(plan, framework="jax")
            settings = (plan.config, choice.compute_capability) if plan.backend == "triton" else ()
            made |= dict(zip(members, backend.directions(*parts, count, static.joined(traced), *settings), strict=True))
        return [made[i] for i in range(len(flats))]

    @custom_vmap
    def by_platform(flats: Sequence[Flat], count: jax.Array, traced: dict[str, jax.Array]) -> list[Direction]:
        others: dict[str, Any] = {} if explicit else {"cpu": on_cpu, "default": by_xla}  # lowered for them, an explicit backend fails
        chosen: list[Direction] = lax.platform_dependent(flats, count, traced, cuda=on_gpu, **others)
        return chosen

    @by_platform.def_vmap
    def batched(_size: int, mapped: Any, *arrays: Any) -> tuple[list[Direction], Any]:  # noqa: ANN401  # trees
        axes = jax.tree.map(lambda is_mapped: 0 if is_mapped else None, tuple(mapped))
        made = jax.vmap(by_xla, axes)(*arrays)
        return made, jax.tree.map(lambda _: True, made)

    run = jax.custom_jvp(by_platform)
    run.defjvp(lambda primals, tangents: jax.jvp(by_xla, primals, tangents))
    made: list[Direction] = run(list(flats), count, traced)
    return made
