"""What ships of the static entries: those that keep the default. `python -m sonew_autotune.compiler.shipping FILE ...` drops the others.

Who runs `run --target` gets what the model ranks first. What everybody gets without asking must not rest on a model that no
measurement has confirmed (`validate-model`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sonew.tuned import SCHEMA_VERSION
from sonew_autotune.store.files import write_atomically

KEPT = "default kept"


def keep_defaults(path: Path) -> int:
    """Drop the entries of a store in which a candidate took the default's place; how many were dropped."""
    entries = json.loads(path.read_text(encoding="utf-8"))["entries"]
    kept = [entry for entry in entries if entry["evidence"]["result"] == KEPT]
    write_atomically(path, json.dumps({"schema_version": SCHEMA_VERSION, "entries": kept}, indent=1, allow_nan=False) + "\n")
    return len(entries) - len(kept)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {keep_defaults(Path(name))} entries rest on the model alone and were dropped")  # noqa: T201  # a command
