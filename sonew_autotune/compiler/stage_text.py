"""The text of a compiler stage as it is compared: what says nothing of the program is left out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

_LOCATION: Final = r"^#loc.*$| loc\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
NOISE: Final[Mapping[str, str]] = {
    "ttir": _LOCATION,
    "ttgir": _LOCATION,
    "llir": r"^!.*$|,? !dbg !\d+",
    "ptx": r"^\s*\.(?:loc|file)\b.*$|^\$L__tmp\d+:\s*$|//.*$",
    "sass": r"/\*[0-9a-f]{4,}\*/|//.*$",
    "amdgcn": r"^\s*\.(?:loc|file|cfi\w*)\b.*$|^\.L(?:tmp|func_begin|func_end)\d+:\s*$|;.*$",
}
"""Per stage: source lines, addresses, comments."""
DEBUG: Final = re.compile(r"^\s*\.section\s+\.debug", re.MULTILINE)  # sections for debuggers stand last


def listing(text: str, stage: str) -> list[str]:
    """The lines of a stage's text without `NOISE`."""
    program = DEBUG.split(text, maxsplit=1)[0]
    lines = re.sub(NOISE[stage], "", program, flags=re.MULTILINE).splitlines()
    return [line.rstrip() for line in lines if line.strip()]


def unified(one: str, other: str, stage: str, names: tuple[str, str]) -> str:
    """Unified difference of two texts of a stage; empty where there is none. `names` head the two sides."""
    return "\n".join(difflib.unified_diff(listing(one, stage), listing(other, stage), *names, lineterm=""))
