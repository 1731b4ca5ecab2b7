"""Every shipped kernel compiles to machine code for every target, and what it takes is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from sonew.errors import UnsupportedProblemError
from sonew_autotune.compiler.kernel import ENTRIES, KERNELS, SIBLINGS, TARGETS, Compiled, Dtypes, compile_kernel
from sonew_autotune.compiler.resources import CLASSES, amd_resources, nvidia_resources
from sonew_autotune.compiler.targets import architecture
from sonew_kernels.spec import SPECS, SUPPORTED_BANDS

TRITON: Final = SPECS["triton"]
FLOAT32: Final = Dtypes()
BF16_STATE: Final = Dtypes(state="bfloat16", direction="bfloat16")
ONE_ADDRESS: Final = "ptxas stops at 48 registers, where one more program fits, and parks an address of 8 bytes"
LARGEST_BAND: Final = "the window of band 16 fills all 255 registers at one element per thread; nothing is left to make smaller"
SPILLS: Final[Mapping[tuple[str, int], tuple[int, str]]] = {
    ("cuda:80", 2): (8, f"Triton 3.9.0: {ONE_ADDRESS}"),
    **{(target, 16): (128, LARGEST_BAND) for target in TARGETS if target.startswith("cuda")},
}
"""(target, band) -> (bytes per thread, reason): what the direction kernel may spill at its default configuration; elsewhere nothing."""
VENDORS: Final = ("cuda:90", "hip:gfx942")
QUICK: Final = {
    *(
        (target, band, FLOAT32)
        for target, bands in {
            "cuda:90": (0, 1, 4, 8),
            "hip:gfx942": (1, 8),
            "cuda:80": (4,),
            "cuda:100": (1,),
            "cuda:120": (4,),
            "hip:gfx950": (4,),
            "hip:gfx1100": (1, 4),
        }.items()
        for band in bands
    ),
    *(("cuda:90", 4, BF16_STATE), ("hip:gfx942", 1, BF16_STATE), ("hip:gfx1100", 1, BF16_STATE)),
}
MATRIX: Final = [
    pytest.param(
        target, band, dtypes, marks=() if (target, band, dtypes) in QUICK else pytest.mark.full, id=f"{target}-band{band}-{dtypes.state}"
    )
    for target in TARGETS
    for band in SUPPORTED_BANDS
    for dtypes in (FLOAT32, BF16_STATE)
]
"""Each target, each size of window and each state once; the rest is marked full."""


def check(compiled: Compiled, allowed: int = 0) -> None:
    """Machine code is there, its resources are plausible, and no thread spills more bytes than allowed."""
    used = compiled.resources
    backend = compiled.target.split(":", maxsplit=1)[0]
    assert compiled.stages["sass" if backend == "cuda" else "amdgcn"].count("\n") > 100
    assert 8 <= used.registers <= architecture(compiled.target).registers_per_thread
    assert 0 < used.occupancy <= 1
    assert used.load_widths
    assert used.store_widths
    assert sum(used.mix.values()) == used.instructions
    assert set(used.mix) <= set(CLASSES)
    assert used.mix.get("other", 0) <= 0.02 * used.instructions  # an opcode that no class knows would be seen here
    accesses = {"global_load": used.load_widths, "global_store": used.store_widths}
    assert {name: used.mix[name] for name in accesses} == {name: sum(widths.values()) for name, widths in accesses.items()}
    assert max(used.spill_store_bytes, used.spill_load_bytes) <= allowed


@pytest.mark.parametrize(("target", "band", "dtypes"), MATRIX)
def test_direction_kernel_at_its_default(target: str, band: int, dtypes: Dtypes, record_property: Callable[[str, object], None]) -> None:
    """Compiles; spills no more than a stated bound, nothing at most bands; tiles are at least 8 * band."""
    config = TRITON.default(band)
    assert TRITON.rejects(config, band) is None
    assert config["block"] >= 8 * band
    compiled = compile_kernel("direction", config, band, target, dtypes=dtypes)
    for name in ("registers", "spill_store_bytes", "shared_bytes", "instructions", "load_widths", "store_widths"):
        record_property(name, getattr(compiled.resources, name))
    check(compiled, SPILLS.get((target, band), (0, ""))[0])
    # Only the exchange between lanes, or between threads that share a lane, and the norms' sums need shared memory.
    assert compiled.resources.shared_bytes <= max(4 * config["block"], 4 * compiled.resources.threads, 16 * config["num_warps"])


def test_every_spill_has_a_reason_and_a_bound() -> None:
    """Up to band 8 no more than one address, and that below band 4 only."""
    assert all(reason and size > 0 for size, reason in SPILLS.values())
    assert all(band == 16 or (band < 4 and size == 8) for (_, band), (size, _) in SPILLS.items())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel != "direction"])
def test_other_kernels_at_their_default(kernel: str, target: str) -> None:
    """Prologue, norms and update compile without spills."""
    check(compile_kernel(kernel, TRITON.default(4), 4, target, dtypes=Dtypes("bfloat16")))


@pytest.mark.full
@pytest.mark.parametrize("dtypes", [FLOAT32, BF16_STATE])
@pytest.mark.parametrize("band", [1, 4])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_of_every_target(kernel: str, target: str, band: int, dtypes: Dtypes) -> None:
    """Each is compiled and read, whatever the state's type."""
    check(compile_kernel(kernel, TRITON.default(band), band, target, dtypes=dtypes), SPILLS.get((target, band), (0, ""))[0])


