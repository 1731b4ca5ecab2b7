"""What a record says of the machine, as a `Machine` that is the same from day to day."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from sonew_perf.records.checks import Fields
from sonew_perf.records.model import Machine

TYPES: Final[Mapping[str, str]] = {"cpu": "cpu", "cuda": "cuda", "gpu": "cuda"}  # JAX says "gpu"
OWN: Final = ("id", "device", "type", "threads")


def machine_of(described: Mapping[str, Any]) -> Machine:
    """The machine that a record describes as `machine.describe` does.

    Its id holds for the device, its type and, on a CPU, threads and instruction sets, where the record says them (a hypervisor may hide
    which model of a family it is): versions and drivers come and go on the same machine. An id that the record gives is not believed.

    Raises:
        RecordError: it is no description.
    """
    fields = Fields.of("machine", described)
    device, kind = fields.name("device"), TYPES[fields.choice("type", tuple(TYPES), "")]
    threads = fields.count("threads", 0) or 0
    sets = fields.text("flags", "") if kind == "cpu" else ""
    decides = [device, kind, threads if kind == "cpu" else 0, *([sets] if sets else [])]
    return Machine(
        id=hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:8],
        device=device,
        type=kind,
        threads=threads,
        details={name: value for name, value in fields.scalars().items() if name not in OWN},
    )


def describe(machine: Machine) -> dict[str, Any]:
    """The machine as a record says it: `machine_of` reads it."""
    return {"id": machine.id, "device": machine.device, "type": machine.type, "threads": machine.threads, **machine.details}
