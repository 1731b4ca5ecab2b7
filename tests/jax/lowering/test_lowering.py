"""What a step becomes on a GPU that is not here: kernel calls, state in place, nothing that changes between steps in the text.

Both versions of jax-triton run this file: the environment's here, the next one under `make test-jax-next`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

from sonew.backends import triton_jax
from sonew.config import Plan, Problem
from sonew.dispatch import make_plan
from sonew.errors import BackendUnavailableError
from sonew.jax import direction, scale_by_sonew, sonew
from sonew_kernels.spec import SUPPORTED_BANDS, TRITON, triton_launches
from tests.jax.lowering.programs import PASSED_ON, Program, aliases, elements, kernel_name, lower, terminator

LARGE: Final = (512, 1024)  # elements enough for calls of its own
PARAMS: Final = {"large": LARGE, "small": (1000,), "other": (37, 5)}
BAND: Final = 1
TARGET: Final[dict[str, Any]] = {"band": BAND, "compute_capability": 90, "tuning": "off"}
MOMENTUM, STATS = 1, 2  # operands of the direction kernel
CALLS: Final = ["prologue_direct", "direction_direct", "roots_direct"]

Tree = dict[str, jax.Array]


@pytest.fixture(autouse=True, scope="module")
def _usable() -> None:
    assert triton_jax.unusable() is None


def trees(*, half: bool = False) -> Tree:
    """Parameters; `half`: two bfloat16 leaves more."""
    more = {"half": jnp.ones((64,), jnp.bfloat16), "half too": jnp.ones((3, 4), jnp.bfloat16)} if half else {}
    return {name: jnp.ones(shape) for name, shape in PARAMS.items()} | more


def plain(tx: Any) -> Callable[..., Any]:
    def step(params: Tree, state: Any, grads: Tree) -> tuple[Tree, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def scanned(tx: Any) -> Callable[..., Any]:
    """Three steps in one program."""

    def steps(params: Tree, state: Any, grads: Tree) -> tuple[Tree, Any]:
        def body(carry: tuple[Tree, Any], scale: jax.Array) -> tuple[tuple[Tree, Any], None]:
            return plain(tx)(*carry, jax.tree.map(lambda grad: grad * scale, grads)), None

        return lax.scan(body, (params, state), jnp.arange(3.0))[0]

    return steps


def conditional(tx: Any) -> Callable[..., Any]:
    """A step that may be left out."""

    def step(params: Tree, state: Any, grads: Tree) -> tuple[Tree, Any]:
        finite = jnp.isfinite(grads["small"]).all()
        stepped: tuple[Tree, Any] = lax.cond(finite, lambda: plain(tx)(params, state, grads), lambda: (params, state))
        return stepped

    return step


@cache
def program(make: Callable[[Any], Callable[..., Any]] = plain, *, donate: bool = True) -> Program:
    tx, params = sonew(1e-2, weight_decay=0.1, **TARGET), trees()
    return Program(lower(make(tx), params, tx.init(params), params, donate=(0, 1) if donate else ()))


def large_direction(found: Program) -> Any:
    """The direction call of the large leaf."""
    (call,) = [call for call in found.kernel_calls if aliases(call) and elements(call.operands[MOMENTUM]) == LARGE[0] * LARGE[1]]
    return call


def test_a_large_leaf_is_three_calls_and_so_are_all_small_ones_of_a_type() -> None:
    tx, params = sonew(1e-2, **TARGET), trees(half=True)
    names = [kernel_name(call) for call in Program(lower(plain(tx), params, tx.init(params), params)).kernel_calls]
    large = [CALLS[0], CALLS[1] if triton_jax._takes_aliased_outputs() else "direction_in_place", CALLS[2]]
    assert sorted(names) == sorted([*large, *CALLS, *CALLS])
    assert [kernel_name(call) for call in program().kernel_calls] == [*large, *CALLS]


@pytest.mark.parametrize("donate", [True, False])
@pytest.mark.parametrize("make", [plain, scanned, conditional])
def test_the_state_of_a_large_leaf_is_stepped_where_it_lies(make: Any, donate: bool) -> None:
    """From what the program, or its loop, was given to what it hands on under the same number there are reshapes only."""
    found = program(make, donate=donate)
    call = large_direction(found)
    assert aliases(call) == {MOMENTUM: 0, STATS: 1}
    for operand, result in aliases(call).items():
        ((block, number),) = found.sources(call.operands[operand])
        assert elements(call.operands[operand]) == elements(call.results[result])
        assert elements(block.arguments[number]) == elements(call.operands[operand])
        if block == found.main:
            ends = [found.sources(value) for value in terminator(block).operands]
            number = next(i for i, end in enumerate(ends) if (call, result) in end)
            assert donate == (f"tf.aliasing_output = {number} " in _attributes(found, block, found.sources(call.operands[operand])))
        end = found.sources(terminator(block).operands[number])
        assert end <= {(call, result), *found.sources(call.operands[operand])}
        assert (call, result) in end


def _attributes(found: Program, block: Any, sources: set[Any]) -> str:
    """Attributes of the entry's argument that is the one source."""
    ((_, number),) = sources
    assert block == found.main
    return f"{block.owner.attributes['arg_attrs'][number]} "


