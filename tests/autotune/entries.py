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


def entry(config: Mapping[str, int] | None = None, **fields: Any) -> Entry:
    """An entry of KEY with some of its fields changed."""
    key = Key(**{**{name: getattr(KEY, name) for name in Key.__slots__}, **fields})
    return Entry(key=key, kind="measured", config=LaunchConfig.of("cpu", config or {"segment": 4096}), evidence={"trials": 3})
