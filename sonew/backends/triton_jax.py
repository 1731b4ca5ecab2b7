"""The Triton kernels under jax-triton: the one file that knows its versions, 0.3.1 (Python 3.11) and 0.4 (Python 3.12, jax < 0.12).

Triton takes the direction phase; scale, decay and step size stay jax.numpy, which XLA fuses with the caller's update. A large tensor is one
call of each kernel, with its state updated in place; all smaller ones are joined into one call per step.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from sonew.backends.flat_jax import Direction, Facts, Flat, Numbers, find_gpu, gpu_capability, vary_like
from sonew.backends.triton_limits import kernel_limit
from sonew.config import LaunchConfig, Problem
from sonew.reference import decay_numbers
from sonew_kernels.spec import COMPILE_OPTIONS, TRITON, Column, Graft, Slot, Storage, TritonLaunch, triton_launches

KERNEL: Final = "triton"
JOINED_BELOW: Final = 2**18  # elements of a tensor: smaller ones share a call. Not measured yet


def rejects(problem: Problem) -> str | None:
    """Reason why this backend cannot take the problem, or None."""
    if problem.device != "cuda":
        return f"Triton needs a GPU, the tensors are on {problem.device}"
    return kernel_limit(problem) or unusable()


@cache
def unusable() -> str | None:
    """Why jax-triton cannot be used in this process, or None."""
    for package in ("triton", "jax_triton"):
        if find_spec(package) is None:
            return f"{package} is not installed: pip install 'sonew[jax]' on Linux"
    try:
        _jax_triton()
    except Exception as error:  # noqa: BLE001  # without a CUDA plugin of jax's version it fails in many ways
        return f"jax_triton cannot be imported ({type(error).__name__}: {error}); on NVIDIA GPUs install jax[cuda12]"
    return None


@cache
def _jax_triton() -> ModuleType:
    """jax-triton. Importing it takes TRITON_CACHE_DIR out of the environment, where others look for it."""
    held = os.environ.get("TRITON_CACHE_DIR")
    try:
        import jax_triton  # noqa: PLC0415  # heavy, and only where a GPU is programmed
    finally:
        if held is None:
            os.environ.pop("TRITON_CACHE_DIR", None)
        else:
            os.environ["TRITON_CACHE_DIR"] = held
    module: ModuleType = jax_triton
    return module


@cache
def _kernels() -> Mapping[str, Any]:
    """The kernels of the direct entry by name."""
    from sonew_kernels import direction, norms, prologue  # noqa: PLC0415  # they load triton

    return {
        "prologue": prologue.prologue_direct,
        "direction": direction.direction_direct,
        "direction in place": direction.direction_in_place,
        "roots": norms.roots_direct,
    }


def environment() -> dict[str, str | int]:
    """What a tuned configuration depends on besides the problem, in the words of `triton_torch`: one store serves both."""
    gpu, capability, toolchain = find_gpu(), gpu_capability(), f"triton {version('triton')}"
    if gpu is None:
        return {"device": "none", "capability": "none", "threads": 0, "toolchain": toolchain}  # lowered for a GPU that is elsewhere
    return {"device": gpu.device_kind, "capability": f"cuda:{capability}", "threads": 0, "toolchain": toolchain}


def _takes_aliased_outputs() -> bool:
    """Whether an output that is aliased to an input is a parameter of the kernel too: so it is before 0.4."""
    return "out_type" not in inspect.signature(_jax_triton().triton_call).parameters


def call(
    kernel: Any,  # noqa: ANN401  # a triton.JITFunction, which has no stubs
    inputs: Sequence[jax.Array | int],
    outputs: Sequence[jax.ShapeDtypeStruct],
    *,
    programs: int,
    launch: TritonLaunch,
    constants: Mapping[str, int],
    aliases: Mapping[int, int] | None = None,
    compute_capability: int | None = None,
) -> list[jax.Array]:
    """One launch.

    Args:
        kernel: a kernel whose parameters are the inputs, then the outputs, then constants.
        inputs: arrays and ints, in the order of the parameters.
        outputs: shapes of the results.
        programs: of the grid. launch: warps and constants of the configuration. constants: the other ones.
        aliases: input (counted among the arrays) to output that is written in its place.
        compute_capability: of the GPU that is compiled for; None: of the one here.

    Raises:
        TypeError: constants or arguments are not the kernel's, which jax-triton would not notice.
    """
    parameters = {param.name: param for param in kernel.params}
    defaults = {name: param.default for name, param in parameters.items() if param.is_constexpr and param.has_default}
    needed = {name for name, param in parameters.items() if param.is_constexpr} - set(defaults)
    named = {**defaults, **constants, **launch.constants}
    pointers = [name for name, param in parameters.items() if not param.is_constexpr]
    own = bool(aliases) and not _takes_aliased_outputs()
    given = len(inputs) + len(outputs) - (len(aliases or ()) if own else 0)
    if unknown := {name for name in named if name not in parameters or not parameters[name].is_constexpr}:
        msg = f"{kernel.__name__} has no constants {sorted(unknown)}: they must be among {sorted(needed)}."
        raise TypeError(msg)
    if needed - set(named) or given != len(pointers):
        msg = f"{kernel.__name__} needs constants {sorted(needed)} and {len(pointers)} arguments, got {sorted(named)} and {given}."
        raise TypeError(msg)
    options: dict[str, Any] = {"num_warps": launch.num_warps, "num_stages": COMPILE_OPTIONS["num_stages"]}
    if _takes_aliased_outputs():
        options |= {"out_shape": list(outputs), "enable_fp_fusion": COMPILE_OPTIONS["enable_fp_fusion"]}
    else:
        options |= {"out_type": list(outputs), "backend_options": {"enable_fp_fusion": COMPILE_OPTIONS["enable_fp_fusion"]}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "input_output_aliases is deprecated", DeprecationWarning)  # 0.3 has nothing else
        results = _jax_triton().triton_call(
            *inputs,
            kernel=kernel,
            grid=(programs, 1, 1),
            input_output_aliases=dict(aliases or {}),
            compute_capability=compute_capability,
            **options,
            **named,
        )
    return [vary_like(result, inputs) for result in results]  # a kernel's results say nothing of how they vary


def directions(
    facts: Sequence[Facts],
    flats: Sequence[Flat],
    count: jax.Array,
    numbers: Numbers,
    config: LaunchConfig,
    compute_capability: int | None = None,
) -> list[Direction]:
    """Direction phase of each piece; `count` is this step's number, int32 (), `config` a point of `sonew_kernels.spec.TRITON`."""
    slots, made = _slots(numbers), dict[int, Direction]()
    small: dict[Any, list[int]] = {}
    for i, (fact, flat) in enumerate(zip(facts, flats, strict=True)):
        if fact.length >= JOINED_BELOW:
            made[i] = _launch([fact], [flat], count, numbers, slots, config, compute_capability)[0]
        else:
            small.setdefault((flat.grad.dtype, flat.outer is None), []).append(i)
    for members in small.values():
        group = _launch([facts[i] for i in members], [flats[i] for i in members], count, numbers, slots, config, compute_capability)
        made |= dict(zip(members, group, strict=True))
    return [made[i] for i in range(len(facts))]


