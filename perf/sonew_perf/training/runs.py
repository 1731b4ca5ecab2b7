"""Training the autoencoder with each method over a grid of learning rates and several seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import torch

from sonew.torch import SONew
from sonew_perf.errors import DataError
from sonew_perf.machine import describe, describe_plans
from sonew_perf.records.files import Entry
from sonew_perf.training import autoencoder
from sonew_perf.training.fallback import fallback_share
from sonew_perf.training.idx import ImageSet

LR_RULE: Final = "constant"
LAST_STEPS: Final = 20  # a run's result is its mean loss over these
HYPER: Final[Mapping[str, Any]] = {"betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.0}  # SONew's defaults, for every method


def _sonew(params: Iterable[torch.Tensor], lr: float, band: int, *, state: str = "float32") -> torch.optim.Optimizer:
    settings = {"betas": tuple(HYPER["betas"]), "eps": HYPER["eps"], "weight_decay": HYPER["weight_decay"]}
    return SONew(params, lr=lr, band=band, state_dtype=state, direction_dtype=state, **settings)


def _adamw(params: Iterable[torch.Tensor], lr: float, _band: int) -> torch.optim.Optimizer:
    settings = {"betas": tuple(HYPER["betas"]), "eps": HYPER["eps"], "weight_decay": HYPER["weight_decay"]}
    return torch.optim.AdamW(params, lr=lr, fused=True, **settings)


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train: how its optimizer is made from (parameters, learning rate, band), and whether it has a band."""

    label: str
    build: Callable[[Iterable[torch.Tensor], float, int], torch.optim.Optimizer]
    has_band: bool


METHODS: Final[Mapping[str, Method]] = {
    "sonew": Method("SONew", _sonew, has_band=True),
    "sonew-bf16-state": Method("SONew, bf16 state,", partial(_sonew, state="bfloat16"), has_band=True),
    "adamw": Method("AdamW", _adamw, has_band=False),
}
BASELINE: Final = "adamw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run: what a resumed grid looks for in the record, beside the machine and the data.

    Attributes:
        method: key of `METHODS`. band: off-diagonals, 0 for a method without a band.
        lr: learning rate. seed: of the weights and of the order of the images.
        steps: optimizer steps. batch: images per step.
    """

    method: str
    band: int
    lr: float
    seed: int
    steps: int
    batch: int

    @property
    def label(self) -> str:
        """The method as tables name it."""
        method = METHODS[self.method]
        return f"{method.label} band {self.band}" if method.has_band else method.label


def grid(
    methods: Sequence[str], bands: Sequence[int], rates: Sequence[float], seeds: Sequence[int], *, steps: int, batch: int
) -> list[Run]:
    """Every run, ordered so that a grid that was stopped early has whole seeds."""
    variants = [(name, band) for name in methods for band in (bands if METHODS[name].has_band else (0,))]
    return [
        Run(method=name, band=band, lr=lr, seed=seed, steps=steps, batch=batch) for seed in seeds for name, band in variants for lr in rates
    ]


def identity(run: Run, images: ImageSet, machine: Mapping[str, str | int]) -> Entry:
    """What an entry must agree on to be this run's result."""
    return {
        "kind": "training run",
        "task": "autoencoder",
        "method": run.method,
        "band": run.band,
        "lr": run.lr,
        "lr_rule": LR_RULE,
        "seed": run.seed,
        "steps": run.steps,
        "batch": run.batch,
        "hyper": dict(HYPER),
        "images": {"count": len(images.pixels), "sha256": images.sha256},
        "machine": dict(machine),
    }


def find_result(entries: Iterable[Entry], wanted: Entry) -> Entry | None:
    """The recorded result with this identity, if there is one."""
    return next((entry for entry in entries if all(entry.get(name) == value for name, value in wanted.items())), None)


class StepClock:
    """Time spent in spans of work; on a GPU by events, so that measuring makes nobody wait."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._spans: list[tuple[Any, Any]] = []

    def _mark(self) -> Any:  # noqa: ANN401  # seconds or an event
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def span(self) -> Iterator[None]:
        """Count what runs inside."""
        start = self._mark()
        yield
        self._spans.append((start, self._mark()))

    def seconds(self) -> float:
        """Total of the spans."""
        if not self._on_gpu:
            return float(sum(end - start for start, end in self._spans))
        torch.cuda.synchronize()
        return float(sum(start.elapsed_time(end) for start, end in self._spans)) / 1e3


def batches(images: int, batch: int, steps: int, seed: int) -> Iterator[torch.Tensor]:
    """Indices of each step's images: every epoch a new permutation, cut into whole batches."""
    generator = torch.Generator().manual_seed(seed)
    per_epoch = images // batch
    order = torch.empty(0)
    for step in range(steps):
        place = step % per_epoch
        if place == 0:
            order = torch.randperm(images, generator=generator)
        yield order[place * batch : (place + 1) * batch]


def check_images(images: ImageSet, batch: int) -> None:
    """Raises DataError unless the images suit the model and fill a batch."""
    count, pixels = images.pixels.shape
    if pixels != autoencoder.PIXELS:
        msg = f"the images have {pixels} pixels, the autoencoder takes {autoencoder.PIXELS} (28 x 28). Use MNIST-sized images."
        raise DataError(msg)
    if count < batch:
        msg = f"batch={batch} is not allowed with {count} images: it must be at most their number. Pass --batch {count} or less."
        raise DataError(msg)


def _finite(value: float) -> float | None:
    """Six significant digits, None for what JSON cannot say."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def train(run: Run, pixels: torch.Tensor, device: torch.device) -> Entry:
    """Train once.

    Args:
        run: what to train.
        pixels: uint8 (images, 784) on the device.
        device: where.

    Returns:
        The result's part of an entry: `loss` (mean of the last 20 steps, null when it is not finite), `losses` of every
        step before that step's update, `wall_s`, `optimizer_s` (its share inside `step()`), `fallback` (of the last step, null
        for other methods), `plans`, `date`.
    """
    model = autoencoder.build(run.seed, device)
    optimizer = METHODS[run.method].build(model.parameters(), run.lr, run.band)
    clock = StepClock(device)
    losses: list[torch.Tensor] = []
    fallback = None
    start = time.perf_counter()
    for chosen in batches(len(pixels), run.batch, run.steps, run.seed):
        batch = pixels[chosen.to(device)].to(torch.float32).div_(255)
        optimizer.zero_grad()
        value = autoencoder.loss(model, batch)
        value.backward()
        if len(losses) == run.steps - 1 and isinstance(optimizer, SONew):
            fallback = fallback_share(optimizer)
        with clock.span():
            optimizer.step()
        losses.append(value.detach())
    curve = torch.stack(losses).tolist()  # waits for the device
    wall = time.perf_counter() - start
    last = curve[-LAST_STEPS:]
    return {
        "loss": _finite(sum(last) / len(last)),
        "losses": [_finite(value) for value in curve],
        "wall_s": round(wall, 4),
        "optimizer_s": round(clock.seconds(), 4),
        "fallback": None if fallback is None else _finite(fallback),
        "plans": describe_plans(optimizer),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def train_all(runs: Sequence[Run], images: ImageSet, device: torch.device, record: Sequence[Entry]) -> Iterator[tuple[Entry, bool]]:
    """The entry of every run in order, and whether it is new: runs that the record holds are not trained again.

    Raises:
        DataError: the images do not suit the runs.
    """
    check_images(images, max(run.batch for run in runs))
    pixels = torch.from_numpy(images.pixels.copy()).to(device)
    machine = describe(device)
    for run in runs:
        wanted = identity(run, images, machine)
        known = find_result(record, wanted)
        yield (known, False) if known is not None else (wanted | train(run, pixels, device), True)
