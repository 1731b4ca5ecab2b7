"""Every check of the project in order, each in a process of its own; stops at the first that fails.

`python -m tests` is `make test`, `--lint` its static half, `--full` adds the tests marked full and new random examples,
`--format` rewrites files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One process: a name to print, a module run with this interpreter, its arguments and what its environment adds."""

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


FORMAT: Final = (
    Stage(name="import order", module="ruff", arguments=("check", "--select", "I", "--fix", "--quiet", ".")),
    Stage(name="format", module="ruff", arguments=("format", ".")),
)
LINT: Final = (
    Stage(name="format", module="ruff", arguments=("format", "--check", ".")),
    Stage(name="lint", module="ruff", arguments=("check", ".")),
    Stage(name="types", module="mypy", arguments=()),
)
# TRITON_INTERPRET is read when a kernel module is imported: interpreted and compiled kernels need processes of their own.
SUITES: Final[tuple[tuple[str, tuple[str, ...], dict[str, str]], ...]] = (
    ("tests", ("tests", "--ignore=tests/kernels"), {}),
    ("kernels, interpreted", ("tests/kernels/interpreter",), {"TRITON_INTERPRET": "1"}),
    ("kernels, compiled", ("tests/kernels/compiled",), {}),
    ("kernels, on a GPU", ("tests/kernels/gpu",), {}),
)


def suites(*, full: bool) -> tuple[Stage, ...]:
    """The pytest stages; full adds the tests marked so and lets Hypothesis look for new examples."""
    chosen = ("--hypothesis-profile=explore",) if full else ("-m", "not full")
    return tuple(
        Stage(name=name, module="pytest", arguments=(*where, *chosen, "--quiet", "--durations=15"), environment=environment)
        for name, where, environment in SUITES
    )


def run(stages: tuple[Stage, ...]) -> int:
    """Run stages until one fails; print what each took. Returns the failing stage's exit status, or 0."""
    taken: list[str] = []
    status = 0
    for stage in stages:
        command = [sys.executable, "-m", stage.module, *stage.arguments]
        shown = [f"{name}={value}" for name, value in stage.environment.items()] + ["python", *command[1:]]
        print(f"\n== {stage.name}: {' '.join(shown)}", flush=True)
        start = time.monotonic()
        inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        status = subprocess.run(command, cwd=ROOT, env={**inherited, **stage.environment}, check=False).returncode
        taken.append(f"{stage.name} {time.monotonic() - start:.0f} s")
        if status:
            break
    verdict = f"failed in {stages[len(taken) - 1].name}" if status else "passed"
    print(f"\n== {verdict}: {', '.join(taken)}", flush=True)
    return status


def main() -> int:
    """Choose the stages and run them."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--lint", action="store_true", help="formatter, linter and types only")
    which.add_argument("--format", action="store_true", help="rewrite files instead of checking")
    which.add_argument("--full", action="store_true", help="also the tests marked full")
    chosen = parser.parse_args()
    if chosen.format:
        return run(FORMAT)
    return run(LINT if chosen.lint else LINT + suites(full=chosen.full))


if __name__ == "__main__":
    sys.exit(main())
