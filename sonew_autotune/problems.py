"""What is tuned: named sets of tensor shapes, and the real tensors, gradients and groups made of them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from sonew.backends.table import Leaf
from sonew.config import Chain, Hyper, LaunchConfig, Plan, Problem, chain_length
from sonew.dispatch import StepGroup, load_step_group, make_plan, split_launch_groups
from sonew.errors import InvalidConfigError
from sonew.layout import COUNT, MOMENTUM, STATS, state_layout
from sonew.tuned import type_names
from sonew_autotune.measure import roof_share
from sonew_autotune.settings import Problems
from sonew_kernels.spec import STORAGE_BYTES, SUPPORTED_BANDS
from sonew_kernels.traffic import direction_bytes, update_bytes

Shapes = tuple[tuple[int, ...], ...]

BANDS: Final = (1, 2, 4)
SIZES: Final = (65536, 4194304)
DTYPES: Final = ("float32",)
STATES: Final = ("float32", "bfloat16")  # of the state and, with it, the direction
LARGEST_SIZE: Final = 2**33
COPY_BYTES_PER_VALUE: Final = 2  # read and written


def _autoencoder() -> Shapes:
    """784-1000-500-250-30 and back, as in the paper: 16 tensors, 2.84 million elements."""
    widths = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
    return tuple(shape for before, after in itertools.pairwise(widths) for shape in ((after, before), (after,)))


def _gpt2_small() -> Shapes:
    """148 tensors, 124 million elements."""
    width, layers = 768, 12
    block = (
        *((width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,)),
        *((width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,)),
    )
    return ((50257, width), (1024, width), *(block * layers), (width,), (width,))


def _llama_1b() -> Shapes:
    """147 tensors, 1205 million elements: Llama-style, width 2048, 16 layers of full attention, vocabulary 32000, output not tied."""
    width, hidden, layers, vocabulary = 2048, 8192, 16, 32000
    block = (*[(width, width)] * 4, *[(hidden, width)] * 2, (width, hidden), (width,), (width,))
    return ((vocabulary, width), *(block * layers), (width,), (vocabulary, width))


MODELS: Final[Mapping[str, Shapes]] = {"mnist-autoencoder": _autoencoder(), "gpt2-small": _gpt2_small(), "llama-1b": _llama_1b()}
DEFAULT_MODELS: Final = ("mnist-autoencoder",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One problem to tune, with the real shapes behind it.

    Attributes:
        name: the size or the model, as shown.
        shapes: of the parameters, stepped as one group.
        device: "cpu" or "cuda". band, chain: as in `sonew.config.Hyper`.
        param_dtype, grad_dtype, state_dtype, direction_dtype: storage types.
    """

    name: str
    shapes: Shapes
    device: str
    band: int
    chain: Chain = "tensor"
    param_dtype: str = "float32"
    grad_dtype: str = "float32"
    state_dtype: str = "float32"
    direction_dtype: str = "float32"

    @property
    def title(self) -> str:
        """One line for tables and progress."""
        extra = "" if self.chain == "tensor" else f" chain={self.chain}"
        return f"band {self.band} {self.name} {type_names(self.problem)}{extra} on {self.device}"

    @property
    def elements(self) -> int:
        """Elements of all tensors."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def problem(self) -> Problem:
        """The dispatch problem of this case."""
        lengths = [math.prod(shape) for shape in self.shapes]
        return Problem(
            device=self.device,
            band=self.band,
            chain="block" if isinstance(self.chain, int) else self.chain,
            param_dtype=self.param_dtype,
            grad_dtype=self.grad_dtype,
            state_dtype=self.state_dtype,
            direction_dtype=self.direction_dtype,
            total=sum(lengths),
            median=int(statistics.median(lengths)),
        )

    @property
    def bytes_moved(self) -> int:
        """Fewest bytes of a step, as counted in `sonew_kernels.traffic`."""
        names = (self.param_dtype, self.grad_dtype, self.state_dtype, self.direction_dtype)
        param, grad, state, scratch = (STORAGE_BYTES[name] for name in names)
        first = direction_bytes(self.band, grad_bytes=grad, state_bytes=state, direction_bytes=scratch)
        return self.elements * (first + update_bytes(param_bytes=param, direction_bytes=scratch))

    def roof_share(self, time_ms: float, copy_ms: float) -> float:
        """Bytes per second of a step as a share of those of a copy of as many parameters, from their times in the same rounds."""
        copied = COPY_BYTES_PER_VALUE * STORAGE_BYTES[self.param_dtype] * self.elements
        return roof_share(bytes_moved=self.bytes_moved, time_ms=time_ms, copy_bytes=copied, copy_ms=copy_ms)


def check_choice(name: str, value: object, allowed: Sequence[object], fix: str) -> None:
    """Refuse a value outside its set.

    Raises:
        InvalidConfigError: with the value, the set and the fix.
    """
    if value not in allowed:
        msg = f"{name}={value!r} is not one of {list(allowed)}. {fix}"
        raise InvalidConfigError(msg)


def _launch_groups(name: str, shapes: Shapes) -> dict[str, Shapes]:
    """A model as the optimizer steps it: cut into launch groups, one of each size bucket kept (the first)."""
    splits = split_launch_groups([math.prod(shape) for shape in shapes])
    if len(splits) == 1:
        return {name: shapes}
    groups = {f"{name}[{index}]": tuple(shapes[i] for i in split) for index, split in enumerate(splits)}
    buckets: dict[tuple[int, int], str] = {}
    for title, group in groups.items():
        buckets.setdefault(Case(name=title, shapes=group, device="cpu", band=1).problem.size_bucket, title)
    return {title: groups[title] for title in buckets.values()}


def _shapes(sizes: Sequence[int], models: Sequence[str]) -> dict[str, Shapes]:
    for size in sizes:
        if not 1 <= size <= LARGEST_SIZE:
            msg = f"size={size} is not allowed: it must be between 1 and {LARGEST_SIZE} elements. Pass for example --size 4194304."
            raise InvalidConfigError(msg)
    shapes: dict[str, Shapes] = {str(size): ((size,),) for size in sizes}
    for model in models:
        check_choice("model", model, list(MODELS), "Pass for example --model mnist-autoencoder, or a --size.")
        shapes |= _launch_groups(model, MODELS[model])
    return shapes


def cases_of(problems: Problems, device: str) -> list[Case]:
    """The problem list on a device: every band with every size, model and dtype; what is left empty takes the defaults above.

    Raises:
        InvalidConfigError: a value outside its allowed set.
    """
    sizes, models = problems.sizes, problems.models
    if not sizes and not models:
        sizes, models = SIZES, DEFAULT_MODELS
    for band in problems.bands:
        check_choice("band", band, SUPPORTED_BANDS, "Pass for example --band 1.")
    for dtype in problems.dtypes:
        check_choice("dtype", dtype, list(STORAGE_BYTES), "Pass for example --dtype bfloat16.")
    for state in problems.states:
        check_choice("state", state, list(STATES), "Pass for example --state bfloat16.")
    return [
        Case(
            name=name,
            shapes=shapes,
            device=device,
            band=band,
            param_dtype=dtype,
            grad_dtype=dtype,
            state_dtype=state,
            direction_dtype=state,
        )
        for dtype in dict.fromkeys(problems.dtypes or DTYPES)
        for state in dict.fromkeys(problems.states or DTYPES)
        for name, shapes in _shapes(sizes, models).items()
        for band in dict.fromkeys(problems.bands or BANDS)
    ]


@dataclass(frozen=True, slots=True)
class Bench:
    """Real tensors of a case: parameters with state, and one gradient each."""

    case: Case
    leaves: tuple[Leaf, ...]
    grads: tuple[torch.Tensor, ...]


def build_bench(case: Case, *, seed: int = 0) -> Bench:
    """Allocate a case: normal parameters and gradients, zero state."""
    generator = torch.Generator(case.device).manual_seed(seed)

    def normal(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        return torch.randn(shape, device=case.device, generator=generator).to(getattr(torch, dtype))

    leaves = []
    for shape in case.shapes:
        layout = state_layout(shape, case.band, case.state_dtype)
        state = {name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=case.device) for name, spec in layout.items()}
        param = normal(shape, case.param_dtype)
        leaves.append(Leaf(param, state[MOMENTUM], state[STATS], state[COUNT], chain_length(case.chain, shape)))
    return Bench(case, tuple(leaves), tuple(normal(shape, case.grad_dtype) for shape in case.shapes))


def plan_with(case: Case, backend: str, kernel: str, config: Mapping[str, int]) -> Plan:
    """The plan of a case under an explicit configuration."""
    return make_plan(case.problem, backend=backend, config=LaunchConfig.of(kernel, config))


def build_group(bench: Bench, backend: str, kernel: str, config: Mapping[str, int], *, direction: torch.Tensor | None = None) -> StepGroup:
    """A ready group over the bench's tensors, gradients bound.

    Groups may share a bench: they then work on the same state, which is as large in memory as it is in training.
    """
    case = bench.case
    plan = plan_with(case, backend, kernel, config)
    group: StepGroup = load_step_group(plan)(bench.leaves, plan, direction=direction)
    group.set_hyper(Hyper(lr=1e-6, band=case.band, chain=case.chain))
    group.bind(bench.grads)
    return group


def tensors_of(bench: Bench) -> list[Any]:
    """What a step holds besides the group's own buffers, for `memory.held_bytes`."""
    return [bench.leaves, bench.grads]
