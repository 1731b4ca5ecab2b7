"""The compiled CPU backend against the reference; the same bits for every configuration, thread count and cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sonew import reference
from sonew.backends import cpu_torch, native_build
from sonew.backends.table import GroupTable, Leaf
from sonew.config import Chain, GraftName, Hyper, LaunchConfig, Plan, Problem
from sonew_kernels.spec import CPU, Column
from tests.sonew.cpu_groups import SMALL, Group
from tests.strategies import awkward_sizes
from tests.tolerances import assert_close

SEGMENT, BLOCK = SMALL["segment"], SMALL["block"]
STORE_ROWS = {torch.float32: "float32", torch.bfloat16: "bfloat16 store", torch.float16: "float16 store"}


@pytest.mark.parametrize(
    ("band", "chain", "graft", "dtype"),
    [
        (0, "tensor", "adam", torch.float32),
        (0, 7, "rmsprop", torch.bfloat16),
        (1, "tensor", "adam", torch.float32),
        (1, 3, "none", torch.float16),
        (2, "tensor", "adam_uncorrected", torch.bfloat16),
        (2, 1, "adam", torch.float32),
        (4, "tensor", "sgd", torch.float16),
        (4, 100, "adam", torch.float32),
        (8, "tensor", "rmsprop", torch.float32),
        (8, 1000, "sgd", torch.bfloat16),
        (16, "tensor", "adam", torch.float32),
        (16, 40, "none", torch.float16),
        *(pytest.param(band, chain, "adam", torch.float32, marks=pytest.mark.full) for band in (3, 5, 6, 7) for chain in ("tensor", 11)),
    ],
)
def test_a_step_follows_the_reference(band: int, chain: Chain, graft: GraftName, dtype: torch.dtype) -> None:
    """State, direction, norms and parameters of tensors of every awkward size in one group; nothing is written outside them."""
    hyper = Hyper(band=band, chain=chain, graft=graft, lr=0.1, weight_decay=0.1, eps_rel=1e-4, gamma=1e-6)
    group = Group(awkward_sizes(band, BLOCK, SEGMENT), hyper, dtype=dtype)
    before = [leaf.param.double().numpy() for leaf in group.leaves]
    expected = [group.expected(i) for i in range(len(group.sizes))]
    group.run()
    for i, (u, target, _, _) in enumerate(expected):
        context = f"size {group.sizes[i]}"
        assert_close(group.direction(i), u, "float32", context=context)
        if u.size:
            step = u if graft == "none" else reference.graft(np, u, target)
            assert_close(group.leaves[i].param, before[i] - 0.1 * (step + 0.1 * before[i]), STORE_ROWS[dtype], context=context)
    # All tensors at once: a lone mean can be a difference of larger numbers, which leaves it fewer digits.
    averages = torch.cat([torch.cat((leaf.momentum[None], leaf.stats)) for leaf in group.leaves], 1)
    wanted = np.concatenate([np.concatenate((momentum[None], stats)) for _, _, momentum, stats in expected], 1)
    for row, (got, want) in enumerate(zip(averages, wanted, strict=True)):
        assert_close(got, want, "float32 averages", context=f"momentum and stats, row {row}")
    assert group.intact()


@pytest.mark.parametrize(
    ("band", "chain", "dtype", "state"),
    [
        (0, "tensor", torch.float32, torch.float32),
        (1, 37, torch.bfloat16, torch.float32),
        (4, "tensor", torch.float32, torch.float32),
        (0, "tensor", torch.float32, torch.bfloat16),
        (3, 100, torch.bfloat16, torch.bfloat16),
        (16, "tensor", torch.float32, torch.float32),
        (16, 100, torch.bfloat16, torch.bfloat16),
    ],
)
def test_bits_depend_on_no_configuration(band: int, chain: Chain, dtype: torch.dtype, state: torch.dtype) -> None:
    """Direction, state and (ungrafted) parameters after two steps, over blocks, segments and threads; with all noise where bfloat16."""
    hyper = Hyper(band=band, chain=chain, graft="none", lr=0.1, stochastic_rounding=True)
    results = []
    for segment, block, threads in ((4096, 256, 1), (4096, 2048, 2), (16384, 512, 3), (65536, 1024, 2), (262144, 2048, 0)):
        config = {"segment": segment, "block": block, "threads": threads}
        group = Group((40961, 5, 8 * SEGMENT), hyper, config, dtype, state, scratch=state)
        group.run()
        group.run()
        tensors = [t for leaf in group.leaves for t in (leaf.param, leaf.momentum, leaf.stats)]
        results.append([*tensors, *(group.direction(i) for i in range(3))])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one.view(torch.uint8), two.view(torch.uint8))


def stepper_of(leaf: Leaf, band: int) -> cpu_torch.StepGroup:
    """A step group over one tensor."""
    size, state = leaf.param.numel(), str(leaf.stats.dtype).removeprefix("torch.")
    problem = Problem(device="cpu", band=band, state_dtype=state, total=size, median=size)
    return cpu_torch.StepGroup([leaf], Plan(problem=problem, backend="cpu", config=LaunchConfig.of("cpu", SMALL), provenance="test"))


def fill_from_neighbours(table: GroupTable, state: torch.Tensor, grad: torch.Tensor, *, start: int, end: int, band: int) -> None:
    """What neighbours would send: the old state around each end of the piece, the gradients beyond it; state (band + 2, total)."""
    for record, border in ((table.edges[0], start), (table.edges[-1], end)):
        near = torch.arange(border - band, border + band)
        inside = (near >= 0) & (near < grad.numel())
        record[:, inside] = state[:, near[inside]]
    for row, first in ((table.outer[0, 0], start - band), (table.outer[0, 1], end)):
        near = torch.arange(first, first + band)
        inside = (near >= 0) & (near < grad.numel())
        row[inside] = grad[near[inside]]


@pytest.mark.parametrize(
    ("band", "chain", "cuts", "dtype"),
    [
        (4, "tensor", (4097,), torch.float32),
        (
            4,
            "tensor",
            (SEGMENT + 1, 2 * SEGMENT + 2),
            torch.float32,
        ),  # last segments of one element: the one before sees past the piece's end
        (2, 7, (100, 8998), torch.float32),  # a last piece shorter than the halo's reach
        (1, 1000, (1, 2, 64), torch.float32),
        (8, "tensor", (3, 4096, 8999), torch.float32),
        (0, "tensor", (99,), torch.float32),
        (3, "tensor", (SEGMENT + 1, 2 * SEGMENT + 2), torch.bfloat16),
        (2, 1000, (1, 2, 64, 8998), torch.bfloat16),
        (16, 1000, (20, SEGMENT + 21, 8990), torch.float32),
    ],
)
def test_pieces_give_the_bits_of_the_whole(band: int, chain: Chain, cuts: tuple[int, ...], dtype: torch.dtype) -> None:
    """A tensor cut as sharding cuts it, the border records at the cuts filled by hand; the noise follows the place in the tensor."""
    total = 9000
    group = Group((total,), Hyper(band=band, chain=chain), state=dtype)
    leaf, grad = group.leaves[0], group.grads[0]
    assert grad is not None
    state = torch.cat((leaf.momentum[None], leaf.stats))
    count = leaf.count.clone()
    group.run()
    for start, end in zip((0, *cuts), (*cuts, total), strict=True):
        old, piece_grad = state[:, start:end].clone(), grad[start:end].clone()
        piece = Leaf(torch.zeros(end - start), old[0].clone(), old[1:].clone(), count.clone(), leaf.chain, leaf.seed)
        stepper = stepper_of(piece, band)
        stepper.table.rows[0, Column.START], stepper.table.rows[0, Column.TOTAL] = start, total
        for buffer in (stepper.table.edges, stepper.table.outer):
            buffer.fill_(float("nan"))
        fill_from_neighbours(stepper.table, state, grad, start=start, end=end, band=band)
        stepper.set_hyper(group.hyper)
        stepper.bind([piece_grad])
        stepper.prologue()
        stepper.direction()
        assert torch.equal(stepper.table.direction[: end - start], group.direction(0)[start:end])
        assert torch.equal(piece.momentum, leaf.momentum[start:end])
        assert torch.equal(piece.stats, leaf.stats[:, start:end])


def test_tensors_without_a_gradient_are_left_alone() -> None:
    """No count, state, parameter or norm of theirs moves; the others step as if alone; the next step takes all."""
    hyper = Hyper(band=2, lr=0.1)
    group, alone = Group((50, 5000, 7), hyper), Group((50, 5000, 7), hyper)
    grad, group.grads[1] = group.grads[1], None
    before = [t.clone() for t in (group.leaves[1].param, group.leaves[1].momentum, group.leaves[1].stats, group.leaves[1].count)]
    group.run()
    alone.run()
    leaf = group.leaves[1]
    for old, new in zip(before, (leaf.param, leaf.momentum, leaf.stats, leaf.count), strict=True):
        assert torch.equal(old, new)
    for i in (0, 2):
        assert torch.equal(group.leaves[i].param, alone.leaves[i].param)
    counts = [leaf.count.item() for leaf in group.leaves]
    group.grads[1] = grad
    group.run()
    assert [leaf.count.item() for leaf in group.leaves] == [count + 1 for count in counts]
    assert torch.equal(leaf.momentum, alone.leaves[1].momentum)


def test_strided_tensors_step_in_logical_order() -> None:
    """A transposed parameter and an expanded gradient give what contiguous copies give."""
    hyper = Hyper(band=2, lr=0.1)
    grad = torch.randn(30, 1).expand(30, 20)
    start = torch.randn(20, 30).t()
    results = []
    for param, given in ((start.clone(memory_format=torch.preserve_format), grad), (start.contiguous(), grad.contiguous())):
        leaf = Leaf(param, torch.zeros(30, 20), torch.zeros(3, 30, 20), torch.zeros((), dtype=torch.int32), 600)
        stepper = stepper_of(leaf, 2)
        stepper.set_hyper(hyper)
        for _ in range(2):
            stepper.bind([given])
            for phase in (stepper.prologue, stepper.direction, stepper.norms, stepper.update):
                phase()
        results.append(param)
    assert not results[0].is_contiguous()
    assert torch.equal(*results)
    assert not torch.equal(results[0], start)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_stored_value_is_read_and_rounded_like_torch_does(dtype: torch.dtype) -> None:
    """All finite values of p through a step of nothing; u of every size through a step of 1 from 0: ties, denormals, overflow, NaN."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    finite = torch.where(torch.isfinite(patterns), patterns, torch.ones((), dtype=dtype))
    drawn = torch.randint(-(2**31), 2**31, (2**16,), generator=torch.Generator().manual_seed(0))
    every_size = drawn.to(torch.int32).view(torch.float32)
    ties = (patterns.float().view(torch.int32) + (0x8000 if dtype == torch.bfloat16 else 0x1000)).view(torch.float32)
    zero = torch.zeros(2**16, dtype=dtype)
    for param, u, lr in ((finite, torch.ones(2**16), 0.0), (zero, every_size, 1.0), (zero, ties, 1.0)):
        group = Group((2**16,), Hyper(band=0, lr=lr, graft="none"), dtype=dtype)
        group.leaves[0].param.copy_(param)
        group.stepper.bind(group.grads)
        group.stepper.table.scales.fill_(1.0)
        group.stepper.table.direction.copy_(-u)
        group.stepper.update()
        assert_close(group.leaves[0].param, (param.float() + lr * u).to(dtype), "exact")


def problem_with(**changes: Any) -> Problem:
    fields: dict[str, Any] = {"device": "cpu", "band": 1, "total": 10, "median": 10} | changes
    return Problem(**fields)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cuda"}, "it steps tensors on the CPU, these are on cuda"),
        ({"band": 9}, "band=9 is not one of [0, 1, 2, 3, 4, 5, 6, 7, 8, 16]"),
        ({"param_dtype": "float64"}, "param_dtype=float64 is not one of ['float32', 'bfloat16', 'float16']"),
        ({"grad_dtype": "float64"}, "grad_dtype=float64 is not one of ['float32', 'bfloat16', 'float16']"),
        ({"state_dtype": "float64"}, "state_dtype=float64 is not one of ['float32', 'bfloat16']"),
        ({}, None),
    ],
)
def test_what_it_cannot_take_it_rejects_with_the_reason(changes: dict[str, Any], reason: str | None) -> None:
    assert cpu_torch.rejects(problem_with(**changes)) == reason


def test_without_a_compiler_it_rejects_instead_of_raising(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Dispatch then falls back and says why; the environment is still described."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native_build, "load_library", native_build.load_library.__wrapped__)
    assert cpu_torch.rejects(problem_with()) == "no C++ compiler found (tried c++, g++, clang++): install g++ or set CXX"
    assert cpu_torch.environment()["toolchain"] == "none"


def test_the_environment_names_device_isa_threads_and_compiler() -> None:
    """The fields of the tuned store's key."""
    environment = cpu_torch.environment()
    assert sorted(environment) == ["capability", "device", "threads", "toolchain"]
    assert environment["threads"] == torch.get_num_threads()
    assert environment["capability"] in (*cpu_torch.ISAS, "generic")
    assert environment["device"]
    assert environment["toolchain"] == native_build.compiler_version(native_build.find_compiler())


def test_one_openmp_runtime_serves_torch_and_the_kernels() -> None:
    """The library brings no runtime of its own: idle pools would spin against each other."""
    Group((70000,), Hyper(band=1), {"threads": 2}).run()
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = {Path(line.split()[-1]) for line in lines if ".so" in line}
    assert any(path.name.startswith("cpu-band1-") for path in mapped)
    runtimes = [path.resolve() for path in mapped if path.name.startswith(("libgomp", "libomp", "libiomp"))]
    assert len(set(runtimes)) == 1, runtimes


@pytest.mark.parametrize("band", [0, 8])
def test_the_default_configuration_is_a_point_of_the_space(band: int) -> None:
    """And its tiles are what the table is cut by."""
    config = CPU.default(band)
    assert CPU.rejects(config, band) is None
    assert CPU.rejects(config | {"block": 77}, band) == "block=77 is not one of [256, 512, 1024, 2048]"
    assert CPU.rejects(config | {"segment": 4096, "block": 2048}, band) is None
    leaf = Leaf(torch.zeros(40000), torch.zeros(40000), torch.zeros(band + 1, 40000), torch.zeros((), dtype=torch.int32), 40000)
    tile, update_tile = CPU.tile(config, band), CPU.update_tile(config, band)
    table = GroupTable([leaf], problem_with(band=band), tile=tile, update_tile=update_tile)
    assert len(table.tiles) == len(table.update_tiles) == -(-40000 // config["segment"])