def test_instructions_are_sorted_into_classes() -> None:
    """By opcode, and float64 by what it works on; padding is no instruction."""
    opcodes = (
        *("LDG.E", "@P0 STG.E.64", "STL", "LDS", "SHFL.BFLY", "FFMA", "FADD2", "DFMA", "F2F.F64.F32", "MUFU.RCP64H", "IMAD.MOV.U32"),
        *("@!P1 ISETP.GE", "F2FP.BF16.F32.PACK_AB", "MUFU.RCP", "MOV", "UIADD3", "BRA", "BAR.SYNC", "NOP", "NANOSLEEP"),
    )
    sass = "\n".join(f"        /*{i:04x}*/                   {opcode} R0, R1 ;" for i, opcode in enumerate(opcodes))
    used = nvidia_resources(" Function f:\n  REG:40 STACK:0", sass, shared=0, threads=128, target="cuda:120")
    ones = ("global_load", "global_store", "local", "shared", "exchange", "conversion", "special", "move", "scalar", "branch", "barrier")
    assert used.mix == {**dict.fromkeys(ones, 1), "float": 2, "double": 3, "integer": 2, "other": 1}
    assert used.instructions == len(opcodes) - 1
    assert (used.loaded_bytes, used.stored_bytes) == (4, 8)
    assert used.occupancy == 1  # 12 programs of 4 warps, of which registers allow 12 as they go to a warp by 256
    assert nvidia_resources("REG:41", sass, shared=0, threads=128, target="cuda:120").occupancy == 40 / 48


GFX11: Final = (
    *("global_load_b32 v1", "global_load_b128 v[1:4]", "global_load_u16 v1", "global_load_d16_hi_b16 v1", "global_load_u8 v1"),
    *("global_store_d16_hi_b16 v1", "buffer_store_b64 v[1:2]", "ds_load_2addr_b64 v1", "ds_bpermute_b32 v1", "scratch_store_b32 v1"),
    *("v_dual_mov_b32 v1", "v_mov_b32_dpp v1", "v_permlanex16_b32 v1", "v_fma_f32 v1", "v_fma_f64 v1", "v_cvt_f64_f32_e32 v1"),
    *("v_rcp_f32_e32 v1", "v_rcp_f64_e32 v1", "v_cvt_f32_u32_e32 v1", "v_cmp_gt_u64_e64 s1", "s_load_b64 s1", "s_and_b32 s1"),
    *("s_cbranch_execz .L", "s_barrier", "s_delay_alu", "s_endpgm", "buffer_gl0_inv"),
    *(".vgpr_count:     96", ".vgpr_spill_count: 0", "; Occupancy: 16"),
)