@pytest.mark.parametrize("make", [plain, scanned, conditional])
def test_nothing_but_the_kernels_touches_the_state_of_a_large_leaf(make: Any) -> None:
    found = program(make)
    calls = [call for call in found.kernel_calls if elements(call.operands[0]) == LARGE[0] * LARGE[1]]
    direction = large_direction(found)
    state = set().union(*(found.sources(direction.operands[operand]) for operand in (MOMENTUM, STATS)))
    results = {(direction, 0), (direction, 1)}
    readers = [op for op in found.operations() if any(found.sources(operand) & (state | results) for operand in op.operands)]
    moved = {op.name for op in readers if op not in calls}
    assert moved <= {*PASSED_ON, "stablehlo.return", "stablehlo.while", "func.call", "func.return"}
    whole = (BAND + 1) * LARGE[0] * LARGE[1]  # no array of the program but the stats has so many elements
    makers = {op.name for op in found.operations() for value in op.results if elements(value) == whole and op != direction}
    assert makers <= {*PASSED_ON, "stablehlo.case", "stablehlo.while", "func.call"}


def text(tx: Any, params: Tree, *, platform: str = "cuda") -> str:
    made: str = lower(plain(tx), params, tx.init(params), params, platform=platform).as_text()
    return made


def test_the_text_is_the_same_for_other_numbers() -> None:
    """Learning rate, decays and damping are arrays of the state."""
    params = trees()
    inject = optax.inject_hyperparams(sonew, static_args=("band", "seed", "compute_capability"))
    first = inject(1e-2, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1, **TARGET)
    second = inject(3e-4, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.01, **TARGET)
    state = first.init(params)

    def step(tx: Any) -> str:
        made: str = lower(plain(tx), params, state, params).as_text()
        return made

    assert step(first) == step(second)


def test_a_schedule_compiles_once() -> None:
    tx = sonew(optax.linear_schedule(1e-2, 1e-3, 10), band=BAND)
    params = {"small": jnp.ones((40,))}
    step: Any = jax.jit(plain(tx))
    state = tx.init(params)
    seen = []
    for _ in range(3):
        moved, state = step(params, state, {"small": jnp.linspace(-1, 1, 40)})
        seen.append(float(jnp.abs(moved["small"] - params["small"]).sum()))
    assert step._cache_size() == 1
    assert len(set(seen)) == 3


@pytest.mark.parametrize(("settings", "platform"), [({}, "cpu"), ({"backend": "reference"}, "cuda")])
def test_without_triton_nothing_of_it_is_in_the_text(settings: dict[str, Any], platform: str) -> None:
    params = trees()
    assert "triton" not in text(sonew(1e-2, **TARGET, **settings), params, platform=platform)


def test_under_vmap_no_kernel_is_called() -> None:
    tx, params = sonew(1e-2, **TARGET), {"large": jnp.ones((2, *LARGE))}
    state = jax.vmap(tx.init)(params)
    assert "triton" not in lower(jax.vmap(plain(tx)), params, state, params).as_text()
    assert "triton" in text(tx, {"large": jnp.ones(LARGE)})


def test_an_explicit_backend_that_cannot_take_the_band_fails() -> None:
    band = next(band for band in range(100) if band not in SUPPORTED_BANDS)
    params = {"small": jnp.ones((40,))}
    with pytest.raises(BackendUnavailableError, match=f"band={band} is not one of"):
        text(sonew(1e-2, **TARGET | {"band": band}, backend="triton"), params)


def _call_roots(constants: dict[str, int], rows: int = 1) -> Any:
    launch = triton_launches(TRITON.default(BAND), BAND)["norms"]
    return jax.eval_shape(
        lambda table, partials: triton_jax.call(
            triton_jax._kernels()["roots"],
            [table, partials][:rows],
            [jax.ShapeDtypeStruct((1, 2), jnp.float32)],
            programs=1,
            launch=launch,
            constants=constants,
            compute_capability=90,
        ),
        jax.ShapeDtypeStruct((1, 14, 2), jnp.int32),
        jax.ShapeDtypeStruct((2,), jnp.float32),
    )


def test_wrong_constants_and_arguments_are_refused() -> None:
    """jax-triton would take a misspelt constant for one of the grid's, or leave a parameter without a value."""
    assert [made.shape for made in _call_roots({}, rows=2)] == [(1, 2)]
    with pytest.raises(TypeError, match=r"roots_direct has no constants \['BLOKC'\]"):
        _call_roots({"BLOKC": 1}, rows=2)
    with pytest.raises(TypeError, match=r"roots_direct has no constants \['partials'\]"):
        _call_roots({"partials": 1}, rows=2)
    with pytest.raises(TypeError, match=r"roots_direct needs constants .* and 3 arguments, got .* and 2"):
        _call_roots({}, rows=1)


@pytest.mark.parametrize("folder", ["elsewhere", None])
def test_importing_jax_triton_leaves_the_environment_alone(folder: str | None) -> None:
    code = "import os\nfrom sonew.backends import triton_jax\ntriton_jax._jax_triton()\nprint('found', os.environ.get('TRITON_CACHE_DIR'))"
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_CACHE_DIR"}
    environment = kept | {"PYTHONPATH": os.pathsep.join(sys.path)} | ({} if folder is None else {"TRITON_CACHE_DIR": folder})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert re.findall(r"found (.*)", done.stdout) == [str(folder)], done.stderr


def test_each_gradient_type_has_a_plan_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And for a GPU that is not here nothing that was measured counts."""
    asked: list[tuple[str, int, str]] = []

    def record(problem: Problem, **choices: Any) -> Plan:
        asked.append((problem.grad_dtype, problem.total, choices["tuning"]))
        return make_plan(problem, **choices)

    monkeypatch.setattr(direction, "make_plan", record)
    tx = scale_by_sonew(compute_capability=90)
    grads = [jnp.ones(5), jnp.ones(7, jnp.bfloat16), jnp.ones(9)]
    program = Program(lower(tx.update, grads, tx.init(grads)))
    assert asked == [("float32", 14, "off"), ("bfloat16", 7, "off")]
    assert len(program.kernel_calls) == 2 * len(CALLS)
