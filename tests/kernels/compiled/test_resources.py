"""Every shipped kernel compiles to machine code for every target, and what it takes is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from sonew_autotune.static import KERNELS, TARGETS, Compiled, Dtypes, compile_kernel
from sonew_kernels.spec import SPECS, SUPPORTED_BANDS

TRITON: Final = SPECS["triton"]
SPILLS_WITH_REASON: Final[dict[tuple[str, int], str]] = {}
"""(target, band) whose direction kernel spills at the default configuration, with the reason; cuda bands 0 to 4 may not."""
MAX_REGISTERS: Final = {"cuda": 255, "hip": 512}


MATRIX: Final = [
    pytest.param(target, band, marks=() if target == "cuda:90" or band in (1, 4, 8) else pytest.mark.full, id=f"{target}-band{band}")
    for target in TARGETS
    for band in SUPPORTED_BANDS
]
"""Every band on cuda:90 and bands 1, 4 and 8 elsewhere; the rest is marked full."""


def check(compiled: Compiled, spills: bool) -> None:
    """Machine code is there, its resources are plausible, and it spills only where that has a reason."""
    used = compiled.resources
    backend = compiled.target.split(":", maxsplit=1)[0]
    assert compiled.stages["sass" if backend == "cuda" else "amdgcn"].count("\n") > 100
    assert 8 <= used.registers <= MAX_REGISTERS[backend]
    assert 0 < used.occupancy <= 1
    assert used.load_widths
    assert used.store_widths
    assert (used.spill_store_bytes + used.spill_load_bytes > 0) == spills, f"spills {used.spill_store_bytes} bytes"


@pytest.mark.parametrize(("target", "band"), MATRIX)
def test_direction_kernel_at_its_default(target: str, band: int, record_property: Callable[[str, object], None]) -> None:
    """Compiles; spills only with a reason, never on cuda up to band 4; tiles are at least 8 * band."""
    config = TRITON.default(band)
    assert TRITON.rejects(config, band) is None
    assert config["block"] >= 8 * band
    compiled = compile_kernel("direction", config, band, target)
    for name in ("registers", "spill_store_bytes", "shared_bytes", "instructions", "load_widths", "store_widths"):
        record_property(name, getattr(compiled.resources, name))
    check(compiled, (target, band) in SPILLS_WITH_REASON)
    # The window holds (band + 1)(band + 2)/2 stats and band + 1 momenta, each loaded once per element of a thread.
    entries = (band + 1) * (band + 2) // 2 + (band + 1)
    assert compiled.resources.load_widths[4] >= entries
    # Only the exchange between lanes and the norms' sums need shared memory.
    assert compiled.resources.shared_bytes <= max(4 * config["block"], 16 * config["num_warps"])


def test_no_spill_on_cuda_up_to_band_four_has_an_excuse() -> None:
    """The table of reasons has no row that the project promised not to need, and no empty reason."""
    assert not [key for key in SPILLS_WITH_REASON if key[0].startswith("cuda") and key[1] <= 4]
    assert all(SPILLS_WITH_REASON.values())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel != "direction"])
def test_other_kernels_at_their_default(kernel: str, target: str) -> None:
    """Prologue, norms and update compile without spills."""
    check(compile_kernel(kernel, TRITON.default(4), 4, target, dtypes=Dtypes("bfloat16")), spills=False)


@pytest.mark.parametrize("band", [band if band in (0, 8) else pytest.param(band, marks=pytest.mark.full) for band in SUPPORTED_BANDS])
def test_prologue_of_every_band(band: int) -> None:
    """The prologue's block of positions follows the band."""
    check(compile_kernel("prologue", TRITON.default(band), band, "cuda:90"), spills=False)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_direct_entry(kernel: str, target: str) -> None:
    """The entry for jax compiles to about the same resources as the table entry."""
    direct, table = (compile_kernel(kernel, TRITON.default(2), 2, target, entry=entry).resources for entry in ("direct", "table"))
    assert direct.registers <= table.registers + 8
    assert direct.spill_store_bytes == 0
    assert direct.store_widths == table.store_widths


@pytest.mark.parametrize(
    ("dtypes", "graft", "chained"),
    [
        (Dtypes("bfloat16", "bfloat16"), "rmsprop", True),
        (Dtypes("float16", "float16"), "sgd", False),
        (Dtypes("float32", "bfloat16"), "none", True),
    ],
)
@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_storage_types_grafts_and_chains(dtypes: Dtypes, graft: str, chained: bool, target: str) -> None:
    """Every constant that specialises a kernel compiles; narrow gradients are loaded with narrow loads."""
    config = TRITON.default(1)
    direction = compile_kernel("direction", config, 1, target, dtypes=dtypes, graft=graft, chained=chained).resources
    assert direction.load_widths.get(2, 0) >= 2
    assert direction.spill_store_bytes == 0
    update = compile_kernel("update", config, 1, target, dtypes=dtypes).resources
    assert (update.store_widths.get(2, 0) > 0) == (dtypes[0] != "float32")


@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_update_has_a_wide_path_and_a_narrow_one(target: str) -> None:
    """Aligned full tiles move 16 bytes per access, others one element: no hint binds an unaligned tensor."""
    used = compile_kernel("update", TRITON.default(1), 1, target).resources
    per_thread = 1024 // used.threads
    assert used.load_widths[16] == 2 * per_thread // 4
    assert used.store_widths == {4: per_thread, 16: per_thread // 4}
