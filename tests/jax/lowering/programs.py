"""Programs lowered for a GPU that is not here, and where their values come from."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import jax
from jax.extend.mlir import ir

PASSED_ON: Final = ("stablehlo.reshape",)  # makes no copy: XLA turns it into a bitcast
KERNEL_CALL: Final = "triton_kernel_call"

Source = tuple[Any, int]  # an operation and the number of its result, or a block and the number of its argument


def lower(function: Callable[..., Any], *args: Any, donate: tuple[int, ...] = (), platform: str = "cuda") -> Any:
    """The program of a function of these arguments, as `jax.stages.Lowered`."""
    return jax.jit(function, donate_argnums=donate).trace(*args).lower(lowering_platforms=(platform,))


class Program:
    """A lowered program that can be walked.

    Attributes:
        main: the entry's one block.
    """

    def __init__(self, lowered: Any) -> None:
        self._module = lowered.compiler_ir("stablehlo")  # keeps what it holds alive
        self._functions = {op.attributes["sym_name"].value: op for op in self._module.body.operations}
        self.main = self._functions["main"].regions[0].blocks[0]

    def operations(self) -> Iterator[Any]:
        """Every operation, in the order of the text."""
        for function in self._functions.values():
            yield from _inside(function)

    @property
    def kernel_calls(self) -> list[Any]:
        """Calls of Triton kernels, in the order of the text."""
        return [op for op in self.operations() if op.name == "stablehlo.custom_call" and KERNEL_CALL in target(op)]

    def sources(self, value: Any) -> set[Source]:
        """Where a value was made: through reshapes, conditionals and functions; a loop's argument is a source."""
        if isinstance(value, ir.BlockArgument):
            return self._sources_of_argument(value)
        op, number = ir.OpResult(value).owner, ir.OpResult(value).result_number
        op = getattr(op, "operation", op)
        if op.name in PASSED_ON:
            return self.sources(op.operands[0])
        if op.name in ("stablehlo.case", "stablehlo.if"):
            return set().union(*(self.sources(terminator(region.blocks[0]).operands[number]) for region in op.regions))
        if op.name == "func.call":
            return self.sources(terminator(self._callee(op).regions[0].blocks[0]).operands[number])
        return {(op, number)}

    def _sources_of_argument(self, value: Any) -> set[Source]:
        owner = value.owner.owner
        name = getattr(owner, "operation", owner).name
        if name == "func.func" and value.owner != self.main:
            calls = [op for op in self.operations() if op.name == "func.call" and self._callee(op) == owner]
            return set().union(*(self.sources(call.operands[value.arg_number]) for call in calls))
        return {(value.owner, value.arg_number)}

    def _callee(self, call: Any) -> Any:
        return self._functions[ir.FlatSymbolRefAttr(call.attributes["callee"]).value]


def _inside(op: Any) -> Iterator[Any]:
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield inner.operation
                yield from _inside(inner.operation)


def terminator(block: Any) -> Any:
    """The operation that hands a block's results on."""
    return list(block.operations)[-1].operation


def target(call: Any) -> str:
    """What a custom call calls."""
    name: str = ir.StringAttr(call.attributes["call_target_name"]).value
    return name


def kernel_name(call: Any) -> str:
    """The kernel that a call launches, as its machine code's entry is named."""
    config = call.attributes["mhlo.backend_config" if "mhlo.backend_config" in call.attributes else "backend_config"]
    packed = config["opaque"] if isinstance(config, ir.DictAttr) else config
    found = re.search(rb"\.entry (\w+)\(", zlib.decompress(ir.StringAttr(packed).value_bytes))
    assert found, "the call holds no machine code as text"
    return found[1].decode()


def phase(call: Any) -> str:
    """Prologue, direction or roots: the direction kernel has another name where jax-triton 0.4 steps one leaf in place."""
    return kernel_name(call).partition("_")[0]


def aliases(call: Any) -> dict[int, int]:
    """Operand to result that is written in its place."""
    pairs = re.findall(r"output_tuple_indices = \[(\d*)\], operand_index = (\d+)", str(call.attributes["output_operand_aliases"]))
    return {int(operand): int(result or 0) for result, operand in pairs}


def elements(value: Any) -> int:
    """Elements of a value, 0 where it is no array."""
    kind = ir.RankedTensorType(value.type)
    count = 1
    for size in kind.shape:
        count *= size
    return count
