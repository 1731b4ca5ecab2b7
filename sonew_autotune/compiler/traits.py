"""What is compared of two compiled kernels, what a change of it means, and how much it is likely to matter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sonew_autotune.compiler.kernel import Compiled
from sonew_autotune.compiler.resources import CLASSES, Resources

Value = int | float | Mapping[int, int] | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trait:
    """Something that can be read from a compiled kernel and compared.

    Attributes:
        name: what it is, with its unit.
        read: the value, None where the kernel has none.
        importance: of a change to or from nothing, as a rule of thumb; a change by half counts half.
        more, less: what it means that the second kernel has more or less of it.
    """

    name: str
    read: Callable[[Compiled], Value | None]
    importance: float
    more: str
    less: str


def _elements(compiled: Compiled) -> float | None:
    """Elements of a program's block per thread; of the prologue, places in border records."""
    constants = compiled.binary.constants if compiled.binary is not None else {}
    block = constants.get("BLOCK") or constants.get("BORDERS", 0) * constants.get("POSITIONS", 0)
    return block / compiled.resources.threads if block else None


def _per_element(count: Callable[[Resources], float]) -> Callable[[Compiled], float | None]:
    def read(compiled: Compiled) -> float | None:
        elements = _elements(compiled)
        return None if elements is None else round(count(compiled.resources) / elements, 2)

    return read


def _class_count(name: str) -> Callable[[Resources], float]:
    return lambda used: used.mix.get(name, 0)


def _code_bytes(compiled: Compiled) -> int | None:
    if "sass" in compiled.stages:
        addresses = re.findall(r"/\*([0-9a-f]{4,})\*/", compiled.stages["sass"])
        return int(addresses[-1], 16) + 16 if addresses else None  # an instruction takes 16 bytes
    found = re.search(r"; codeLenInByte = (\d+)", compiled.stages.get("amdgcn", ""))
    return int(found[1]) if found else None


def _conversions(compiled: Compiled) -> int | None:
    text = compiled.stages.get("ttgir")
    return None if text is None else text.count("ttg.convert_layout ")


def _layouts(compiled: Compiled) -> tuple[str, ...] | None:
    text = compiled.stages.get("ttgir")
    return None if text is None else tuple(re.findall(r"^#\w+ = #ttg\.\w+<\{(.*)\}>", text, re.MULTILINE))


TRAITS: Final = (
    Trait(
        name="spilled bytes per thread",
        read=lambda c: c.resources.spill_store_bytes + c.resources.spill_load_bytes,
        importance=100,
        more="values that find no register go to memory and back",
        less="fewer values go to memory and back for want of registers",
    ),
    Trait(
        name="occupancy in percent",
        read=lambda c: round(100 * c.resources.occupancy, 1),
        importance=40,
        more="more warps at once hide the waits for memory",
        less="fewer warps at once to hide the waits for memory",
    ),
    Trait(
        name="loads (bytes x times)",
        read=lambda c: c.resources.load_widths,
        importance=35,
        more="wider loads: fewer requests for the same bytes",
        less="narrower loads: more requests for the same bytes",
    ),
    Trait(
        name="stores (bytes x times)",
        read=lambda c: c.resources.store_widths,
        importance=35,
        more="wider stores: fewer requests for the same bytes",
        less="narrower stores: more requests for the same bytes",
    ),
    Trait(
        name="bytes moved per element",
        read=_per_element(lambda used: used.loaded_bytes + used.stored_bytes),
        importance=30,
        more="more accesses to global memory for the same work, those that a cache serves counted",
        less="fewer accesses to global memory for the same work, those that a cache serves counted",
    ),
    Trait(
        name="instructions per element",
        read=_per_element(lambda used: used.instructions),
        importance=25,
        more="more instructions for the same work",
        less="fewer instructions for the same work",
    ),
    Trait(
        name="layout conversions",
        read=_conversions,
        importance=20,
        more="values change threads more often, through shared memory",
        less="values change threads less often",
    ),
    Trait(
        name="elements per thread",
        read=_elements,
        importance=12,
        more="each thread has more loads in flight and needs more registers",
        less="each thread needs fewer registers and has fewer loads in flight",
    ),
    Trait(
        name="registers per thread",
        read=lambda c: c.resources.registers,
        importance=10,
        more="more values at hand, room for fewer warps",
        less="fewer values at hand, room for more warps",
    ),
    Trait(
        name="barriers",
        read=lambda c: c.resources.mix.get("barrier", 0),
        importance=10,
        more="warps wait for one another more often",
        less="warps wait for one another less often",
    ),
    Trait(
        name="shared bytes per program",
        read=lambda c: c.resources.shared_bytes,
        importance=8,
        more="more room taken for what threads exchange",
        less="less room taken for what threads exchange",
    ),
    Trait(
        name="threads per program",
        read=lambda c: c.resources.threads,
        importance=6,
        more="larger programs: more warps at each barrier",
        less="smaller programs: fewer warps at each barrier",
    ),
    *(
        Trait(
            name=f"{name.replace('_', ' ')} instructions per element",
            read=_per_element(_class_count(name)),
            importance=4,
            more=f"more: {what}",
            less=f"fewer: {what}",
        )
        for name, what in CLASSES.items()
        if name != "barrier"
    ),
    Trait(
        name="layouts",
        read=_layouts,
        importance=3,
        more="elements are spread over the threads in another way",
        less="elements are spread over the threads in another way",
    ),
    Trait(
        name="bytes of code",
        read=_code_bytes,
        importance=2,
        more="more code to fetch",
        less="less code to fetch",
    ),
)
"""Everything that is compared, by and large from what matters most. Counts are of the program's text (`Resources`)."""
