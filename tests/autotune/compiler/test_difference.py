"""What is said of two compiled kernels: in order of importance, in words, and nothing where there is nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sonew_autotune.compiler.difference import MINOR, explain_difference, value_text
from sonew_autotune.compiler.kernel import Binary, Compiled, compile_kernel
from sonew_autotune.compiler.stage_text import NOISE, listing, unified
from sonew_kernels.spec import SPECS
from tests.autotune.compiler.made import built

TTGIR = "#blocked = #ttg.blocked<{{sizePerThread = [{0}]}}>\n%1 = ttg.convert_layout %0\n%2 = tt.load %1"
SASS = "        /*0000*/                   LDG.E R0, [R2] ;\n        /*0010*/                   EXIT ;"


def made(block: int = 512, size: int = 4, sass: str = SASS, **changes: Any) -> Compiled:
    """A kernel of 128 threads over a block."""
    binary = Binary(code=b"", symbol="d", num_warps=4, arguments={}, scratch=0, constants={"BLOCK": block}, triton="3.7.1")
    return replace(built("direction", **changes), stages={"ttgir": TTGIR.format(size), "sass": sass}, binary=binary)


def test_identical_code_is_said_to_be_so_and_nothing_else() -> None:
    moved = SASS.replace("0010", "0020").replace(" ;", " ; // line 7", 1)  # addresses and comments are no code
    difference = explain_difference(made(), replace(made(), stages={**made().stages, "sass": moved.replace("0020", "0010")}))
    assert difference.identical
    assert difference.changes == ()
    assert difference.lines() == ["direction: the machine code is identical, instruction for instruction"]
    other = explain_difference(made(), made(sass=SASS.replace("LDG.E R0", "LDG.E R1")))
    assert not other.identical
    assert [line.partition(": ")[2].partition(" ")[0] for line in other.lines()] == ["as"]
    no_text = replace(made(), stages={}, binary=None)
    assert not explain_difference(no_text, no_text).identical


def test_spills_come_first_and_every_number_is_there() -> None:
    winner = made(spill_store_bytes=0, occupancy=0.75, registers=32, load_widths={16: 4}, size=1)
    difference = explain_difference(made(spill_store_bytes=64), winner)
    first, *rest = difference.changes
    assert (first.name, first.before, first.after, first.weight) == ("spilled bytes per thread", 64, 0, 100)
    assert first.meaning == "fewer values go to memory and back for want of registers"
    assert [change.weight for change in difference.changes] == sorted((c.weight for c in difference.changes), reverse=True)
    said = {change.name: (change.before, change.after, change.meaning) for change in rest}
    assert said["occupancy in percent"] == (50, 75, "more warps at once hide the waits for memory")
    assert said["loads (bytes x times)"] == ({4: 3, 16: 2}, {16: 4}, "wider loads: fewer requests for the same bytes")
    assert said["registers per thread"] == (40, 32, "fewer values at hand, room for more warps")
    assert said["layouts"][:2] == (("sizePerThread = [4]",), ("sizePerThread = [1]",))
    assert difference.same["layout conversions"] == 1
    assert difference.same["bytes of code"] == 32


def test_counts_are_compared_per_element() -> None:
    """Twice the block with twice the instructions is as much work for each element, and says so."""
    twice = made(block=1024, instructions=200, mix={"float": 120, "integer": 80}, load_widths={4: 6, 16: 4}, store_widths={4: 2})
    difference = explain_difference(made(), twice)
    assert difference.same["instructions per element"] == 25
    assert difference.same["float instructions per element"] == 15
    assert difference.same["bytes moved per element"] == 12
    said = {change.name: change.meaning for change in difference.changes}
    assert set(said) == {"elements per thread", "loads (bytes x times)", "stores (bytes x times)"}
    assert said["loads (bytes x times)"] == "as wide, 10 of them per thread instead of 5"


def test_lines_name_both_values_and_join_what_is_minor() -> None:
    lines = explain_difference(made(), made(registers=41, shared_bytes=1024)).lines()
    assert lines[0] == "direction: shared bytes per program 0 -> 1024: more room taken for what threads exchange"
    assert lines[1] == "direction: minor: registers per thread 40 -> 41"
    assert lines[2].startswith("direction: as before: occupancy in percent 50, loads (bytes x times) 4x3 16x2")
    assert len(lines) == 3
    assert MINOR > 10 / 41


def test_json_has_plain_values() -> None:
    document = explain_difference(made(), made(load_widths={8: 1}, size=2)).as_json()
    assert (document["kernel"], document["identical"]) == ("direction", False)
    changes = {change["name"]: change for change in document["changes"]}
    assert changes["loads (bytes x times)"]["before"] == {"4": 3, "16": 2}
    assert changes["layouts"]["after"] == ["sizePerThread = [2]"]
    assert document["same"]["registers per thread"] == 40


@pytest.mark.parametrize(
    ("value", "text"), [({4: 3, 16: 2}, "4x3 16x2"), ({}, "none"), (("a", "b"), "a; b"), ((), "none"), (31.25, "31.2"), (4096, "4096")]
)
def test_values_are_shown_in_a_few_words(value: Any, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("stage", "noisy", "plain"),
    [
        ("ttgir", '#loc = loc("f.py":1:0)\n%1 = tt.load %0 loc(callsite(#loc1 at #loc2))', ["%1 = tt.load %0"]),
        ("llir", "%1 = add i32 %0, 1, !dbg !7\n!7 = !DILocation(line: 1)", ["%1 = add i32 %0, 1"]),
        ("ptx", "\t.loc 1 2 3 // f.py\n$L__tmp1:\n\tmov.u32 %r1, 1; // x\n\t.section .debug_str\n\t.b8 1", ["\tmov.u32 %r1, 1;"]),
        ("sass", "        /*0010*/   MOV R1, R2 ; // x", ["           MOV R1, R2 ;"]),
        ("amdgcn", "\t.loc 1 2 3\n.Ltmp1:\n\tv_add_u32 v1, v2 ; x\n; comment", ["\tv_add_u32 v1, v2"]),
    ],
)
def test_a_stage_is_compared_without_lines_addresses_and_comments(stage: str, noisy: str, plain: list[str]) -> None:
    assert listing(noisy, stage) == plain
    assert unified(noisy, "\n".join(plain), stage, ("A", "B")) == ""
    assert unified(noisy, "other", stage, ("A", "B")).splitlines() == ["--- A", "+++ B", "@@ -1 +1 @@", f"-{plain[0]}", "+other"]


def test_every_stage_with_text_can_be_compared() -> None:
    stages = compile_kernel("update", SPECS["triton"].default(1), 1, "hip:gfx942").stages
    assert set(stages) <= set(NOISE)
    assert all(len(listing(text, stage)) > 50 for stage, text in stages.items())


def test_real_kernels_differ_where_their_configurations_do() -> None:
    """Twice the elements per thread: the layout, the registers and the occupancy follow, and the widths of accesses stay."""
    config = SPECS["triton"].default(1)
    one, other = (compile_kernel("update", {**config, "update_block": block}, 1, "cuda:90") for block in (1024, 2048))
    difference = explain_difference(one, other)
    said = {change.name: change for change in difference.changes}
    assert (said["elements per thread"].before, said["elements per thread"].after) == (8, 16)
    assert said["occupancy in percent"].meaning == "fewer warps at once to hide the waits for memory"
    assert said["loads (bytes x times)"].meaning.startswith("as wide, ")
    assert difference.same["layout conversions"] == 1
    assert explain_difference(one, one).identical
