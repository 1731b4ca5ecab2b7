"""Every check of the project, each in a process of its own, two at once where none of them times anything; the first failure ends it.

`python -m tests` is `make test`, `--lint` its static half, `--full` adds the tests marked full, new random examples, the compile tests
under other versions of Triton and the lowering tests under the next JAX, which `--jax-next` runs alone; `--format` rewrites files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parent.parent
AT_ONCE: Final = 2  # stages: as many as the machine of the time budget has cores
STOP_S: Final = 10  # what a stage may take to end its own processes when another one failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One process: a name to print, a module run by an interpreter, its arguments and what its environment adds.

    Attributes:
        python: the interpreter.
        makes: the file it is run for; with that file there already, the stage is left out.
        hint: what it may need, for when it fails.
        beside: whether it may run while another such stage does. Its output is then shown whole when it ends.
        gpu: whether it uses a GPU where there is one; no two of those run at once.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    makes: Path | None = None
    hint: str = ""
    beside: bool = False
    gpu: bool = False

    @property
    def command(self) -> list[str]:
        """The program and its arguments."""
        return [self.python, "-m", self.module, *self.arguments]

    @property
    def shown(self) -> str:
        """The command with what the environment adds, to read or to run by hand."""
        return " ".join((*(f"{name}={value}" for name, value in self.environment.items()), Path(self.python).name, *self.command[1:]))


FORMAT: Final = (
    Stage(name="import order", module="ruff", arguments=("check", "--select", "I", "--fix", "--quiet", ".")),
    Stage(name="format", module="ruff", arguments=("format", ".")),
)
LINT: Final = (
    Stage(name="format", module="ruff", arguments=("format", "--check", ".")),
    Stage(name="lint", module="ruff", arguments=("check", ".")),
    Stage(name="types", module="mypy", arguments=(), beside=True),
)
COMPILED: Final = "tests/kernels/compiled"
JAX_LOWERED: Final = "tests/jax/lowering"
JAX_GPU: Final = "tests/jax/gpu"
TIMED: Final = "autotune"
UNTIMED: Final = tuple(f"tests/autotune/{room}" for room in ("compiler", "health", "report", "store"))  # rooms that time nothing
# TRITON_INTERPRET is read when a kernel module is imported: interpreted and compiled kernels need processes of their own. So does
# JAX, which makes its devices once, and must not find torch loaded; where it compiles kernels, Triton loads torch.
# Longest first, for two at once to end together; last and alone the tests that time this machine.
SUITES: Final[tuple[tuple[str, tuple[str, ...], dict[str, str]], ...]] = (
    ("tests", ("tests/contracts", "tests/distributed", "tests/perf", "tests/sonew", *UNTIMED), {}),
    ("jax", ("tests/jax", f"--ignore={JAX_LOWERED}", f"--ignore={JAX_GPU}"), {}),
    ("kernels, interpreted", ("tests/kernels/interpreter",), {"TRITON_INTERPRET": "1"}),
    ("kernels, compiled", (COMPILED,), {}),
    ("jax, for a GPU", (JAX_LOWERED, JAX_GPU), {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
    ("kernels, on a GPU", ("tests/kernels/gpu",), {}),
    (TIMED, ("tests/autotune", *(f"--ignore={folder}" for folder in UNTIMED)), {}),
)
OTHER_TRITONS: Final = ("3.6.0", "3.9.0")  # the oldest that is allowed, which is also the one for Python 3.12, and the newest

NEXT_JAX: Final = "0.11.2"
NEXT_FOLDER: Final = ROOT / "build" / f"jax-{NEXT_JAX}"
NEXT_PACKAGES: Final = (
    *(f"jax=={NEXT_JAX}", f"jaxlib=={NEXT_JAX}", "jax-triton==0.4.1", "triton==3.7.1"),
    *("hypothesis", "numpy", "optax", "platformdirs", "pytest"),
)
NEXT_PLUGIN: Final = f"jax-cuda12-plugin=={NEXT_JAX}"  # jax-triton needs it on any machine; what it depends on, only a GPU needs
NEXT_PYTHONS: Final = ("python3.12", "python3", sys.executable)
NO_NEXT: Final = f"none of {', '.join(NEXT_PYTHONS)} runs as Python 3.12 with venv. Install one or set PYTHON312=/path/to/python3.12."


def suites(*, full: bool) -> tuple[Stage, ...]:
    """The pytest stages; full adds the tests marked so, of which some time this machine, and lets Hypothesis look for new examples."""
    chosen = ("--hypothesis-profile=explore",) if full else ("-m", "not full")
    return tuple(
        Stage(
            name=name,
            module="pytest",
            arguments=(*where, *chosen, "--quiet", "--durations=15"),
            environment=environment,
            beside=not full and name != TIMED,
            gpu=name.endswith(" GPU"),
        )
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


def next_python() -> str | None:
    """A Python 3.12, which the next JAX is tested under. Judged by running it: a version manager's shim can be on PATH and still fail."""
    code = "import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 12))"
    for candidate in [python] if (python := os.environ.get("PYTHON312")) else NEXT_PYTHONS:
        try:
            if subprocess.run([candidate, "-c", code], capture_output=True, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    return None


def next_jax(python: str) -> Iterator[Stage]:
    """The lowering tests under the next JAX and jax-triton, in an environment of their own below build/, made once."""
    own, packages = str(NEXT_FOLDER / "bin" / "python"), NEXT_FOLDER / "lib" / "python3.12" / "site-packages"
    installed = packages / f"jax_cuda12_plugin-{NEXT_JAX}.dist-info" / "RECORD"  # the last one
    pip, hint = ("install", "--quiet", "--disable-pip-version-check"), "it needs the network and 1.4 GB of disk"
    name = f"install jax {NEXT_JAX}"
    yield Stage(name=f"{name}: environment", python=python, module="venv", arguments=("--clear", str(NEXT_FOLDER)), makes=installed)
    yield Stage(name=name, python=own, module="pip", arguments=(*pip, *NEXT_PACKAGES), makes=installed, hint=hint)
    plugin = (*pip, "--no-deps", NEXT_PLUGIN)
    yield Stage(name=f"{name}: plugin", python=own, module="pip", arguments=plugin, makes=installed, hint=hint)
    yield Stage(
        name=f"jax, lowered by jax {NEXT_JAX}",
        python=own,
        module="pytest",
        arguments=(JAX_LOWERED, "--quiet", "--durations=15"),
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A stage under way: its process, when it was started, and where its output is kept while others run beside it."""

    stage: Stage
    process: subprocess.Popen[bytes]
    start: float
    kept: IO[bytes] | None

    def show(self) -> None:
        """Print what was kept back, under the command that made it."""
        if self.kept is None:
            return
        print(f"\n== {self.stage.name}: {self.stage.shown}", flush=True)
        with self.kept:
            self.kept.seek(0)
            shutil.copyfileobj(self.kept, sys.stdout.buffer)
        sys.stdout.flush()

    def stop(self) -> None:
        """End it as Ctrl-C does, so that it ends its own processes."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.kept is not None:
            self.kept.close()


def fits(stage: Stage, running: Sequence[Running]) -> bool:
    """Whether a stage may be started now."""
    others = [one.stage for one in running]
    beside = stage.beside and all(other.beside and not (other.gpu and stage.gpu) for other in others)
    return not others or (beside and len(others) < AT_ONCE)


def start(stage: Stage) -> Running:
    """Start a stage and say so."""
    print(f"\n== started {stage.name}" if stage.beside else f"\n== {stage.name}: {stage.shown}", flush=True)
    kept = tempfile.TemporaryFile() if stage.beside else None  # noqa: SIM115  # closed when the stage has ended
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment = {**inherited, **stage.environment}
    process = subprocess.Popen(stage.command, cwd=ROOT, env=environment, stdout=kept, stderr=kept and subprocess.STDOUT)
    return Running(stage, process, time.monotonic(), kept)


def first_ended(running: Sequence[Running]) -> Running:
    """Wait for one of the stages to end; for all of them on Ctrl-C, which they get as well."""
    try:
        while True:
            for one in running:
                if one.process.poll() is not None:
                    return one
            time.sleep(0.05)
    except KeyboardInterrupt:
        for one in running:
            one.process.wait()
        raise


def run(stages: Iterable[Stage]) -> int:
    """Run stages until one fails, which stops the one beside it; print what each took. Returns the failing stage's exit status, or 0.

    They are started in their order, but those that may run beside another one pass those that may not.
    """
    waiting, running, taken = list(stages), list[Running](), list[str]()
    status, verdict = 0, "passed"
    while not status and (waiting or running):
        ready = next((stage for stage in waiting if fits(stage, running)), None)
        if ready is not None:
            waiting.remove(ready)
            if ready.makes is None or not ready.makes.exists():
                running.append(start(ready))
            continue
        ended = first_ended(running)
        running.remove(ended)
        ended.show()
        status = ended.process.returncode
        taken.append(f"{ended.stage.name} {time.monotonic() - ended.start:.0f} s")
        if status:
            hint = ended.stage.hint
            verdict = f"failed in {ended.stage.name}{hint and f' ({hint})'}"
    for one in running:
        one.stop()
        taken.append(f"{one.stage.name} stopped")
    print(f"\n== {verdict}: {', '.join(taken)}", flush=True)
    return status


def main() -> int:
    """Choose the stages and run them."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--lint", action="store_true", help="formatter, linter and types only")
    which.add_argument("--format", action="store_true", help="rewrite files instead of checking")
    which.add_argument("--full", action="store_true", help="also the tests marked full, and other versions of Triton and JAX")
    which.add_argument("--jax-next", action="store_true", help=f"the lowering tests under jax {NEXT_JAX} and Python 3.12 only")
    chosen = parser.parse_args()
    if chosen.format:
        return run(FORMAT)
    if chosen.lint:
        return run(LINT)
    python = next_python() if chosen.jax_next or chosen.full else None
    if chosen.jax_next:
        if python is None:
            sys.exit(f"error: {NO_NEXT}")
        return run(next_jax(python))
    status = run((*LINT, *suites(full=chosen.full), *(other_tritons() if chosen.full else ()), *(next_jax(python) if python else ())))
    if chosen.full and python is None:
        print(f"== left out: the lowering tests under jax {NEXT_JAX}: {NO_NEXT}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
