"""The optax transformations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew.config import Chain, GraftName, Hyper
from sonew.dispatch import Tuning, check_request
from sonew.jax.direction import Choice, step_leaves
from sonew.jax.leaves import Leaf
from sonew.jax.settings import check_ints, check_leaf, check_step, check_wide, known, read_numbers
from sonew.jax.sharding import Shardings, entries_at, warn_of_gathers, zero_count, zeros_like_param
from sonew.layout import MOMENTUM, STATS, state_layout


class ScaleBySonewState(NamedTuple):
    """State of `scale_by_sonew`, the buffers of `sonew.layout` as trees.

    Attributes:
        count: steps taken, int32 ().
        momentum: running mean of the gradient; per parameter of shape S: S, in the state's type.
        stats: running means of g[i] g[i + k]; per parameter `(band + 1, *S)`.
    """

    count: jax.Array  # type: ignore[assignment]  # every optax state has one, and hides tuple.count
    momentum: optax.Updates
    stats: optax.Updates


def scale_by_sonew(
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.99,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    band: int | None = None,
    eps_rel: jax.typing.ArrayLike = 0.0,
    gamma: jax.typing.ArrayLike | None = None,
    graft: GraftName = "adam",
    chain: Chain = "tensor",
    state_dtype: Any = "float32",  # noqa: ANN401  # a dtype-like
    seed: int | None = None,
    shardings: Shardings = None,
    backend: str = "auto",
    tuning: Tuning = "on",
    compute_capability: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Precondition gradients with the inverse of a band of their second moments, and give each tensor the length of Adam's update.

    On a GPU the Triton kernels form the direction (through jax-triton); everywhere else, and under `vmap` or differentiation, XLA does.
    Which one is decided when the program is lowered for its platform.

    Args:
        b1, b2: decays of momentum and statistics, in [0, 1).
        eps: absolute damping of the statistics' diagonal, >= 0.
        band: off-diagonals kept, >= 0; None: 1, tridiagonal, the paper's choice.
        eps_rel: relative damping of the diagonal, >= 0.
        gamma: a pivot at or below gamma times its diagonal entry drops the column's couplings; None: 0, or with bfloat16 state
            `sonew.config.default_gamma`.
        graft: whose norm a tensor's update takes: "adam", "adam_uncorrected", "rmsprop", "sgd", or "none".
        chain: "tensor" (a tensor's elements in row-major order form one chain), "row" (each last axis) or a length.
        state_dtype: float32; bfloat16 halves the state, rounded stochastically (`sonew.rounding`); float64, with jax_enable_x64.
        seed: of that rounding, an int in [0, 2^64); None: 0.
        shardings: a tree like the parameters of `NamedSharding` (None: not sharded), as in `jax.tree.map(lambda x: x.sharding, params)`.
            Each device then steps its shards, exactly, and only the borders of shards travel. Not needed where the mesh's axes are
            explicit: then types tell. Without either, XLA's partitioner decides: it gathers whole tensors, and the state lies as it
            likes unless jit's `out_shardings` say otherwise (`state_shardings`). Cuts inside a chain that leave a device several runs
            of a tensor, `PartitionSpec(None, "x")` of a matrix, are refused: "row" or an integer chain that ends at the cuts allows them.
        backend: "auto", "triton" (on GPUs, or fail) or "reference" (XLA everywhere).
        tuning: "on": configurations tuned on this machine, then shipped ones; "pinned": shipped ones only; "off": defaults.
        compute_capability: of the GPU that a program is lowered for on a machine without one: 90.

    Numbers may be arrays or traced (`optax.inject_hyperparams`; there pass `static_args=("band", "seed")` if you set these). The update has
    the gradients' types; shapes never change, so nothing compiles twice.

    Raises:
        InvalidConfigError: a setting outside its range, or gradients that do not fit the state.
        UnsupportedProblemError: complex or integer leaves, or a sharding that cannot be exact; raised by `init` or `update`.
        BackendUnavailableError: an explicit backend that cannot run.

    Source: SONew, NeurIPS 2023, arXiv 2311.10085.
    """
    kind = state_dtype if isinstance(state_dtype, str) else str(jnp.dtype(state_dtype))
    check_ints(seed=seed, compute_capability=compute_capability)
    check_request(backend, tuning, framework="jax")
    numbers = read_numbers(
        band=1 if band is None else band, graft=graft, chain=chain, state_dtype=kind, b1=b1, b2=b2, eps=eps, eps_rel=eps_rel, gamma=gamma
    )
    choice = Choice(backend=backend, tuning=tuning, compute_capability=compute_capability, seed=seed or 0)

    def init(params: optax.Params) -> ScaleBySonewState:
        check_wide(kind)
        structure: Any
        named, structure = jax.tree_util.tree_flatten_with_path(params)
        paths = [jax.tree_util.keystr(path) for path, _ in named]
        for path, (_, leaf) in zip(paths, named, strict=True):
            check_leaf(path, leaf)
        leaves = dict(zip(paths, (leaf for _, leaf in named), strict=True))
        given = entries_at(shardings, leaves)
        warn_of_gathers(leaves, given)

        def zeros(name: str) -> optax.Updates:
            layouts = [state_layout(jnp.shape(leaf), numbers.band, kind)[name] for _, leaf in named]
            columns = zip(named, layouts, given, strict=True)
            return structure.unflatten([zeros_like_param(leaf, spec, sharding) for (_, leaf), spec, sharding in columns])

        return ScaleBySonewState(zero_count([leaf for _, leaf in named], given), zeros(MOMENTUM), zeros(STATS))

    def update(
        updates: optax.Updates,
        state: ScaleBySonewState,
        params: optax.Params | None = None,
        **extra_args: Any,  # noqa: ANN401  # optax's protocol
    ) -> tuple[optax.Updates, ScaleBySonewState]:
        del params, extra_args
        structure: Any
        named, structure = jax.tree_util.tree_flatten_with_path(updates)
        paths = [jax.tree_util.keystr(path) for path, _ in named]
        columns = ([grad for _, grad in named], structure.flatten_up_to(state.momentum), structure.flatten_up_to(state.stats))
        leaves = [Leaf(*arrays) for arrays in zip(*columns, strict=True)]
        for path, leaf in zip(paths, leaves, strict=True):
            check_step(path, leaf, numbers.band)
        count = optax.safe_increment(state.count)
        stepped = step_leaves(leaves, entries_at(shardings, dict(zip(paths, columns[0], strict=True))), count, numbers, choice)
        new = [structure.unflatten(column) for column in zip(*stepped, strict=True)] or [updates, state.momentum, state.stats]
        return new[0], ScaleBySonewState(count, new[1], new[2])

    return optax.GradientTransformationExtraArgs(init, update)


