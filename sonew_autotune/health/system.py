"""The facts that the checks read, each behind a name, so that a test can plant any of them. Nothing here loads torch when imported."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

from sonew import paths
from sonew.backends.native_build import compiler_version, find_compiler
from sonew.config import Problem
from sonew.tuned import Entry
from sonew_autotune.compiler.targets import TARGETS
from sonew_autotune.device import gpu_problem, gpus_seen
from sonew_autotune.space import available_cores

TOOL_SECONDS: Final = 15.0  # a driver without its persistence mode takes seconds to wake a GPU

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a check says.

    Attributes:
        level: ok; note: worth knowing; problem: something fails or misleads until it is fixed. fix: what to do, "" where nothing is.
    """

    level: Level
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tool said. `problem` is None where it ended well, otherwise why not; `found` is False where there is no such tool."""

    output: str = ""
    found: bool = True
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFacts:
    """What torch says of itself.

    Attributes:
        cuda, hip: version it was built for, None without. threads: that it uses. gpus: names of the usable ones.
    """

    cuda: str | None
    hip: str | None
    threads: int
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A place that is written to, and how to move it."""

    name: str
    path: Path
    move: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFacts:
    """The stores: (entry, reasons against its use here), and what could not be read."""

    entries: tuple[tuple[Entry, tuple[str, ...]], ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One machine.

    Attributes:
        root: where its /dev, /proc and /sys begin.
        python: version. requires_python: of this package, "" where its metadata is missing.
        environment: variables. cores: that this process may use. load: average number of running processes in the last minute.
        requires: requirement lines of an installed package, None where it is not installed. version: of one, likewise.
        run: a tool with fixed arguments. may: as `os.access`. free: bytes on the disk of an existing folder.
        torch: what it says; ImportError where it does not load. compiler: the C++ compiler's first line, or NativeBuildError.
        cpu_backend: why the compiled CPU backend cannot run, or None; builds it. gpu_problem: the same of the GPU backend.
        seen: traces of a GPU. folders: what is written to. stored: what the stores hold. targets: that can be compiled for.
    """

    root: Path
    python: str
    requires_python: str
    environment: Mapping[str, str]
    cores: int
    load: float
    requires: Callable[[str], Sequence[str] | None]
    version: Callable[[str], str | None]
    run: Callable[[Sequence[str]], Answer]
    may: Callable[[Path, int], bool]
    free: Callable[[Path], int]
    torch: Callable[[], TorchFacts]
    compiler: Callable[[], str]
    cpu_backend: Callable[[], str | None]
    gpu_problem: Callable[[], str | None]
    seen: Callable[[], list[str]]
    folders: tuple[Folder, ...]
    stored: Callable[[], StoredFacts]
    targets: tuple[str, ...]


Check = Callable[[System], Iterable[Line]]


def run_tool(command: Sequence[str], *, seconds: float = TOOL_SECONDS) -> Answer:
    """Run a tool from PATH; one that hangs is left behind, since a process stuck in a driver cannot be waited for."""
    tool = shutil.which(command[0])
    if tool is None:
        return Answer(found=False, problem="not installed")
    try:
        process = subprocess.Popen(  # noqa: S603  # from PATH, fixed arguments
            [tool, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except OSError as error:
        return Answer(problem=f"cannot be run ({error.strerror})")
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        return Answer(problem=f"gave no answer in {seconds:.0f} s")
    first = output.strip().partition("\n")[0]
    problem = f"failed with status {process.returncode}: {first}" if process.returncode else None
    return Answer(output=output, problem=problem)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requires(package: str) -> Sequence[str] | None:
    try:
        return importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None


def _requires_python() -> str:
    try:
        return str(importlib.metadata.metadata("sonew").json.get("requires_python", ""))
    except importlib.metadata.PackageNotFoundError:
        return ""


def _torch() -> TorchFacts:
    torch: Any = import_module("torch")
    usable = torch.cuda.device_count() if gpu_problem() is None else 0
    gpus = tuple(torch.cuda.get_device_name(index) for index in range(usable))
    return TorchFacts(cuda=torch.version.cuda, hip=torch.version.hip, threads=torch.get_num_threads(), gpus=gpus)


def _cpu_backend() -> str | None:
    reason: str | None = import_module("sonew.backends.cpu_torch").rejects(Problem(device="cpu", band=1, total=1, median=1))
    return reason


def triton_cache(environment: Mapping[str, str], home: Path) -> Path:
    """Triton's folder of compiled kernels, as Triton chooses it."""
    if folder := environment.get("TRITON_CACHE_DIR"):
        return Path(folder)
    return Path(environment.get("TRITON_HOME") or home) / ".triton" / "cache"


def _folders() -> tuple[Folder, ...]:
    return (
        Folder(name="store", path=paths.store_path().parent, move="set SONEW_STORE"),
        Folder(name="state folder", path=paths.state_dir(), move="set SONEW_STATE_DIR"),
        Folder(name="cache of the CPU backend", path=paths.cache_dir(), move="set SONEW_CACHE_DIR"),
        Folder(name="Triton's cache", path=triton_cache(os.environ, Path("~").expanduser()), move="set TRITON_CACHE_DIR"),
    )


def this_system(stored: Callable[[], StoredFacts]) -> System:
    """The machine that this process runs on. `stored` reads its stores."""
    return System(
        root=Path("/"),
        python=platform.python_version(),
        requires_python=_requires_python(),
        environment=dict(os.environ),
        cores=available_cores(),
        load=os.getloadavg()[0],
        requires=_requires,
        version=_version,
        run=run_tool,
        may=os.access,
        free=lambda folder: shutil.disk_usage(folder).free,
        torch=_torch,
        compiler=lambda: compiler_version(find_compiler()),
        cpu_backend=_cpu_backend,
        gpu_problem=gpu_problem,
        seen=gpus_seen,
        folders=_folders(),
        stored=stored,
        targets=TARGETS,
    )
