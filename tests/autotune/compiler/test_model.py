"""The static model by hand: what it rules out, and what each of its terms costs."""

from __future__ import annotations

from typing import Any, Final

import pytest

from sonew_autotune.compiler.kernel import ALL_FLOAT32, Dtypes, compile_kernel
from sonew_autotune.compiler.model import TRIPS, asked_bytes, fewest_bytes, prune_reason, static_rank
from sonew_autotune.compiler.resources import CLASSES
from sonew_autotune.compiler.targets import ARCHITECTURES, TARGETS, architecture, doubted, parse_target
from sonew_kernels.spec import SPECS
from tests.autotune.compiler.made import USED, built, used

CONFIG: Final = SPECS["triton"].default(1)
BF16_STATE: Final = Dtypes(state="bfloat16", direction="bfloat16")


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        ("cuda:90", {}, None),
        ("cuda:90", {"threads": 2048}, "cannot launch: it takes 2048 threads, cuda:90 allows 1024"),
        ("cuda:90", {"registers": 300}, "cannot launch: it takes 300 registers per thread, cuda:90 allows 255"),
        ("hip:gfx942", {"registers": 300}, None),
        ("cuda:120", {"shared_bytes": 120_000}, "cannot launch: it takes 120000 bytes of shared memory, cuda:120 allows 101376"),
        ("cuda:90", {"shared_bytes": 120_000}, None),
        ("cuda:90", {"occupancy": 0.0, "registers": 255}, "128 threads with 255 registers do not fit on a processor of cuda:90"),
        ("cuda:90", {"spill_store_bytes": 24, "spill_load_bytes": 24}, None),
        ("cuda:90", {"spill_store_bytes": 24, "spill_load_bytes": 25}, "spills heavily: 49 bytes per thread, more than the 48"),
    ],
)
def test_what_is_ruled_out(target: str, changes: dict[str, float], reason: str | None) -> None:
    found = prune_reason(used(**changes), target)
    assert found is None if reason is None else (found is not None and reason in found)


def test_accesses_sum_up_to_bytes() -> None:
    assert (USED.loaded_bytes, USED.stored_bytes) == (44, 4)
    assert used(load_widths={2: 5, 8: 1}).loaded_bytes == 18


def test_bytes_per_element_beside_the_fewest() -> None:
    """Band 1 reads g, m, two rows of stats, writes m, stats and the direction: 8 numbers; update has two paths, of which one runs."""
    assert fewest_bytes("direction", 1) == 32
    assert fewest_bytes("direction", 1, BF16_STATE) == 4 + 6 * 2 + 2
    assert fewest_bytes("update", 1, Dtypes("bfloat16")) == 2 + 4 + 2
    assert asked_bytes("direction", USED, CONFIG, 1) == 48 * 128 / 1023
    assert asked_bytes("update", USED, CONFIG, 1) == 48 * 128 / 1024 / 2


def test_the_score_by_hand() -> None:
    """Four warps that issue 25 clocks each; memory and the trips there, shared by the 8 programs that fit, decide."""
    chip = architecture("cuda:90")
    assert chip.bytes_per_clock == pytest.approx(3350 / (132 * 1.83))
    border = 3 * (3 * 2 * 4 + 32)
    assert 0.5 * chip.warps / 4 == 8

    def cost(moved: float) -> float:
        memory = moved / chip.bytes_per_clock
        return max(memory, (TRIPS * 800 + memory + 25 * 4) / 8)

    expected = cost(32 * 1023 + border) / 1023 + cost(12 * 1024) / 1024
    kernels = {"direction": built("direction"), "update": built("update")}
    assert static_rank(kernels, CONFIG, 1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "clocks"),
    [
        ({"occupancy": 1 / 16}, TRIPS * 800 + (32 * 1023 + 168) / (3350 / (132 * 1.83)) + 100),  # one program, one thing after another
        ({"mix": {"integer": 40_000}}, 40_000 / 3 * 4),  # on two units
        ({"mix": {"float": 40_000}}, 40_000 / 4 * 4),
        ({"mix": {"double": 40_000}}, 40_000 / 2 * 4),
        ({"load_widths": {4: 4000}}, (16_000 + 4) * 128 / 64),
        ({"spill_store_bytes": 1000}, (32 * 1023 + 168) / (3350 / (132 * 1.83)) + 1000 * 128 / 64),
    ],
)
def test_each_term_of_a_program(changes: dict[str, Any], clocks: float) -> None:
    """The direction kernel's program, whose bound is the changed term."""
    update = {"update": built("update")}
    plain = static_rank({"direction": built("direction"), **update}, CONFIG, 1)
    changed = static_rank({"direction": built("direction", **changes), **update}, CONFIG, 1)
    base = (32 * 1023 + 168) / (3350 / (132 * 1.83))
    assert (changed - plain) * 1023 == pytest.approx(clocks - base)