def table(facts: Sequence[Facts], tile: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows int32 (tensors, columns, 2), which are int64 words of `spec.Column`, for tensors one behind the other; the tile map (tiles,)."""
    rows = np.zeros((len(facts), len(Column)), np.int64)
    tiles = [max(-(-fact.length // tile), 1) for fact in facts]
    lengths = np.array([fact.length for fact in facts], np.int64)
    rows[:, Column.LENGTH], rows[:, Column.TOTAL] = lengths, [fact.total for fact in facts]
    rows[:, Column.CHAIN], rows[:, Column.SEED] = [fact.chain for fact in facts], [fact.seed for fact in facts]
    rows[:, Column.OFFSET] = np.cumsum(lengths) - lengths
    rows[:, Column.FIRST_TILE] = np.cumsum(tiles) - tiles
    rows[:, Column.ACTIVE] = 1
    return rows.view(np.int32).reshape(len(facts), len(Column), 2), np.repeat(np.arange(len(facts), dtype=np.int32), tiles)


def _slots(numbers: Numbers) -> jax.Array:
    """The kernels' numbers, float32, one per `spec.Slot`."""
    decays = decay_numbers(numbers, jnp)  # type: ignore[arg-type]  # it reads the same fields
    values = {
        Slot.BETA1: numbers.beta1,
        Slot.ONE_MINUS_BETA1: decays.one_minus_beta1,
        Slot.LOG_BETA1: decays.log_beta1,
        Slot.BETA2: numbers.beta2,
        Slot.ONE_MINUS_BETA2: decays.one_minus_beta2,
        Slot.LOG_BETA2: decays.log_beta2,
        Slot.EPS: numbers.eps,
        Slot.EPS_REL: numbers.eps_rel,
        Slot.GAMMA: numbers.gamma,
        Slot.GAIN: 1.0,
    }
    row = [values.get(slot, 0.0) for slot in Slot]
    if not any(isinstance(value, jax.Array) for value in row):
        return jnp.asarray(np.array(row, np.float32))  # one constant
    return jnp.stack([jnp.asarray(value, jnp.float32).reshape(()) for value in row])


def _launch(
    facts: Sequence[Facts],
    flats: Sequence[Flat],
    count: jax.Array,
    numbers: Numbers,
    slots: jax.Array,
    config: LaunchConfig,
    compute_capability: int | None,
) -> list[Direction]:
    """The kernels over pieces that are joined, or over one as it lies."""
    band, single = numbers.band, len(flats) == 1
    launches = triton_launches(config.as_dict(), band)
    rows, tiles = (jnp.asarray(x) for x in table(facts, TRITON.tile(config.as_dict(), band)))
    grad = _joined([flat.grad for flat in flats])
    momentum, stats = _joined([flat.momentum for flat in flats]), _joined([flat.stats.reshape(-1) for flat in flats])
    outer = _outer(flats, band)
    state, elements = momentum.dtype, sum(fact.length for fact in facts)
    chained = any(fact.chain < fact.total for fact in facts)
    pieces = flats[0].outer is not None
    records = (len(tiles) + len(facts)) * (band + 2) * 2 * band if band else 1
    flags = {"PIECES": int(pieces and band > 0)}
    corrections, edges = call(
        _kernels()["prologue"],
        [momentum, stats, count, slots, rows, tiles, outer[0], len(tiles)],
        [jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((records,), state)],
        programs=-(-len(tiles) // launches["prologue"].unit),
        launch=launches["prologue"],
        constants=flags,
        compute_capability=compute_capability,
    )
    numbered = jnp.stack([jnp.asarray(flat.piece, jnp.int32) for flat in flats])
    given = [grad, momentum, stats, rows, tiles, numbered, slots, corrections, edges, outer[1], count]
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (momentum, stats)]
    storage = {"STATE_STORAGE": int(Storage[str(state).upper()]), "DIRECTION_STORAGE": int(Storage.FLOAT32)}
    in_place = single and not _takes_aliased_outputs()
    momentum, stats, u, partials = call(
        _kernels()["direction in place" if in_place else "direction"],
        given,
        [*shapes, jax.ShapeDtypeStruct((elements,), jnp.float32), jax.ShapeDtypeStruct((2 * len(tiles),), np.dtype("float64"))],
        programs=len(tiles),
        launch=launches["direction"],
        constants={**flags, **storage, "GRAFT": int(Graft[numbers.graft.upper()]), "CHAINED": int(chained)},
        aliases={1: 0, 2: 1} if single else None,
        compute_capability=compute_capability,
    )
    (roots,) = call(
        _kernels()["roots"],
        [rows, partials],
        [jax.ShapeDtypeStruct((len(facts), 2), jnp.float32)],
        programs=len(facts),
        launch=launches["norms"],
        constants={},
        compute_capability=compute_capability,
    )
    ends = np.cumsum([0, *(fact.length for fact in facts)])
    return [
        Direction(u[begin:end], roots[i], momentum[begin:end], stats[(band + 1) * begin : (band + 1) * end].reshape(band + 1, -1))
        for i, (begin, end) in enumerate(pairwise(ends))
    ]


def _joined(parts: Sequence[jax.Array]) -> jax.Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _outer(flats: Sequence[Flat], band: int) -> tuple[jax.Array, jax.Array]:
    """Old state and gradients beyond the pieces' ends as the kernels want them, one element where there is none."""
    if band == 0 or flats[0].outer is None:
        nothing = jnp.zeros((1,), jnp.float32)
        return nothing, nothing
    outer = jnp.stack([jnp.asarray(flat.outer, jnp.float32) for flat in flats])
    return outer[:, :, :-1], outer[:, :, -1]
