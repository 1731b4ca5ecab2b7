"""The list of checks, and the one place that runs them: a check that fails is a line of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sonew_autotune.health import gpu, machine, results, software
from sonew_autotune.health.system import Check, Line, System

CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("python", software.check_python),
    ("packages", software.check_packages),
    ("environment", software.check_environment),
    ("cpu backend", software.check_cpu_backend),
    ("gpu", gpu.check_gpu),
    ("gpu permissions", gpu.check_permissions),
    ("gpu driver", gpu.check_driver),
    ("gpu clocks", gpu.check_gpu_clocks),
    ("cores", machine.check_cores),
    ("cpu clocks", machine.check_cpu_clocks),
    ("load", machine.check_load),
    ("memory", machine.check_memory),
    ("folders", machine.check_folders),
    ("store", results.check_stores),
    ("targets", results.check_targets),
)


def examine(system: System, checks: tuple[tuple[str, Check], ...] = CHECKS) -> Iterator[tuple[str, Line]]:
    """Every check's lines under its name, as they come."""
    for name, check in checks:
        try:
            for line in check(system):
                yield name, line
        except Exception as error:  # noqa: BLE001  # whatever a strange machine does to a check, the others still run
            text = f"this could not be checked: {type(error).__name__}: {error}"
            yield name, Line(level="note", text=text)
