"""Reading a compiled kernel: arguments, stages, access widths, the bit contract, and the ranking."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from sonew.errors import BackendUnavailableError, InvalidConfigError, UnsupportedProblemError
from sonew_autotune.compiler.kernel import ENTRIES, STAGES, Compiled, Dtypes, compile_kernel, parse_target
from sonew_autotune.compiler.model import static_rank
from sonew_autotune.compiler.resources import Resources, amd_resources, nvidia_resources
from sonew_kernels.spec import SPECS

CONFIG = SPECS["triton"].default(1)


def test_targets() -> None:
    """Names become Triton's numbers; others are refused with the forms that work."""
    assert parse_target("cuda:90") == ("cuda", 90, 32)
    assert parse_target("hip:gfx942") == ("hip", "gfx942", 64)
    assert parse_target("hip:gfx1100") == ("hip", "gfx1100", 32)
    for wrong in ("cuda", "cuda:9", "sm_90", "hip:942", ""):
        with pytest.raises(InvalidConfigError, match="cuda:<capability>"):
            parse_target(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "factor"}, "kernel='factor' is not one of"),
        ({"entry": "jax"}, "entry='jax' is not one of"),
        ({"entry": "direct"}, "kernel='update' is not one of"),
        ({"graft": "lion"}, "graft='lion' is not one of"),
        ({"dtypes": Dtypes("float64")}, "dtype='float64' is not one of"),
        ({"config": {**CONFIG, "block": 100}}, "block=100"),
        ({"band": 9}, "band=9"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], message: str) -> None:
    """Each bad argument is refused before anything is compiled."""
    arguments = {"kernel": "update", "config": CONFIG, "band": 1, "target": "cuda:90", **change}
    with pytest.raises(InvalidConfigError, match=message):
        compile_kernel(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_every_stage_is_there(target: str) -> None:
    """Each stage is text in its own language."""
    stages = compile_kernel("update", CONFIG, 1, target).stages
    signs = {"ttir": "tt.load", "ttgir": "#ttg.blocked", "llir": "define ", "ptx": ".visible .entry", "sass": "LDG.E", "amdgcn": "s_endpgm"}
    assert tuple(stages) == STAGES[target.split(":", maxsplit=1)[0]]
    for name, text in stages.items():
        assert signs[name] in text, name


@pytest.mark.parametrize(("target", "magic"), [("cuda:90", b"\x7fELF"), ("hip:gfx942", b"\x7fELF")])
def test_machine_code_comes_with_what_launching_it_takes(target: str, magic: bytes) -> None:
    """Arguments in order, scratch pointers behind them, constants; without line information no path of this machine."""
    with_lines, without = (compile_kernel("prologue", CONFIG, 1, target, line_info=lines) for lines in (True, False))
    binary = with_lines.binary
    assert binary is not None
    assert without.binary is not None
    assert binary.code.startswith(magic)
    assert (binary.symbol, binary.num_warps, binary.scratch) == ("prologue_table", 4, 2)
    assert list(binary.arguments) == ["rows", "tiles", "hyper", "corrections", "edges", "tile_count"]
    assert (binary.arguments["rows"], binary.arguments["edges"], binary.arguments["tile_count"]) == ("*i64", "*fp32", "i32")
    assert binary.constants == {"BAND": 1, "TILE": 1023, "BORDERS": 64, "POSITIONS": 2, "STATE_STORAGE": 0}
    assert without.resources == with_lines.resources
    assert b"sonew_kernels" in binary.code
    assert b"sonew_kernels" not in without.binary.code
    assert len(without.binary.code) < len(binary.code)


def test_arguments_are_promised_what_a_launch_promises() -> None:
    """Buffers are aligned; on AMD those of torch lie within 2 GiB, those of jax may not; the border records get no promise at all."""

    def promises(entry: str, target: str) -> dict[str, str]:
        text = compile_kernel("direction", CONFIG, 1, target, entry=entry).stages["ttir"]
        signature = text.partition("tt.func")[2].partition("\n")[0]
        return dict(re.findall(r"%(\w+): !tt\.ptr<\w+>(?: \{([^}]*)\})?", signature))

    aligned, ranged = "tt.divisibility = 16 : i32", "tt.pointer_range = 32 : i32"
    assert promises("table", "cuda:90") == {**dict.fromkeys(promises("table", "cuda:90"), aligned), "edges": ""}
    assert promises("table", "hip:gfx942")["rows"] == f"{aligned}, {ranged}"
    assert promises("table", "hip:gfx942")["edges"] == ""
    assert set(promises("direct", "hip:gfx942").values()) == {aligned}


def test_a_cache_without_stages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton can be told to keep the machine code only: nothing else could be shown."""
    monkeypatch.setenv("TRITON_STORE_BINARY_ONLY", "1")
    with pytest.raises(BackendUnavailableError, match="TRITON_STORE_BINARY_ONLY is set"):
        compile_kernel("update", CONFIG, 1, "cuda:90")


@pytest.mark.parametrize("kernel", ["direction", "update"])
def test_no_instruction_is_left_for_an_assembler_to_fuse(kernel: str) -> None:
    """Float32 products and sums carry their rounding in PTX, so that ptxas of any version and of XLA gives the same bits."""
    ptx = compile_kernel(kernel, CONFIG, 1, "cuda:90").stages["ptx"]
    arithmetic = re.findall(r"\b(?:mul|add|sub|fma)\.\S*f32\b", ptx)
    assert arithmetic
    assert {operation.split(".")[1] for operation in arithmetic} == {"rn"}


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize(("entry", "kernel"), [(entry, kernel) for entry, kernels in ENTRIES.items() for kernel in kernels])
def test_no_index_is_multiplied_in_32_bits(entry: str, kernel: str, pieces: bool) -> None:
    """Tensors and groups of more than 2^31 elements are addressed in 64 bits."""
    ttir = compile_kernel(kernel, SPECS["triton"].default(2), 2, "cuda:90", entry=entry, chained=True, pieces=pieces).stages["ttir"]
    products = re.findall(r"arith\.muli .*: (\S+)", ttir)
    assert products
    assert all("i64" in kind for kind in products)


def test_widths_and_spills_are_read_from_the_disassembly() -> None:
    """Every form of an access counts with its bytes; local memory is spills."""
    opcodes = ("LDG.E", "LDG.E.128", "@P0 LDG.E.U16", "@!P1 STG.E.64", "STL.128", "LDL", "LDL.64", "NOP", "FADD")
    sass = "\n".join(f"        /*{i:04x}*/                   {opcode} R0, R1 ;" for i, opcode in enumerate(opcodes))
    used = nvidia_resources(" Function f:\n  REG:40 STACK:0 SHARED:0", sass, shared=2048, threads=128, target="cuda:90")
    assert used.load_widths == {2: 1, 4: 1, 16: 1}
    assert used.store_widths == {8: 1}
    assert (used.spill_store_bytes, used.spill_load_bytes) == (16, 12)
    assert (used.registers, used.instructions) == (40, 8)


def test_amd_assembly_is_read_from_its_text() -> None:
    """Every form of an access counts with its bytes; the compiler's comments give the rest; another format is refused."""
    lines = (
        "global_load_dword v1", "global_load_dwordx4 v[1:4]", "buffer_load_ushort v1", "global_store_short v1", "flat_store_dwordx2 v[1:2]",
        "s_endpgm", ".vgpr_count:     36", ".vgpr_spill_count: 2", "; Occupancy: 8",
    )  # fmt: skip
    text = "\n".join(f"\t{line}" for line in lines)
    used = amd_resources(text, shared=512, threads=256, target="hip:gfx942")
    assert used.load_widths == {2: 1, 4: 1, 16: 1}
    assert used.store_widths == {2: 1, 8: 1}
    assert (used.registers, used.spill_store_bytes, used.shared_bytes, used.occupancy) == (36, 8, 512, 1.0)
    with pytest.raises(UnsupportedProblemError, match="vgpr_count"):
        amd_resources("\ts_endpgm", shared=0, threads=64, target="hip:gfx942")


def made(name: str, **changes: object) -> Compiled:
    """A compiled kernel with given resources and no text."""
    plain = Resources(
        registers=64, spill_store_bytes=0, spill_load_bytes=0, shared_bytes=1024, threads=128, instructions=300,
        load_widths={4: 10}, store_widths={4: 4}, occupancy=0.5, mix={"float": 200, "integer": 100},
    )  # fmt: skip
    return Compiled(kernel=name, target="cuda:90", band=1, stages={}, resources=replace(plain, **changes))  # type: ignore[arg-type]


def test_ranking_orders_what_is_known_to_matter() -> None:
    """Spills, too few programs at once, more instructions and small tiles each cost; nothing else changed."""

    def cost(config: dict[str, int] = CONFIG, **changes: object) -> float:
        return static_rank({"direction": made("direction", **changes), "update": made("update")}, config, 1)

    assert cost(spill_store_bytes=64, spill_load_bytes=64) > cost()
    assert cost(occupancy=1 / 16) > cost()
    assert cost(instructions=30_000, mix={"float": 30_000}) > cost()
    assert cost({**CONFIG, "block": 128}) > cost()


def test_ranking_of_real_kernels() -> None:
    """At band 4 the default, 256 lanes on 4 warps, comes before tiles that leave two programs on a processor, and those before none."""

    def cost(**changes: int) -> float:
        config = {**SPECS["triton"].default(4), **changes}
        compiled = {kernel: compile_kernel(kernel, config, 4, "cuda:90") for kernel in ("direction", "update")}
        return static_rank(compiled, config, 4)

    assert cost() < cost(block=512, num_warps=8) < cost(block=1024, num_warps=8)