def test_narrow_types_cost_less_and_float64_more_on_consumer_gpus() -> None:
    kernels = {"direction": built("direction"), "update": built("update")}
    assert static_rank(kernels, CONFIG, 1, BF16_STATE) < static_rank(kernels, CONFIG, 1, ALL_FLOAT32)

    def double(target: str) -> float:
        made = {kernel: built(kernel, target, mix={"double": 4000}) for kernel in ("direction", "update")}
        return static_rank(made, CONFIG, 1)

    assert double("cuda:120") == pytest.approx(32 * double("cuda:90"))


def test_amds_scalar_instructions_are_issued_by_another_unit() -> None:
    def cost(target: str, mix: dict[str, int]) -> float:
        made = {kernel: built(kernel, target, mix=mix, threads=256) for kernel in ("direction", "update")}
        return static_rank(made, CONFIG, 1)

    assert cost("hip:gfx942", {"scalar": 40_000, "float": 1}) == cost("hip:gfx942", {"float": 1})
    assert cost("cuda:90", {"scalar": 40_000, "float": 1}) > cost("cuda:90", {"float": 1})


def test_every_target_has_a_plausible_processor() -> None:
    assert TARGETS == ("cuda:80", "cuda:90", "cuda:100", "cuda:120", "hip:gfx942", "hip:gfx950", "hip:gfx1100")
    for target, chip in ARCHITECTURES.items():
        assert chip.warp_size == parse_target(target)[2]
        assert set(chip.rates) | chip.beside <= set(CLASSES)
        assert all(rate <= chip.issue for rate in chip.rates.values())
        assert chip.shared_per_program + chip.shared_overhead <= chip.shared
        assert 3 < chip.bytes_per_clock < 30
        assert chip.registers % (chip.simds * chip.warp_size) == 0


def test_doubted_numbers_are_a_third_off_either_way() -> None:
    chip = architecture("cuda:90")
    found = doubted("cuda:90")
    assert [one.latency / chip.latency for one in found] == pytest.approx([4 / 3, 2 / 3, 1, 1, 1, 1])
    assert [one.bytes_per_clock / chip.bytes_per_clock for one in found] == pytest.approx([1, 1, 4 / 3, 2 / 3, 1, 1])
    assert [(one.issue / chip.issue, one.rates["double"] / chip.rates["double"]) for one in found[4:]] == [
        pytest.approx((4 / 3, 4 / 3)),
        pytest.approx((2 / 3, 2 / 3)),
    ]


def test_an_unlisted_target_is_taken_for_a_listed_one() -> None:
    assert architecture("cuda:89") == ARCHITECTURES["cuda:120"]
    assert architecture("hip:gfx90a") == ARCHITECTURES["hip:gfx942"]
    assert architecture("hip:gfx1201") == ARCHITECTURES["hip:gfx1100"]


@pytest.mark.full
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("band", [0, 1, 2, 4, 8, 16])
def test_no_default_is_ruled_out(target: str, band: int) -> None:
    """The default must run where nothing was tuned; so must every kernel without tunables."""
    config = SPECS["triton"].default(band)
    for kernel in ("prologue", "direction", "norms", "update"):
        assert prune_reason(compile_kernel(kernel, config, band, target).resources, target) is None
