"""The torch backend's verdicts: what it refuses here, and why."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from sonew.backends import triton_torch
from sonew.config import Problem


def problem(**changes: object) -> Problem:
    """A problem that a GPU could take."""
    return Problem(**{"device": "cuda", "band": 1, "total": 1000, "median": 100, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"param_dtype": "float64"}, "param_dtype=float64"),
        ({"grad_dtype": "float64"}, "grad_dtype=float64"),
        ({"state_dtype": "float64"}, "state_dtype=float64"),
        ({"band": 9}, "band=9 is not one of [0, 1, 2, 3, 4, 5, 6, 7, 8, 16]"),
        ({"device": "mps"}, "device=mps"),
        ({"device": "cpu"}, "TRITON_INTERPRET=1"),
    ],
)
def test_unsupported_problems_are_named(changes: dict[str, object], reason: str) -> None:
    """Each field that the kernels cannot serve is a reason of its own."""
    assert reason in (triton_torch.rejects(problem(**changes)) or "")


def test_missing_triton_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Triton the backend says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert "pip install triton" in (triton_torch.rejects(problem()) or "")


@pytest.mark.parametrize(
    ("cuda", "error", "reason"),
    [
        (None, None, "built for the CPU only"),
        (
            "13.0",
            RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nMore text."),
            "too old (found version 11040).;",
        ),
        ("13.0", None, "no GPU is visible"),
    ],
)
def test_unusable_gpu_is_a_reason_with_the_fix(
    cuda: str | None, error: Exception | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU build, a driver too old and no GPU at all are told apart."""

    def init() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: False, init=init))
    monkeypatch.setattr(torch, "version", SimpleNamespace(cuda=cuda, hip=None))
    assert reason in (triton_torch.rejects(problem()) or "")


@pytest.mark.parametrize(("capability", "accepted"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_old_gpus_are_refused(capability: tuple[int, int], accepted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the oldest tested capability the reason names both numbers; from there on the problem is taken."""
    gpu = SimpleNamespace(is_available=lambda: True, get_device_capability=lambda: capability)
    monkeypatch.setattr(torch, "cuda", gpu)
    monkeypatch.setattr(torch, "version", SimpleNamespace(cuda="13.0", hip=None))
    reason = triton_torch.rejects(problem())
    assert (reason is None) == accepted
    assert accepted or "7.5 is below 8.0" in (reason or "")


@pytest.mark.parametrize(
    ("hip", "expected"),
    [
        (None, {"device": "Some GPU", "capability": "cuda:90"}),
        ("6.4", {"device": "Some GPU", "capability": "hip:gfx942"}),
    ],
)
def test_environment_names_gpu_and_toolchain(hip: str | None, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The key under which tuned configurations are kept."""
    properties = SimpleNamespace(name="Some GPU", major=9, minor=0, gcnArchName="gfx942:sramecc+:xnack-")
    gpu = SimpleNamespace(
        is_available=lambda: True,
        get_device_capability=lambda: (9, 0),
        current_device=lambda: 0,
        get_device_properties=lambda _index: properties,
    )
    monkeypatch.setattr(torch, "cuda", gpu)
    monkeypatch.setattr(torch, "version", SimpleNamespace(cuda=None if hip else "13.0", hip=hip))
    found = triton_torch.environment()
    assert {name: found[name] for name in expected} == expected
    assert found["threads"] == 0
    assert str(found["toolchain"]).startswith("triton 3.")
