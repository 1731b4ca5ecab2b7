"""The barrier between the last load and the first store of the direction kernel is in the machine code, on every path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pytest
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sonew_autotune.compiler.kernel import ENTRIES, TARGETS, Dtypes, compile_kernel
from sonew_kernels.spec import COMPILE_OPTIONS, SPECS

Kind = Literal["load", "store", "barrier", "label", "jump", "branch", "exit"]


@dataclass(frozen=True)
class Event:
    """One line that matters; `name` is the label of a label, jump (always taken) or branch."""

    kind: Kind
    name: str = ""


PTX: Final[Mapping[Kind, str]] = {
    "load": r"ld\.(?:global|volatile\.global)",
    "store": r"st\.(?:global|volatile\.global)|atom\.|red\.global",
    "barrier": r"bar\.sync|barrier\.sync",
    "label": r"^(\$L__BB\w+):",
    "jump": r"^bra(?:\.uni)?\s+(\$L__BB\w+)",
    "branch": r"^@\S+\s+bra(?:\.uni)?\s+(\$L__BB\w+)",
    "exit": r"^(?:ret|exit);",
}
AMDGCN: Final[Mapping[Kind, str]] = {
    "load": r"^(?:global|buffer|flat)_load",
    "store": r"^(?:global|buffer|flat)_(?:store|atomic)",
    "barrier": r"^s_barrier\b",
    "label": r"^(\.LBB\w+):",
    "jump": r"^s_branch\s+(\.LBB\w+)",
    "branch": r"^s_cbranch\w*\s+(\.LBB\w+)",
    "exit": r"^s_endpgm\b",
}


def events(text: str, patterns: Mapping[Kind, str]) -> list[Event]:
    """The lines that matter, in order."""
    found = []
    for line in text.splitlines():
        for kind, pattern in patterns.items():
            if match := re.search(pattern, line.strip()):
                found.append(Event(kind, match[1] if match.groups() else ""))
                break
    return found


def fault(text: str, patterns: Mapping[Kind, str]) -> str | None:
    """Why a store could overtake a load of another warp, or None.

    Every path through the code is followed: a store needs a barrier since the last load, and no load may come after a store.
    """
    seen = events(text, patterns)
    at = {event.name: i for i, event in enumerate(seen) if event.kind == "label"}
    if not {"load", "store"} <= {event.kind for event in seen}:
        return "no load or no store found"
    todo, done = [(0, False, False)], set()  # (line, a load since the last barrier, a store on the way here)
    while todo:
        i, pending, stored = state = todo.pop()
        if i == len(seen) or state in done:
            continue
        done.add(state)
        event = seen[i]
        if event.kind == "store" and pending:
            return "a store without a barrier since the last load"
        if event.kind == "load" and stored:
            return "a load after a store"
        if event.kind in ("jump", "branch"):
            todo.append((at[event.name], pending, stored))
        if event.kind not in ("jump", "exit"):
            todo.append((i + 1, event.kind != "barrier" and (pending or event.kind == "load"), stored or event.kind == "store"))
    return None


MISSING: Final = "a store without a barrier since the last load"
FENCED: Final = re.compile(
    r'fence syncscope\("workgroup"\) release[^\n]*\n[^\n]*@llvm\.amdgcn\.s\.barrier\(\)[^\n]*\n\s*fence syncscope\("workgroup"\) acquire'
)


GLOBAL_LOAD: Final = re.compile(r"= load [^\n]*addrspace\(1\)|call [^\n]*@llvm\.amdgcn\.raw\.ptr\.buffer\.load")
GLOBAL_STORE: Final = re.compile(r"^\s*store [^\n]*addrspace\(1\)|call [^\n]*@llvm\.amdgcn\.raw\.ptr\.buffer\.store", re.MULTILINE)


def memory_fault(llir: str, amdgcn: str) -> str | None:
    """Why AMD's barriers between the last load and the first store would order execution but not memory, or None.

    `s_barrier` does not wait for outstanding loads. What orders them is the pair of workgroup fences around it, which
    LLVM's memory model honours without a wait as long as a workgroup runs on one compute unit (no tgsplit mode).
    """
    loads, first_store = list(GLOBAL_LOAD.finditer(llir)), GLOBAL_STORE.search(llir)
    if not loads or first_store is None:
        return "no load or no store found"
    if not any(loads[-1].end() < fenced.start() < first_store.start() for fenced in FENCED.finditer(llir)):
        return "no barrier between loads and stores has fences"
    return "tgsplit mode" if re.search(r"\.amdhsa_tg_split\s+1", amdgcn) else None


def fault_of(stages: Mapping[str, str]) -> str | None:
    """The fault in whichever assembly there is."""
    if "ptx" in stages:
        return fault(stages["ptx"], PTX)
    return fault(stages["amdgcn"], AMDGCN) or memory_fault(stages["llir"], stages["amdgcn"])


@triton.jit
def planted(state, BLOCK: tl.constexpr, BARRIER: tl.constexpr):
    """In-place shift, with or without the barrier between its loads and its store."""
    lane = tl.arange(0, BLOCK)
    moved = tl.load(state + lane) + tl.load(state + lane + 1)
    if BARRIER:
        tl.debug_barrier()
    tl.store(state + lane, moved)


def compile_planted(target: str, *, barrier: bool) -> Mapping[str, str]:
    """Assembly of the planted kernel."""
    backend, arch = target.split(":")
    gpu = GPUTarget(backend, int(arch) if backend == "cuda" else arch, 32 if backend == "cuda" else 64)
    signature = {"state": "*fp32", "BLOCK": "constexpr", "BARRIER": "constexpr"}
    source = ASTSource(planted, signature, {"BLOCK": 256, "BARRIER": barrier})
    built = triton.compile(source, target=gpu, options={**COMPILE_OPTIONS, "num_warps": 4})
    return {name: built.asm[name] for name in ("llir", "ptx", "amdgcn") if name in built.asm}


QUICK: Final = {("float32", 0), ("float32", 1), ("float32", 4), ("bfloat16", 1)}
CASES: Final = [
    pytest.param(state, band, marks=() if (state, band) in QUICK else pytest.mark.full)
    for state in ("float32", "bfloat16")
    for band in (0, 1, 4, 8, 16)
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("state", "band"), CASES)
def test_every_store_waits_for_every_load(state: str, band: int, target: str) -> None:
    """The direction kernel at its default configuration."""
    compiled = compile_kernel("direction", SPECS["triton"].default(band), band, target, dtypes=Dtypes(state=state))
    assert fault_of(compiled.stages) is None


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_every_entry_with_chains(entry: str, pieces: bool, target: str) -> None:
    """Chains inside tensors, pieces and the other entries change the code, not the order."""
    dtypes = Dtypes("bfloat16", "bfloat16")
    compiled = compile_kernel("direction", SPECS["triton"].default(2), 2, target, entry=entry, chained=True, pieces=pieces, dtypes=dtypes)
    assert fault_of(compiled.stages) is None


@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_planted_kernel_without_a_barrier_is_found(target: str) -> None:
    """The check fails on an in-place kernel whose barrier is missing, and passes it with the barrier."""
    assert fault_of(compile_planted(target, barrier=False)) == MISSING
    assert fault_of(compile_planted(target, barrier=True)) is None


def test_paths_are_followed() -> None:
    """Going around the barrier is a fault, so is a loop; a skipped tail, or a block placed out of line, is none."""

    def of(*lines: str) -> str | None:
        return fault("\n".join(lines), PTX)

    load, barrier, store, end = "ld.global.b32 a;", "bar.sync 0;", "@%p2 st.global.b32 a;", "ret;"
    assert of(load, barrier, store, end) is None
    assert of(load, store, barrier, end) == MISSING
    assert of(barrier, load, store, end) == MISSING
    assert of(load, "@%p1 bra $L__BB0_2;", barrier, store, "$L__BB0_2:", end) is None
    assert of(load, "@%p1 bra $L__BB0_2;", barrier, "$L__BB0_2:", store, end) == MISSING
    assert of("$L__BB0_2:", load, barrier, store, "@%p1 bra $L__BB0_2;", end) == "a load after a store"
    assert of("@%p1 bra $L__BB0_3;", "$L__BB0_2:", barrier, store, end, "$L__BB0_3:", load, "bra.uni $L__BB0_2;") is None
    assert of(load, barrier, end) == "no load or no store found"


def test_fences_are_required_on_amd() -> None:
    """Without a fenced barrier between loads and stores there is a fault; so is there for a workgroup spread over compute units."""
    barrier = "tail call void @llvm.amdgcn.s.barrier()"
    fenced = f'fence syncscope("workgroup") release\n{barrier}\nfence syncscope("workgroup") acquire'
    load, store = "%1 = load <1 x float>, ptr addrspace(1) %0", "  store <1 x float> %1, ptr addrspace(1) %0"
    bare = "no barrier between loads and stores has fences"

    def of(*lines: str, assembly: str = "") -> str | None:
        return memory_fault("\n".join(lines), assembly)

    assert of(load, fenced, store) is None
    assert of(load, barrier, fenced, store) is None
    assert of(load, barrier, store) == bare
    assert of(load, barrier, store, fenced) == bare
    assert of(fenced, load, barrier, store) == bare
    assert of(fenced) == "no load or no store found"
    assert of(load, fenced, store, assembly=".amdhsa_tg_split 1") == "tgsplit mode"
