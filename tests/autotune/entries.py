"""Made-up store entries; no torch in here, because processes that test the store's locks start with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sonew.config import LaunchConfig
from sonew.tuned import Entry, Key

KEY = Key(
    kernel="cpu",
    entry="table",
    device="Some CPU",
    capability="avx2",
    threads=2,
    band=1,
    chain="tensor",
    param_dtype="float32",
    grad_dtype="float32",
    state_dtype="float32",
    direction_dtype="float32",
    total_log2=16,
    median_log2=16,
    toolchain="g++ 1",
    source_hash="0123456789abcdef",
)
SOUND: Mapping[str, Any] = {
    "result": "tuned",
    "ratio_to_default": {"median": 0.5, "low": 0.4, "high": 0.6},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "date": "2026-11-01T12:00:00Z",
    "median_ms": 1.5,
    "spread": 0.1,
    "samples": {"default": {"median_ms": 3.0}},
    "ratio_to_adamw": {"median": 2.0, "low": 1.9, "high": 2.1},
    "roof_share": 0.7,
    "peak_bytes": 1000,
    "trials": 3,
    "space": 40,
}
SOUND_STATIC: Mapping[str, Any] = {
    "result": "ranked first",
    "ratio_to_default": {"median": 0.8, "low": 0.8, "high": 0.8},
    "versions": {"python": "3.11.7", "triton": "3.7.1"},
    "date": "2026-11-01T12:00:00Z",
    "score": 12.5,
    "candidates": 30,
}
TRITON_CONFIG: Mapping[str, int] = {"block": 512, "num_warps": 8, "update_block": 1024, "update_num_warps": 4}


def _key(**fields: Any) -> Key:
    return Key(**{**{name: getattr(KEY, name) for name in Key.__slots__}, **fields})


def entry(config: Mapping[str, int] | None = None, **fields: Any) -> Entry:
    """An entry of KEY with some of its fields changed."""
    config = config or {"segment": 4096}
    return Entry(key=_key(**fields), kind="measured", config=LaunchConfig.of("cpu", config), evidence={"trials": 3})


def sound_entry(evidence: Mapping[str, Any] | None = None, *, segment: int = 4096, **fields: Any) -> Entry:
    """A measured entry that passes every check, of KEY with some fields changed, with some of its evidence changed."""
    config = LaunchConfig.of("cpu", {"segment": segment, "block": 1024, "threads": 0})
    return Entry(key=_key(**fields), kind="measured", config=config, evidence={**SOUND, **(evidence or {})})


def static_entry(evidence: Mapping[str, Any] | None = None, *, capability: str = "cuda:90", **fields: Any) -> Entry:
    """A static entry that passes every check."""
    key = _key(kernel="triton", device="any", capability=capability, threads=0, toolchain="triton 3.7.1", **fields)
    return Entry(key=key, kind="static", config=LaunchConfig.of("triton", TRITON_CONFIG), evidence={**SOUND_STATIC, **(evidence or {})})
