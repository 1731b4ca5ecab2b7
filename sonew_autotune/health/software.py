"""Checks of what is installed: Python, packages, the C++ compiler, environment variables."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sonew.errors import BackendUnavailableError
from sonew.registry import BACKENDS
from sonew_autotune.health.system import Line, System

EXTRAS: Final = ("", "torch", "tune", "jax")  # whose requirements are looked at; "": those of every use
OPTIONAL: Final = ("jax",)  # extras that may be missing
REQUIREMENT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*\(?([^;)]*)\)?(?:;(.*))?")
EXTRA: Final = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
COMPARISON: Final = re.compile(r"(>=|<=|==|!=|>|<)\s*([0-9][0-9.]*)")
COMPARE: Final[Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
OWN_VARIABLES: Final[Mapping[str, str]] = {
    "SONEW_STORE": "the user's store",
    "SONEW_STATE_DIR": "where studies are kept",
    "SONEW_CACHE_DIR": "where the CPU backend's libraries are kept",
    "SONEW_BACKEND": "the backend of every plan",
    "SONEW_DATA": "where the benchmark's data are",
}
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
GPU_VARIABLES: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
HIDING: Final = ("", "-1")
OFF: Final = ("", "0", "false", "off")


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without zeros at the end: "2.13.0+cpu" is (2, 13)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else [0]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def fits(version: str, range_: str) -> bool:
    """Whether a version lies in a range such as ">=0.10.2,<0.12"; release numbers are all that is compared."""
    return all(COMPARE[sign](release(version), release(bound)) for sign, bound in COMPARISON.findall(range_))


def requirements(system: System) -> dict[str, tuple[str, str]]:
    """Package name to (range, extra) of what this package needs, as its metadata say; the first extra of `EXTRAS` that names it."""
    found: dict[str, tuple[str, str]] = {}
    for line in system.requires("sonew") or ():
        if (match := REQUIREMENT.fullmatch(line.strip())) is not None:
            extra = EXTRA.search(match[3] or "")
            name, needed_by = match[1], extra[1] if extra else ""
            if needed_by in EXTRAS and (name not in found or EXTRAS.index(needed_by) < EXTRAS.index(found[name][1])):
                found[name] = match[2].strip(), needed_by
    return found


def check_python(system: System) -> Iterator[Line]:
    """Python's version."""
    if not system.requires_python:
        yield Line(level="note", text=f"Python {system.python}; the package's metadata are missing", fix="install it: pip install sonew")
    elif fits(system.python, system.requires_python):
        yield Line(level="ok", text=f"Python {system.python}")
    else:
        fix = f"make an environment with a Python {system.requires_python}"
        yield Line(level="problem", text=f"Python {system.python} is not supported ({system.requires_python})", fix=fix)


def check_packages(system: System) -> Iterator[Line]:
    """Versions of what this package needs."""
    for name, (range_, extra) in sorted(requirements(system).items()):
        version = system.version(name)
        install = f"pip install '{name}{range_}'"
        if version is None and extra in OPTIONAL:
            yield Line(level="note", text=f"{name} is not installed: sonew.{extra} needs it", fix=f"if you use it: {install}")
        elif version is None:
            yield Line(level="problem", text=f"{name} is not installed", fix=install)
        elif not fits(version, range_):
            yield Line(level="problem", text=f"{name} {version} is outside the supported range {range_}", fix=install)
        else:
            yield Line(level="ok", text=f"{name} {version}{f' ({range_})' if range_ else ''}")
    yield from _triton_of_torch(system)


def _triton_of_torch(system: System) -> Iterator[Line]:
    """The Triton that torch asks for, where it names one."""
    here = system.version("triton")
    for line in system.requires("torch") or ():
        match = REQUIREMENT.fullmatch(line.strip())
        if here is not None and match is not None and match[1] == "triton" and match[2].strip() and not fits(here, match[2]):
            text = f"triton {here} is not the one that torch {system.version('torch')} asks for (triton{match[2].strip()})"
            yield Line(level="note", text=text, fix=f"torch.compile may fail: pip install 'triton{match[2].strip()}'")


def check_cpu_backend(system: System) -> Iterator[Line]:
    """The C++ compiler, and whether what it builds runs."""
    try:
        yield Line(level="ok", text=f"C++ compiler: {system.compiler()}")
    except BackendUnavailableError as error:
        yield Line(level="problem", text=str(error), fix="install g++ 9 or newer, or set CXX")
        return
    reason = system.cpu_backend()
    if reason is None:
        yield Line(level="ok", text="the CPU backend is built and loads")
    else:
        yield Line(
            level="problem", text=f"the CPU backend cannot run: {reason}", fix="what the message says; until then the slow reference runs"
        )


def _is_on(system: System, name: str) -> bool:
    return system.environment.get(name, "").lower() not in OFF


def _variable(system: System, name: str, value: str) -> Line | None:
    """What there is to say of a variable, None for one that has no part in this."""
    if name == "TRITON_INTERPRET" and _is_on(system, name):
        text = f"{name}={value}: kernels run in Triton's interpreter, thousands of times slower"
        return Line(level="problem", text=text, fix=f"unset {name}")
    if name == "SONEW_BACKEND" and value not in (allowed := ("", "auto", *(row.name for row in BACKENDS))):
        return Line(level="problem", text=f"{name}={value!r} is not one of {sorted(set(allowed) - {''})}", fix=f"unset {name}")
    if name in OWN_VARIABLES:
        return Line(level="note", text=f"{name}={value} sets {OWN_VARIABLES[name]}")
    if name.startswith("SONEW_"):
        return Line(level="problem", text=f"{name} is read by nothing", fix=f"unset it, or use one of {list(OWN_VARIABLES)}")
    if name in GPU_VARIABLES and value in HIDING:
        return Line(level="note", text=f"{name}={value!r} hides every GPU", fix=f"unset {name}")
    if name in (*THREAD_VARIABLES, *GPU_VARIABLES) or (name.startswith("TRITON_") and value):
        return Line(level="note", text=f"{name}={value} is set")
    return None


def check_environment(system: System) -> Iterator[Line]:
    """Variables that change what runs."""
    lines = [line for name, value in sorted(system.environment.items()) if (line := _variable(system, name, value)) is not None]
    yield from lines or [Line(level="ok", text="no variable changes what runs")]
