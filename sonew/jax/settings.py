"""The arguments of the transformations, checked: numbers that are known against `sonew.config.Hyper`, the others as they come."""

from __future__ import annotations

from dataclasses import fields
from numbers import Real
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from sonew.backends.flat_jax import LARGEST, Numbers
from sonew.config import COMPUTE_DTYPE, STATE_DTYPES, Hyper, default_gamma
from sonew.errors import InvalidConfigError, UnsupportedProblemError
from sonew.jax.leaves import Leaf

NAMES: Final = {"b1": "beta1", "b2": "beta2", "eps": "eps", "eps_rel": "eps_rel", "gamma": "gamma"}
STATIC: Final = ("band", "seed")


def known(value: object) -> float | None:
    """The number that a setting is, None where the program computes it."""
    return float(value) if isinstance(value, Real | np.generic | np.ndarray) else None


def read_numbers(*, band: Any, graft: Any, chain: Any, state_dtype: str, **named: Any) -> Numbers:  # noqa: ANN401  # checked here
    """Settings of the method.

    Args:
        band, graft, chain, state_dtype: as `scale_by_sonew` takes them.
        named: b1, b2, eps, eps_rel and gamma: numbers, or scalars of the program, which are not looked at.

    Raises:
        InvalidConfigError: a setting outside its range.
    """
    check_static(band=band, chain=chain)
    if state_dtype not in STATE_DTYPES:
        msg = f"state_dtype={state_dtype!r} is not one of {list(STATE_DTYPES)}. Use 'float32'."
        raise InvalidConfigError(msg)
    if named["gamma"] is None:
        b2 = known(named["b2"])
        if state_dtype == "bfloat16" and b2 is None:
            msg = (
                "gamma=None is not allowed with bfloat16 state where b2 is an array: it must be a number. "
                "Pass gamma=0.028 for b2=0.99 and band 1."
            )
            raise InvalidConfigError(msg)
        named["gamma"] = 0.0 if b2 is None or not isinstance(band, int) else default_gamma(state_dtype, b2, band)
    numbers = {NAMES[name]: known(value) for name, value in named.items()}
    fixed: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    hyper = Hyper(band=band, graft=graft, chain=chain, **fixed)  # checks what is known, under the names of the mathematics
    given = {NAMES[name]: value for name, value in named.items() if numbers[NAMES[name]] is None}
    return Numbers(**{field.name: given.get(field.name, getattr(hyper, field.name)) for field in fields(Numbers)})


def check_static(**named: object) -> None:
    """Refuse arrays where what is compiled depends on the number."""
    for name, value in named.items():
        if isinstance(value, jax.Array):
            msg = (
                f"{name} is an array, which is not allowed: it must be a Python int, because what is compiled depends on it. "
                f"With optax.inject_hyperparams pass static_args={tuple(dict.fromkeys((*STATIC, name)))}."
            )
            raise InvalidConfigError(msg)


def check_ints(*, seed: object, compute_capability: object) -> None:
    """Refuse a seed or a compute capability that is none; None: not given.

    Raises:
        InvalidConfigError: it names what is allowed.
    """
    check_static(seed=seed, compute_capability=compute_capability)
    for name, value, end, allowed in (
        ("seed", seed, 2**64, "an integer in [0, 2^64). Pass for example seed=0."),
        ("compute_capability", compute_capability, 1000, "an integer. Pass for example compute_capability=90."),
    ):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end):
            msg = f"{name}={value!r} is not allowed: it must be {allowed}"
            raise InvalidConfigError(msg)


def check_wide(state_dtype: str) -> None:
    """Refuse float64 state where JAX would make float32 of it, with InvalidConfigError."""
    if state_dtype == "float64" and not jax.config.read("jax_enable_x64"):
        msg = "state_dtype='float64' is not allowed: JAX makes float32 of it. Set jax_enable_x64, or use 'float32'."
        raise InvalidConfigError(msg)


def check_leaf(path: str, leaf: Any) -> None:  # noqa: ANN401  # whatever a tree holds
    """Refuse a parameter or gradient that cannot be stepped, with UnsupportedProblemError."""
    dtype, where = str(jnp.result_type(leaf)), path or "the root"
    if dtype not in COMPUTE_DTYPE:
        kind = "complex parameters" if jnp.issubdtype(dtype, jnp.complexfloating) else "parameters of this type"
        msg = (
            f"SONew does not support {kind}, got {dtype} at {where}: they must be one of {list(COMPUTE_DTYPE)}. "
            "Use optax.masked or optax.partition for the others."
        )
        raise UnsupportedProblemError(msg)
    if jnp.size(leaf) > LARGEST:
        msg = f"SONew for JAX does not support leaves of more than {LARGEST:,} elements, got shape {jnp.shape(leaf)} at {where}: split it."
        raise UnsupportedProblemError(msg)


def check_step(path: str, leaf: Leaf, band: int) -> None:
    """Refuse a gradient that cannot be stepped with its state.

    Raises:
        UnsupportedProblemError: a complex or integer gradient.
        InvalidConfigError: a state of another shape.
    """
    check_leaf(path, leaf.grad)
    shape = jnp.shape(leaf.grad)
    if jnp.shape(leaf.momentum) != shape or jnp.shape(leaf.stats) != (band + 1, *shape):
        msg = (
            f"the gradient at {path or 'the root'} has shape {shape}, its state {jnp.shape(leaf.momentum)} and {jnp.shape(leaf.stats)}, "
            f"which is not allowed: with band={band} they must be {shape} and {(band + 1, *shape)}. Call init anew."
        )
        raise InvalidConfigError(msg)
