"""Every check of the project in order, each in a process of its own; stops at the first that fails.

`python -m tests` is `make test`, `--lint` its static half, `--full` adds the tests marked full, new random examples and the compile
tests under other versions of Triton, `--format` rewrites files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One process: a name to print, a module run with this interpreter, its arguments and what its environment adds.

    Attributes:
        makes: the file it is run for; with that file there already, the stage is left out.
        hint: what it may need, for when it fails.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    makes: Path | None = None
    hint: str = ""


FORMAT: Final = (
    Stage(name="import order", module="ruff", arguments=("check", "--select", "I", "--fix", "--quiet", ".")),
    Stage(name="format", module="ruff", arguments=("format", ".")),
)
LINT: Final = (
    Stage(name="format", module="ruff", arguments=("format", "--check", ".")),
    Stage(name="lint", module="ruff", arguments=("check", ".")),
    Stage(name="types", module="mypy", arguments=()),
)
COMPILED: Final = "tests/kernels/compiled"
# TRITON_INTERPRET is read when a kernel module is imported: interpreted and compiled kernels need processes of their own. So does JAX, which
# makes its devices once, and must not find torch loaded.
SUITES: Final[tuple[tuple[str, tuple[str, ...], dict[str, str]], ...]] = (
    ("tests", ("tests", "--ignore=tests/kernels", "--ignore=tests/jax"), {}),
    ("jax", ("tests/jax",), {}),
    ("kernels, interpreted", ("tests/kernels/interpreter",), {"TRITON_INTERPRET": "1"}),
    ("kernels, compiled", (COMPILED,), {}),
    ("kernels, on a GPU", ("tests/kernels/gpu",), {}),
)
OTHER_TRITONS: Final = ("3.6.0", "3.9.0")  # the oldest that is allowed, which is also the one for Python 3.12, and the newest


def suites(*, full: bool) -> tuple[Stage, ...]:
    """The pytest stages; full adds the tests marked so and lets Hypothesis look for new examples."""
    chosen = ("--hypothesis-profile=explore",) if full else ("-m", "not full")
    return tuple(
        Stage(name=name, module="pytest", arguments=(*where, *chosen, "--quiet", "--durations=15"), environment=environment)
        for name, where, environment in SUITES
    )


def other_tritons() -> Iterator[Stage]:
    """The compile tests under each other version, which is installed below build/ once, beside the environment's own.

    Such a version comes without torch's consent. The tests there use torch for its verdicts only, and so they run all the same.
    """
    for version in OTHER_TRITONS:
        folder = ROOT / "build" / f"triton-{version}"
        yield Stage(
            name=f"install triton {version}",
            module="pip",
            arguments=("install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder), f"triton=={version}"),
            makes=folder / f"triton-{version}.dist-info" / "RECORD",
            hint=f"it needs the network, 1 GB of disk and a wheel of triton {version} for this Python",
        )
        yield Stage(
            name=f"kernels, compiled by triton {version}",
            module="pytest",
            arguments=(COMPILED, "--quiet", "--durations=15"),
            environment={"PYTHONPATH": str(folder), "EXPECTED_TRITON": version},
        )


def run(stages: Iterable[Stage]) -> int:
    """Run stages until one fails; print what each took. Returns the failing stage's exit status, or 0."""
    taken: list[str] = []
    status, verdict = 0, "passed"
    for stage in stages:
        if stage.makes is not None and stage.makes.exists():
            continue
        command = [sys.executable, "-m", stage.module, *stage.arguments]
        shown = [f"{name}={value}" for name, value in stage.environment.items()] + ["python", *command[1:]]
        print(f"\n== {stage.name}: {' '.join(shown)}", flush=True)
        start = time.monotonic()
        inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        status = subprocess.run(command, cwd=ROOT, env={**inherited, **stage.environment}, check=False).returncode
        taken.append(f"{stage.name} {time.monotonic() - start:.0f} s")
        if status:
            verdict = f"failed in {stage.name}{stage.hint and f' ({stage.hint})'}"
            break
    print(f"\n== {verdict}: {', '.join(taken)}", flush=True)
    return status


def main() -> int:
    """Choose the stages and run them."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--lint", action="store_true", help="formatter, linter and types only")
    which.add_argument("--format", action="store_true", help="rewrite files instead of checking")
    which.add_argument("--full", action="store_true", help="also the tests marked full, and other versions of Triton")
    chosen = parser.parse_args()
    if chosen.format:
        return run(FORMAT)
    if chosen.lint:
        return run(LINT)
    return run((*LINT, *suites(full=chosen.full), *(other_tritons() if chosen.full else ())))


if __name__ == "__main__":
    sys.exit(main())
