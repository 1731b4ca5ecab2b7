"""Entries of training runs with made-up curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAMES = {"sonew": "SONew band 1", "adam": "Adam", "soap": "SOAP"}


def made(method: str, losses: Sequence[float | None], *, lr: float = 1e-3, seed: int = 0, **changed: object) -> dict[str, Any]:
    """An entry whose curve has a mean of every 10 steps; its result is the last one."""
    entry = {
        "kind": "training run",
        "task": "autoencoder",
        "framework": "torch",
        "precision": "fp32",
        "method": method,
        "label": NAMES[method],
        "band": 1 if method == "sonew" else None,
        "lr": lr,
        "lr_rule": "epochs",
        "schedule_steps": 10 * len(losses),
        "seed": seed,
        "steps": 10 * len(losses),
        "batch": 100,
        "hyper": {"lr": lr, "beta1": 0.9, "gamma": None},
        "data": {"name": "images", "examples": 1000, "sha256": "0" * 64},
        "machine": {"device": "Some CPU", "type": "cpu", "threads": 2, "torch": "2.13.0"},
        "load_before": 0.5,
        "loss": losses[-1],
        "losses": list(losses),
        "losses_every": 10,
        "wall_s": 1.0,
        "optimizer_s": 0.5,
        "step_s": 0.1,
        "optimizer_step_s": 0.01,
        "state_bytes": 3 * 2**20,
        "fallback": None,
        "plans": [],
        "date": "2026-01-01T00:00:00+00:00",
    }
    return entry | changed