def sonew(
    learning_rate: optax.ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.99,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: jax.typing.ArrayLike = 0.0,
    *,
    mask: Any | Callable[[optax.Params], Any] | None = None,  # noqa: ANN401  # optax's own type of a mask
    band: int | None = None,
    eps_rel: jax.typing.ArrayLike = 0.0,
    gamma: jax.typing.ArrayLike | None = None,
    graft: GraftName = "adam",
    chain: Chain = "tensor",
    state_dtype: Any = "float32",  # noqa: ANN401  # a dtype-like
    seed: int | None = None,
    shardings: Shardings = None,
    backend: str = "auto",
    tuning: Tuning = "on",
    compute_capability: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SONew with decoupled weight decay: p <- p - learning_rate (u + weight_decay p).

    Args:
        learning_rate: a number or a schedule of the step; coming from AdamW, begin with its best rate times 1.5 for band 1, times 4 for
            band 4.
        weight_decay: of the parameters, >= 0; other than 0, `update` needs the parameters.
        mask: a tree of booleans like the parameters, or a function of them: which parameters decay; None: all.
        b1, b2, eps, band, eps_rel, gamma, graft, chain, state_dtype, seed, shardings, backend, tuning, compute_capability: see
            `scale_by_sonew`.
    """
    decay = known(weight_decay)
    numbers: dict[str, Any] = {"lr": None if callable(learning_rate) else known(learning_rate), "weight_decay": decay}
    Hyper(**{name: value for name, value in numbers.items() if value is not None})  # checks them
    return optax.chain(
        scale_by_sonew(
            b1,
            b2,
            eps,
            band=band,
            eps_rel=eps_rel,
            gamma=gamma,
            graft=graft,
            chain=chain,
            state_dtype=state_dtype,
            seed=seed,
            shardings=shardings,
            backend=backend,
            tuning=tuning,
            compute_capability=compute_capability,
        ),
        optax.add_decayed_weights(weight_decay, mask) if decay != 0 else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )
