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
from tests.strategies import awkward_sizes, gradient
from tests.tolerances import TOLERANCES, assert_close, errors

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
    for i, (u, target, momentum, stats) in enumerate(expected):
        leaf, context = group.leaves[i], f"size {group.sizes[i]}"
        assert_close(leaf.momentum, momentum, "float32 averages", context=context)
        assert_close(leaf.stats, stats, "float32 averages", context=context)
        assert_close(group.direction(i), u, "float32", context=context)
        if u.size:
            step = u if graft == "none" else reference.graft(np, u, target)
            assert_close(leaf.param, before[i] - 0.1 * (step + 0.1 * before[i]), STORE_ROWS[dtype], context=context)
    assert group.intact()


@pytest.mark.parametrize(("band", "chain", "dtype"), [(0, "tensor", torch.float32), (1, 37, torch.bfloat16), (4, "tensor", torch.float32)])
def test_bits_depend_on_no_configuration(band: int, chain: Chain, dtype: torch.dtype) -> None:
    """Direction, state and (ungrafted) parameters after two steps, over blocks, segments and threads."""
    hyper = Hyper(band=band, chain=chain, graft="none", lr=0.1)
    results = []
    for segment, block, threads in ((4096, 256, 1), (4096, 2048, 2), (16384, 512, 3), (65536, 1024, 2), (262144, 2048, 0)):
        group = Group((40961, 5, 8 * SEGMENT), hyper, {"segment": segment, "block": block, "threads": threads}, dtype)
        group.run()
        group.run()
        tensors = [t for leaf in group.leaves for t in (leaf.param, leaf.momentum, leaf.stats)]
        results.append([*tensors, *(group.direction(i) for i in range(3))])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one.view(torch.uint8), two.view(torch.uint8))


def fill_outer_records(edges: torch.Tensor, fields: torch.Tensor, *, start: int, end: int, band: int) -> None:
    """What a neighbour would send: the 2 * band elements around each end of the piece; fields (band + 3, total)."""
    for record, border in ((edges[0], start), (edges[-1], end)):
        near = torch.arange(border - band, border + band)
        inside = (near >= 0) & (near < fields.shape[1])
        record[:, inside] = fields[:, near[inside]]


@pytest.mark.parametrize(
    ("band", "chain", "cuts"),
    [
        (4, "tensor", (4097,)),
        (4, "tensor", (SEGMENT + 1, 2 * SEGMENT + 2)),  # last segments of one element: the one before sees past the piece's end
        (2, 7, (100, 8998)),  # a last piece shorter than the halo's reach
        (1, 1000, (1, 2, 64)),
        (8, "tensor", (3, 4096, 8999)),
        (0, "tensor", (99,)),
    ],
)
def test_pieces_give_the_bits_of_the_whole(band: int, chain: Chain, cuts: tuple[int, ...]) -> None:
    """A tensor cut as sharding cuts it, the border records at the cuts filled by hand."""
    total = 9000
    group = Group((total,), Hyper(band=band, chain=chain))
    leaf, grad = group.leaves[0], group.grads[0]
    assert grad is not None
    fields = torch.cat((leaf.momentum[None], leaf.stats, grad[None])).clone()
    count = leaf.count.clone()
    group.run()
    for start, end in zip((0, *cuts), (*cuts, total), strict=True):
        old = fields[:, start:end].clone()
        piece = Leaf(torch.zeros(end - start), old[0].clone(), old[1:-1].clone(), count.clone(), leaf.chain)
        problem = Problem(device="cpu", band=band, total=total, median=total)
        stepper = cpu_torch.StepGroup([piece], Plan(problem=problem, backend="cpu", config=LaunchConfig.of("cpu", SMALL), provenance="test"))
        stepper.table.rows[0, Column.START], stepper.table.rows[0, Column.TOTAL] = start, total
        stepper.table.edges.fill_(float("nan"))
        fill_outer_records(stepper.table.edges, fields, start=start, end=end, band=band)
        stepper.set_hyper(group.hyper)
        stepper.bind([old[-1].clone()])
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
        problem = Problem(device="cpu", band=2, total=600, median=600)
        stepper = cpu_torch.StepGroup([leaf], Plan(problem=problem, backend="cpu", config=LaunchConfig.of("cpu", SMALL), provenance="test"))
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
    """p - lr u for all 2^16 bit patterns of p and for u of every size: ties, denormals, overflow, NaN."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    generator = torch.Generator().manual_seed(0)
    spread = torch.randint(-(2**31), 2**31, (2**16,), generator=generator).to(torch.int32).view(torch.float32)
    ties = (patterns.float().view(torch.int32) + (0x8000 if dtype == torch.bfloat16 else 0x1000)).view(torch.float32)
    for param, u in ((patterns, torch.ones(2**16)), (torch.zeros(2**16, dtype=dtype), spread), (torch.zeros(2**16, dtype=dtype), ties)):
        group = Group((2**16,), Hyper(band=0, lr=2.0**-26, graft="none"), dtype=dtype)
        group.leaves[0].param.copy_(param)
        lr = 0.0 if param is patterns else -1.0
        group.stepper.set_hyper(Hyper(band=0, lr=abs(lr), graft="none"))
        group.stepper.bind(group.grads)
        group.stepper.table.scales.fill_(1.0)
        group.stepper.table.direction.copy_(u if lr == 0.0 else -u)
        group.stepper.update()
        expected = param if lr == 0.0 else u.to(dtype)
        got, nan = group.leaves[0].param, torch.isnan(expected)
        assert torch.equal(torch.isnan(got), nan)
        assert torch.equal(got.float()[~nan], expected.float()[~nan])


def group_with(hyper: Hyper, grad: np.ndarray, *, past: float = 1.0) -> Group:
    """One tensor with the given next gradient; its history is scaled by `past`."""
    group = Group((grad.size,), hyper)
    group.leaves[0].momentum.mul_(past)
    group.leaves[0].stats.mul_(past * past)
    group.grads[0] = torch.from_numpy(grad)
    return group


@pytest.mark.parametrize("eps", [0.0, 1e-8])
@pytest.mark.parametrize("band", [0, 1, 4])
def test_zero_gradients_from_zero_state_leave_the_parameter(band: int, eps: float) -> None:
    """0 / 0 nowhere: the direction and the scale are 0, whatever the damping."""
    group = group_with(Hyper(band=band, eps=eps, lr=1.0), np.zeros(300, np.float32), past=0.0)
    before = group.leaves[0].param.clone()
    group.run()
    assert (group.direction(0) == 0).all()
    assert group.stepper.table.scales[0] == 0
    assert torch.equal(group.leaves[0].param, before)


@pytest.mark.parametrize("kind", ["denormal", "sparse", "large", "mixed", "constant"])
@pytest.mark.parametrize("band", [1, 4])
def test_rough_gradients_stay_finite_and_follow_the_reference(kind: str, band: int) -> None:
    """A step of another magnitude after an ordinary past: a direction as good as the reference's in float32."""
    group = group_with(Hyper(band=band, lr=0.1, eps=1e-3, eps_rel=1e-3), gradient(5, (300,), kind))
    u, _, momentum, stats = group.expected(0)
    allowed = 5 * errors(group.expected(0, np.float32)[0], u)[0] + TOLERANCES["float32"].rms
    group.run()
    assert_close(group.leaves[0].momentum, momentum, "float32 averages")
    assert_close(group.leaves[0].stats, stats, "float32 averages")
    assert errors(group.direction(0), u)[0] <= allowed < 0.5
    assert torch.isfinite(group.leaves[0].param).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_columns_fall_back_where_the_reference_does(gamma: float) -> None:
    """Indefinite windows, and pivots below gamma times the diagonal: psi = 0 and D = 1 / A_jj there, elimination elsewhere."""
    hyper = Hyper(band=2, graft="none", eps=0.0, gamma=gamma)
    group = group_with(hyper, np.zeros(300, np.float32))
    group.leaves[0].stats[1, ::5] *= 40.0
    u, *_ = group.expected(0)
    plain = Hyper(band=2, graft="none", eps=0.0, gamma=2.0 if gamma == 0.0 else 0.0)
    other = group_with(plain, np.zeros(300, np.float32))
    other.leaves[0].stats[1, ::5] *= 40.0
    assert errors(other.expected(0)[0], u)[0] > 0.1, "the rule makes no difference here"
    group.run()
    assert_close(group.direction(0), u, "float32")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e25])
def test_a_broken_gradient_shows_and_stays_where_it_is(value: float) -> None:
    """NaN, infinity and an overflowing square: never a finite lie at the element, no trace beyond the band or the chain."""
    hyper = Hyper(band=2, chain=20, graft="none")
    grad = gradient(1, (40,))
    grad[[10, 19]] = value
    broken, clean = group_with(hyper, grad), group_with(hyper, gradient(1, (40,)))
    expected = broken.expected(0, np.float32)
    broken.run()
    clean.run()
    u, stats = broken.direction(0).numpy(), broken.leaves[0].stats.numpy()
    np.testing.assert_array_equal(np.isfinite(u), np.isfinite(expected[0]))
    np.testing.assert_array_equal(np.isfinite(stats), np.isfinite(expected[3]))
    assert not np.isfinite(stats[0, [10, 19]]).any()
    far = (np.abs(np.arange(40)[:, None] - np.array([10, 19])).min(1) > 4) | (np.arange(40) >= 20)
    np.testing.assert_array_equal(u[far], clean.direction(0).numpy()[far])


@pytest.mark.parametrize("diagonal", [0.0, -1.0, float("nan")])
def test_a_dead_diagonal_gives_no_direction_and_nan_stays_nan(diagonal: float) -> None:
    """A_jj <= 0 gives D = 0; a NaN there is not turned into a number."""
    group = group_with(Hyper(band=1, eps=0.0, graft="none"), np.zeros(40, np.float32))
    group.leaves[0].stats[0, 7] = diagonal
    group.leaves[0].stats[1, 5:9] = 0.0
    u, *_ = group.expected(0)
    group.run()
    got = group.direction(0)
    assert torch.isnan(got[7]) if np.isnan(diagonal) else got[7] == 0
    assert_close(got, u, "float32")


def test_a_direction_of_any_finite_size_grafts_without_overflow() -> None:
    """Directions around 1e36, whose squares float32 does not hold, take the target's norm."""
    group = group_with(Hyper(band=1, lr=1.0, eps=1e-20), np.full(40, 1e-15, np.float32), past=0.0)
    group.leaves[0].momentum.fill_(1e16)
    group.leaves[0].param.zero_()
    u, target, *_ = group.expected(0)
    group.run()
    assert group.direction(0).abs().min() > 1e35
    assert_close(-group.leaves[0].param, u * (np.linalg.norm(target) / np.linalg.norm(u)), "float32")


def test_statistics_past_the_chains_end_are_reset() -> None:
    """Entries that link nothing become 0 whatever was stored there, in whole-tensor chains and in short ones."""
    for chain, ends in ((5000, [4999]), (9, list(range(8, 5000, 9)) + [4999])):
        group = Group((5000,), Hyper(band=2, chain=chain))
        group.leaves[0].stats[:, :] += 1.0
        u, _, _, stats = group.expected(0)
        group.run()
        assert (group.leaves[0].stats[1:, ends] == 0).all()
        assert_close(group.leaves[0].stats, stats, "float32 averages")
        assert_close(group.direction(0), u, "float32")


def problem_with(**changes: Any) -> Problem:
    return Problem(**({"device": "cpu", "band": 1, "total": 10, "median": 10} | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cuda"}, "it steps tensors on the CPU, these are on cuda"),
        ({"band": 9}, "band=9 is not one of [0, 1, 2, 3, 4, 5, 6, 7, 8]"),
        ({"param_dtype": "float64"}, "param_dtype=float64 is not one of ['float32', 'bfloat16', 'float16']"),
        ({"grad_dtype": "float64"}, "grad_dtype=float64 is not one of ['float32', 'bfloat16', 'float16']"),
        ({"state_dtype": "float64"}, "state_dtype=float64 is not float32"),
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
    mapped = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith((".so", ".so.1", ".so.5"))}
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
    table = GroupTable([leaf], band=band, tile=tile, update_tile=update_tile)
    assert len(table.tiles) == len(table.update_tiles) == -(-40000 // config["segment"])
