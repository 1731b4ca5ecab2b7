"""The Triton backend of JAX beside XLA: its launches, with the kernels run by Triton's interpreter in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew.backends import triton_jax, xla_jax
from sonew.backends.flat_jax import Direction, Facts, Flat, Numbers
from sonew.config import Hyper, LaunchConfig, chain_length
from sonew.rounding import tensor_seed
from tests.jax.cases import Past
from tests.jax.trees import jit
from tests.tolerances import assert_close

ROOT: Final = Path(__file__).resolve().parents[2]
BF16: Final = jnp.dtype("bfloat16")
CONFIG: Final = LaunchConfig.of("triton", {"block": 64, "num_warps": 1, "update_block": 256, "update_num_warps": 1})


@dataclass
class Interpreter:
    """What stands in for jax-triton: `triton_call` as in 0.3, or as in 0.4, where an output in place of an input is no parameter."""

    process: subprocess.Popen[str]
    folder: Path
    newer: bool = False
    launches: int = 0

    def module(self) -> SimpleNamespace:
        """The module as `triton_jax` sees it."""

        def older(*inputs: Any, out_shape: Any, enable_fp_fusion: bool, **rest: Any) -> list[Any]:
            assert not enable_fp_fusion
            return self._launch(inputs, out_shape, **rest)

        def newer(*inputs: Any, out_type: Any, backend_options: Mapping[str, Any], **rest: Any) -> list[Any]:
            assert backend_options == {"enable_fp_fusion": False}
            return self._launch(inputs, out_type, **rest)

        return SimpleNamespace(triton_call=newer if self.newer else older)

    def check(
        self, facts: Sequence[Facts], flats: Sequence[Flat], count: jax.Array, numbers: Numbers, *, launches: int, given: Any = None
    ) -> list[Direction]:
        """Hold the directions, by both versions, to XLA's. `given`: the numbers as the kernels get them, where they are other ones."""
        wanted = by_xla(facts, flats, count, numbers)
        for self.newer in (False, True):
            self.launches = 0
            made = triton_jax.directions(facts, flats, count, given or numbers, CONFIG)
            assert self.launches == launches
            compare(made, wanted)
        return made

    def _launch(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[jax.ShapeDtypeStruct],
        *,
        kernel: Any,
        grid: tuple[int, ...],
        input_output_aliases: Mapping[int, int],
        compute_capability: int | None,
        num_warps: int,
        num_stages: int,
        **constants: int,
    ) -> list[Any]:
        """Launch on copies; outputs start as NaN."""
        assert (compute_capability, num_warps > 0, num_stages > 0) == (None, True, True)
        arrays = [np.int64(x) if isinstance(x, int) else _portable(x) for x in inputs]
        made = [np.full(x.shape, np.nan, np.float32).astype(x.dtype) for x in outputs]
        aliased = {out: arrays[i] for i, out in input_output_aliases.items()}
        own = [_portable(x) for out, x in enumerate(made) if out not in aliased or not self.newer]
        file = self.folder / f"{self.launches}.npz"
        self.launches += 1
        named = {f"constant {name}": np.asarray(value) for name, value in constants.items()}
        arguments = {str(i): array for i, array in enumerate([*arrays, *own])}
        np.savez(
            file, allow_pickle=False, kernel=np.array([kernel.fn.__module__, kernel.fn.__name__]), grid=np.array(grid), **named, **arguments
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline().strip() == str(file), "the launch failed: see its error below"
        with np.load(file) as held:
            after = [held[str(i)] for i in range(len(arguments))]
        rest = iter(after[len(arrays) :])
        places = {out: i for i, out in input_output_aliases.items()}
        results = [after[places[out]] if out in places and self.newer else next(rest) for out in range(len(outputs))]
        return [x if x.dtype == np.float64 else jnp.asarray(x.view(BF16) if x.dtype == np.uint16 else x) for x in results]


def _portable(array: Any) -> np.ndarray:
    """A copy that .npz can hold."""
    copy = np.array(array)
    return copy.view(np.uint16) if copy.dtype == BF16 else copy


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    """The interpreter's process, one for all launches."""
    command = [sys.executable, "-m", "tests.jax.triton_side"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, stdin=-1, stdout=-1, text=True) as running:
        yield running
        assert running.stdin is not None
        running.stdin.close()
        running.wait(30)


@pytest.fixture
def interpreter(process: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    """In place of jax-triton."""
    made = Interpreter(process, tmp_path)
    monkeypatch.setattr(triton_jax, "_jax_triton", made.module)
    return made


def numbers_of(hyper: Hyper) -> Numbers:
    names = ("band", "graft", "chain", "beta1", "beta2", "eps", "eps_rel", "gamma")
    return Numbers(**{name: getattr(hyper, name) for name in names})


def tensors(shapes: Sequence[tuple[int, ...]], hyper: Hyper, state: Any, grad: Any) -> tuple[list[Facts], list[Flat]]:
    """Whole tensors, each after a history of its own."""
    facts, flats = [], []
    for i, shape in enumerate(shapes):
        past = Past.of(i, shape, hyper)
        size = past.grad.size
        facts.append(Facts(size, size, chain_length(hyper.chain, shape), tensor_seed(5, i)))
        flats.append(Flat(jnp.asarray(past.grad, grad), jnp.asarray(past.momentum, state), jnp.asarray(past.stats, state)))
    return facts, flats


def by_xla(facts: Sequence[Facts], flats: Sequence[Flat], count: jax.Array, numbers: Numbers) -> list[Direction]:
    """What the kernels are held to."""
    made: list[Direction] = jit(lambda flats, count: xla_jax.directions(facts, flats, count, numbers))(flats, count)
    return made


def compare(made: Sequence[Direction], wanted: Sequence[Direction]) -> None:
    """Every output of every tensor, by the rows for one step from the same state."""
    for i, (got, want) in enumerate(zip(made, wanted, strict=True)):
        row = "bfloat16 stochastic" if want.momentum.dtype == BF16 else "float32 averages"
        assert (got.momentum.dtype, got.u.dtype) == (want.momentum.dtype, want.u.dtype)
        assert_close(got.u, want.u, "float32", context=f"direction {i}")
        assert_close(got.roots, want.roots, "float32", context=f"roots {i}")
        assert_close(got.momentum, want.momentum, row, context=f"momentum {i}")
        assert_close(got.stats, want.stats, row, context=f"stats {i}")


@pytest.mark.parametrize(
    ("band", "chain", "graft", "state", "grad", "single"),
    [
        (0, "tensor", "adam", "float32", "bfloat16", 150),
        (1, "row", "adam", "float32", "float32", 150),
        (2, 7, "rmsprop", "bfloat16", "float32", 150),
        (3, "tensor", "none", "float32", "float16", 2**18),
        (4, 50, "sgd", "bfloat16", "bfloat16", 2**18),
    ],
)
def test_whole_tensors(
    band: int, chain: Any, graft: Any, state: str, grad: str, single: int, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small tensors joined, and one of several tiles that is stepped in place; counts, chains and seeds of their own."""
    monkeypatch.setattr(triton_jax, "JOINED_BELOW", single)
    hyper = Hyper(band=band, chain=chain, graft=graft, eps=1e-4, eps_rel=0.01, gamma=0.05)
    facts, flats = tensors(((5,), (10, 16), (9, 11)), hyper, state, grad)
    count, numbers = jnp.int32(3 * band + 7), numbers_of(hyper)
    interpreter.check(facts, flats, count, numbers, launches=3 * (2 if single < 160 else 1))


@pytest.mark.parametrize(("band", "chain", "state"), [(1, "tensor", "float32"), (3, 40, "bfloat16")])
def test_pieces(band: int, chain: Any, state: str, interpreter: Interpreter) -> None:
    """A third of each tensor, with what lies beyond its ends: what XLA makes of the same piece, and the whole tensor's elements there."""
    hyper = Hyper(band=band, chain=chain, eps=1e-4)
    facts, flats = tensors(((6, 16), (3 * 70,)), hyper, state, "float32")
    count, numbers, number = jnp.int32(3 * band + 7), numbers_of(hyper), 1
    pieces, parts = [], []
    for fact, flat in zip(facts, flats, strict=True):
        length = fact.total // 3
        begin, end = number * length, (number + 1) * length
        grad, momentum, stats = (np.asarray(x) for x in flat[:3])
        fields = np.concatenate([x.astype(np.float32) for x in (momentum[None], stats, grad[None])])
        outer = jnp.asarray(np.stack((fields[:, begin - band : begin], fields[:, end : end + band])))
        pieces.append(replace(fact, length=length))
        cut: Any = [jnp.asarray(x[..., begin:end]) for x in (grad, momentum, stats)]
        parts.append(Flat(cut[0], cut[1], cut[2], jnp.int32(number), outer))
    made = interpreter.check(pieces, parts, count, numbers, launches=3)
    for piece, got, whole in zip(pieces, made, by_xla(facts, flats, count, numbers), strict=True):
        assert_close(got.u, whole.u[piece.length : 2 * piece.length], "float32")


def test_numbers_of_the_program(interpreter: Interpreter) -> None:
    """Numbers that are arrays reach the kernels as those that are known."""
    hyper = Hyper(band=1, eps=1e-4, eps_rel=0.3, gamma=0.2)
    facts, flats = tensors(((40,),), hyper, "float32", "float32")
    numbers = numbers_of(hyper)
    traced = replace(numbers, **{name: jnp.float32(getattr(hyper, name)) for name in ("beta1", "beta2", "eps", "eps_rel", "gamma")})
    interpreter.check(facts, flats, jnp.int32(10), numbers, launches=3, given=traced)