def test_assembly_of_rdna_is_read() -> None:
    """From gfx11 on accesses have their size in bits; warps have 32 threads, of which 16 warps fit on each of two units."""
    text = "\n".join(f"\t{line}" for line in GFX11)
    used = amd_resources(text, shared=0, threads=128, target="hip:gfx1100")
    assert used.load_widths == {1: 1, 2: 2, 4: 1, 16: 1}
    assert used.store_widths == {2: 1, 8: 1}
    assert used.mix == {
        "global_load": 5,
        "global_store": 2,
        "local": 1,
        "shared": 1,
        "exchange": 3,
        "float": 1,
        "double": 3,
        "integer": 1,
        "conversion": 1,
        "special": 1,
        "move": 1,
        "scalar": 2,
        "branch": 2,
        "barrier": 1,
        "wait": 1,
        "other": 1,
    }
    assert used.occupancy == 1
    assert amd_resources(text, shared=20_000, threads=128, target="hip:gfx1100").occupancy == 3 * 4 / 32  # three times 20 kB of 64 KiB
    with pytest.raises(UnsupportedProblemError, match="accesses memory by global_load_b48"):
        amd_resources(text.replace("load_b128", "load_b48"), shared=0, threads=128, target="hip:gfx1100")


@pytest.mark.parametrize("band", [band if band in (0, 8) else pytest.param(band, marks=pytest.mark.full) for band in SUPPORTED_BANDS])
def test_prologue_of_every_band(band: int) -> None:
    """The prologue's block of positions follows the band."""
    check(compile_kernel("prologue", TRITON.default(band), band, "cuda:90"))


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize(("entry", "kernel"), [(entry, kernel) for entry in ("direct", "in_place") for kernel in ENTRIES[entry]])
@pytest.mark.parametrize("target", VENDORS)
def test_direct_entries(entry: str, kernel: str, pieces: bool, target: str) -> None:
    """The entries for jax compile to about the same resources as the table entry; direction stores the same."""
    direct = compile_kernel(kernel, TRITON.default(2), 2, target, entry=entry, pieces=pieces)
    table = compile_kernel(SIBLINGS.get(kernel, kernel), TRITON.default(2), 2, target, pieces=pieces).resources
    check(direct)
    assert direct.resources.registers <= table.registers + 16  # 12 more seen, with Triton 3.9: the assembler's choice
    assert kernel != "direction" or direct.resources.store_widths == table.store_widths


@pytest.mark.parametrize(
    ("dtypes", "graft", "chained"),
    [
        (Dtypes("bfloat16", "bfloat16"), "rmsprop", True),
        (Dtypes("float16", "float16"), "sgd", False),
        (Dtypes("float32", "bfloat16"), "none", True),
    ],
)
@pytest.mark.parametrize("target", VENDORS)
def test_storage_types_grafts_and_chains(dtypes: Dtypes, graft: str, chained: bool, target: str) -> None:
    """Every constant that specialises a kernel compiles; narrow gradients are loaded with narrow loads."""
    config = TRITON.default(1)
    direction = compile_kernel("direction", config, 1, target, dtypes=dtypes, graft=graft, chained=chained).resources
    assert direction.load_widths.get(2, 0) >= 2
    assert direction.spill_store_bytes == 0
    update = compile_kernel("update", config, 1, target, dtypes=dtypes).resources
    assert (update.store_widths.get(2, 0) > 0) == (dtypes[0] != "float32")


@pytest.mark.parametrize("target", VENDORS)
def test_update_has_a_wide_path_and_a_narrow_one(target: str) -> None:
    """Aligned full tiles move 16 bytes per access, others one element: no hint binds an unaligned tensor."""
    used = compile_kernel("update", TRITON.default(1), 1, target).resources
    per_thread = 1024 // used.threads
    assert used.load_widths[16] == 2 * per_thread // 4
    assert used.store_widths == {4: per_thread, 16: per_thread // 4}
