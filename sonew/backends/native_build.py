"""The compiled CPU library: found in the cache or built there, one file per band.

A cached file's name carries everything that decides its machine code (source, band, flags, compiler version, CPU features), so a
home folder shared between machines is safe. The file ends with the SHA-256 of what precedes it: a damaged one is built
again, never loaded. Builds of several processes wait for one another on a lock that the system drops when its holder dies.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import sonew_kernels
from sonew import paths, rounding
from sonew.errors import BackendUnavailableError
from sonew_kernels.spec import CPU, CPU_FLAGS, Column, Graft, Slot, Storage, source_hash

FOLDER: Final = Path(sonew_kernels.__file__).parent
SOURCE: Final = "cpu.cpp"
CANDIDATES: Final = ("c++", "g++", "clang++")
FLAGS: Final = (*CPU_FLAGS, *(("-Wl,-undefined,dynamic_lookup",) if sys.platform == "darwin" else ()))
DIGEST_BYTES: Final = 32
BUILD_SECONDS: Final = 300


class NativeBuildError(BackendUnavailableError):
    """The library cannot be built or loaded; the message carries the compiler's output and the fix."""


def definitions() -> tuple[str, ...]:
    """-D options: enumerations of `sonew_kernels.spec` (COLUMN_PARAM=0, ...), their sizes (COLUMNS, ...), constants of `sonew.rounding`."""
    options = []
    for enum in (Column, Slot, Graft, Storage):
        name = enum.__name__.upper()
        options += [f"-D{name}S={len(enum)}", *(f"-D{name}_{member.name}={member.value}" for member in enum)]
    noise = {"MULTIPLIER0": rounding.MULTIPLIERS[0], "MULTIPLIER1": rounding.MULTIPLIERS[1], "STRIDE": rounding.STRIDE}
    options += [f"-DNOISE_{name}={value}u" for name, value in noise.items()]
    return (*options, f"-DNOISE_PARAM_ROW={rounding.PARAM_ROW}")


def find_compiler() -> tuple[str, ...]:
    """The C++ compiler's command: $CXX, else the first of c++, g++, clang++.

    Raises:
        NativeBuildError: none was found.
    """
    wanted = os.environ.get("CXX")
    for command in [shlex.split(wanted)] if wanted else [[name] for name in CANDIDATES]:
        if command and (path := shutil.which(command[0])):
            return (path, *command[1:])
    tried = f"CXX={wanted!r}, which is no program here" if wanted else f"tried {', '.join(CANDIDATES)}"
    msg = f"no C++ compiler found ({tried}): install g++ or set CXX"
    raise NativeBuildError(msg)


@cache
def compiler_version(command: tuple[str, ...]) -> str:
    """First line of the compiler's own description, for example "g++ (Debian 12.2.0-14) 12.2.0".

    Raises:
        NativeBuildError: it does not run.
    """
    return _run([*command, "--version"]).stdout.partition("\n")[0].strip()


@cache
def cpu_features() -> str:
    """What -march=native may use: the instruction set extensions, as the system lists them."""
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            return " ".join(sorted(line.partition(":")[2].split()))
    return f"{platform.machine()} {platform.processor()}"


@cache
def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    names = (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def library_path(band: int, command: tuple[str, ...]) -> Path:
    """Where the library of this band lies once built with this compiler on this CPU."""
    parts = (
        source_hash(CPU.name),
        str(band),
        *command,
        compiler_version(command),
        cpu_features(),
        platform.machine(),
        *FLAGS,
        *definitions(),
    )
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return paths.cache_dir() / f"cpu-band{band}-{digest}.so"


def find_or_build(band: int) -> Path:
    """A sound library of this band, from the cache or just built (1 to 9 s, most for the largest band).

    Raises:
        NativeBuildError: no compiler, a failing build or an unusable cache folder.
    """
    command = find_compiler()
    path = library_path(band, command)
    try:
        if not is_sound(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_suffix(".lock")):
                if not is_sound(path):  # nobody else built it meanwhile
                    _build(band, command, path)
    except OSError as error:
        msg = f"the library cache {path.parent} cannot be used ({error}): make it writable or set SONEW_CACHE_DIR to a folder that is"
        raise NativeBuildError(msg) from error
    return path


@cache
def load_library(band: int) -> ctypes.CDLL:
    """The library of this band; torch must have been imported.

    Raises:
        NativeBuildError: as `find_or_build`, or the library does not load.
    """
    path = find_or_build(band)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        msg = f"{path} does not load ({error}): this torch brings no OpenMP runtime; use backend='reference' or a torch built with OpenMP"
        raise NativeBuildError(msg) from error


def is_sound(path: Path) -> bool:
    """Whether the file exists and ends with the digest of what precedes it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    return len(data) > DIGEST_BYTES and hashlib.sha256(data[:-DIGEST_BYTES]).digest() == data[-DIGEST_BYTES:]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(band: int, command: tuple[str, ...], path: Path) -> None:
    """Compile beside the target, seal with the digest, then move into place in one step."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        built = Path(folder) / path.name
        _run([*command, *FLAGS, f"-DBAND={band}", *definitions(), "-o", str(built), str(FOLDER / SOURCE)])
        data = built.read_bytes()
        built.write_bytes(data + hashlib.sha256(data).digest())
        built.replace(path)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # English messages whatever the user's language: they are quoted and keyed on.
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603  # the command is the user's own compiler
            command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{command[0]} cannot be run ({error}): install g++ or set CXX"
        raise NativeBuildError(msg) from error
    if done.returncode != 0:
        msg = (
            f"{shlex.join(command)} failed with status {done.returncode}: install g++ 9 or newer or set CXX\n{done.stderr.strip()[-4000:]}"
        )
        raise NativeBuildError(msg)
    return done
