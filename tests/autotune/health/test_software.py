"""What `doctor` says of Python, packages, the compiler and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonew.backends.native_build import NativeBuildError
from sonew_autotune.health import software
from tests.autotune.health.planted import REQUIRES, VERSIONS, found, levels, machine, raising


@pytest.mark.parametrize(
    ("version", "range_", "inside"),
    [
        ("2.13.0+cpu", ">=2.11", True),
        ("2.9.1", ">=2.11", False),
        ("2.11", ">=2.11", True),
        ("0.12.0.1", "<0.12,>=0.10.2", False),
        ("0.12.0", "<0.12", False),
        ("0.11.9", ">=0.10.2,<0.12", True),
        ("3.13.0rc1", "<3.13,>=3.11", False),
        ("3.7.1", "==3.7.1", True),
        ("3.7.0", "==3.7", True),
        ("3.7.1", "!=3.7.1", False),
        ("5", ">4", True),
        ("4", "<=3", False),
        ("1.0", "", True),
    ],
)
def test_ranges(version: str, range_: str, inside: bool) -> None:
    assert software.fits(version, range_) is inside


def test_requirements_are_read_from_the_metadata(tmp_path: Path) -> None:
    assert software.requirements(machine(tmp_path)) == {
        "numpy": (">=2", ""),
        "torch": (">=2.11", "torch"),
        "triton": (">=3.6", "torch"),
        "optuna": (">=5", "tune"),
        "sonew": ("", "tune"),
        "jax": ("<0.12,>=0.10.2", "jax"),
    }
    assert software.requirements(machine(tmp_path, requires=lambda _name: None)) == {}


def test_a_machine_in_good_order(tmp_path: Path) -> None:
    system = machine(tmp_path)
    checks = (software.check_python, software.check_packages, software.check_cpu_backend, software.check_environment)
    assert [set(levels(check, system)) for check in checks] == [{"ok"}] * 4


def test_python(tmp_path: Path) -> None:
    assert found(software.check_python, machine(tmp_path, python="3.13.0"), "problem") == (
        "Python 3.13.0 is not supported (<3.13,>=3.11) | make an environment with a Python <3.13,>=3.11"
    )
    assert "metadata are missing" in found(software.check_python, machine(tmp_path, requires_python=""), "note")


def test_packages(tmp_path: Path) -> None:
    old = machine(tmp_path, version={**VERSIONS, "torch": "2.9.0"}.get)
    assert found(software.check_packages, old, "problem") == (
        "torch 2.9.0 is outside the supported range >=2.11 | pip install 'torch>=2.11'"
    )
    missing = machine(tmp_path, version={name: value for name, value in VERSIONS.items() if name != "triton"}.get)
    assert found(software.check_packages, missing, "problem") == "triton is not installed | pip install 'triton>=3.6'"
    no_jax = machine(tmp_path, version={name: value for name, value in VERSIONS.items() if name != "jax"}.get)
    assert found(software.check_packages, no_jax, "note").startswith(
        "jax is not installed: sonew.jax needs it | if you use it: pip install"
    )


def test_the_triton_that_torch_asks_for(tmp_path: Path) -> None:
    def requires(name: str) -> tuple[str, ...]:
        return REQUIRES if name == "sonew" else ("filelock", 'triton==3.6.0; platform_system == "Linux"')

    assert found(software.check_packages, machine(tmp_path, requires=requires), "note") == (
        "triton 3.7.1 is not the one that torch 2.13.0+cpu asks for (triton==3.6.0) | torch.compile may fail: pip install 'triton==3.6.0'"
    )


def test_the_compiler_and_what_it_builds(tmp_path: Path) -> None:
    none = machine(tmp_path, compiler=raising(NativeBuildError("no C++ compiler found (tried c++)")), cpu_backend=raising(AssertionError()))
    assert found(software.check_cpu_backend, none, "problem") == "no C++ compiler found (tried c++) | install g++ 9 or newer, or set CXX"
    broken = machine(tmp_path, cpu_backend=lambda: "cpu.cpp does not compile")
    assert "the CPU backend cannot run: cpu.cpp does not compile | " in found(software.check_cpu_backend, broken, "problem")


@pytest.mark.parametrize(
    ("variable", "value", "level", "words"),
    [
        ("TRITON_INTERPRET", "1", "problem", "kernels run in Triton's interpreter, thousands of times slower | unset TRITON_INTERPRET"),
        ("SONEW_BACKEND", "cuda", "problem", "SONEW_BACKEND='cuda' is not one of ['auto', 'cpu', 'reference', 'triton'] | unset"),
        ("SONEW_BACKEND", "cpu", "note", "SONEW_BACKEND=cpu sets the backend of every plan"),
        ("SONEW_STORE", "x.json", "note", "SONEW_STORE=x.json sets the user's store"),
        ("SONEW_STOR", "x.json", "problem", "SONEW_STOR is read by nothing | unset it, or use one of ['SONEW_STORE',"),
        ("CUDA_VISIBLE_DEVICES", "", "note", "CUDA_VISIBLE_DEVICES='' hides every GPU | unset CUDA_VISIBLE_DEVICES"),
        ("HIP_VISIBLE_DEVICES", "-1", "note", "hides every GPU"),
        ("CUDA_VISIBLE_DEVICES", "1", "note", "CUDA_VISIBLE_DEVICES=1 is set"),
        ("OMP_NUM_THREADS", "4", "note", "OMP_NUM_THREADS=4 is set"),
        ("TRITON_PTXAS_PATH", "ptxas", "note", "TRITON_PTXAS_PATH=ptxas is set"),
        ("TRITON_INTERPRET", "0", "note", "TRITON_INTERPRET=0 is set"),
    ],
)
def test_variables(tmp_path: Path, variable: str, value: str, level: str, words: str) -> None:
    assert words in found(software.check_environment, machine(tmp_path, environment={variable: value}), level)
