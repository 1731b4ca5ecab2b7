"""The one clock: interleaved timing, paired ratios, baselines measured in the same run.

Machines drift (frequency, neighbours, heat), so single times are not compared: every workload is timed once per round, in
an order shuffled anew each round, and two workloads are compared by their per-round ratios.

torch is loaded where it is measured: processes that time JAX have this clock too, and no torch.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from sonew.errors import InvalidConfigError

if TYPE_CHECKING:
    import torch

Work = Callable[[], object]
Clock = Callable[[Work, int], float]

REPORTED_ROUNDS: Final = 7  # fewest rounds behind a number that is stored or shown
TARGET_SAMPLE_S: Final = 0.02  # long against the timers' resolution, short against a machine's drift
MAX_REPETITIONS: Final = 10_000
CALIBRATING_CALLS: Final = 5
MOST_COPIES: Final = 2048
ALIGNMENT: Final = 512  # bytes between the starts of copies that share an allocation, as far apart as a GPU's allocator puts tensors
_RESAMPLES: Final = 2000
_CONFIDENCE: Final = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Samples:
    """Times of one workload, one per round, in the order of the rounds.

    Attributes:
        times_ms: milliseconds per call.
        repetitions: calls per sample.
    """

    times_ms: tuple[float, ...]
    repetitions: int = 1

    def _percentile(self, percent: float) -> float:
        return float(np.percentile(self.times_ms, percent))

    @property
    def median_ms(self) -> float:
        """Median time of a call."""
        return self._percentile(50)

    @property
    def p20_ms(self) -> float:
        """20th percentile."""
        return self._percentile(20)

    @property
    def p80_ms(self) -> float:
        """80th percentile."""
        return self._percentile(80)

    @property
    def spread(self) -> float:
        """Distance of the 20th and 80th percentiles as a share of the median."""
        return (self.p80_ms - self.p20_ms) / self.median_ms


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of times with a 95 % interval; below 1 the first workload is the faster one."""

    median: float
    low: float
    high: float

    def inverse(self) -> Ratio:
        """The ratio seen from the other workload: a speed-up instead of a share of time."""
        return Ratio(1 / self.median, 1 / self.high, 1 / self.low)


def cpu_clock(work: Work, repetitions: int) -> float:
    """Seconds that `repetitions` calls take on the host."""
    start = time.perf_counter()
    for _ in range(repetitions):
        work()
    return time.perf_counter() - start


def cuda_clock(work: Work, repetitions: int) -> float:
    """Seconds between two events around `repetitions` calls; launch gaps count where the device waits for the host."""
    import torch  # noqa: PLC0415  # see above

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repetitions):
        work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


CLOCKS: Final[Mapping[str, Clock]] = {"cpu": cpu_clock, "cuda": cuda_clock}
WARM_S: Final[Mapping[str, float]] = {"cpu": 0.01, "cuda": 0.2}  # of work before the first sample: an idle device runs at a low clock


def _calibrate(work: Work, clock: Clock, target_s: float) -> int:
    """Calls per sample: enough to last `target_s`. The first call warms up and is not counted.

    The fastest of a few calls decides: one call that the machine held up would leave the workload with short samples, in which
    the cold first call weighs more than in the samples it is compared with.
    """
    clock(work, 1)
    spent, fastest = 0.0, math.inf
    for _ in range(CALIBRATING_CALLS):
        seconds = max(clock(work, 1), 1e-9)
        spent, fastest = spent + seconds, min(fastest, seconds)
        if spent >= target_s:
            break
    return max(1, min(MAX_REPETITIONS, round(target_s / fastest)))


def _warm(work: Iterable[Work], clock: Clock, seconds: float) -> None:
    """Keep the device busy for so long, every workload in its turn."""
    end, calls = time.perf_counter() + seconds, list(work)
    for call in itertools.cycle(calls):
        clock(call, 1)
        if time.perf_counter() >= end:
            return


def interleave(
    work: Mapping[str, Work],
    *,
    rounds: int = REPORTED_ROUNDS,
    device: str = "cpu",
    target_sample_s: float = TARGET_SAMPLE_S,
    seed: int = 0,
    deadline: float | None = None,
    fewest: int = 1,
    stop: Callable[[Mapping[str, Sequence[float]]], bool] | None = None,
    clock: Clock | None = None,
) -> dict[str, Samples]:
    """Time workloads against each other.

    Args:
        work: named workloads, each called without arguments, over and over: every call must cost the same.
        rounds: samples per workload, at least 1; reported numbers need `REPORTED_ROUNDS`.
        device: "cpu" or "cuda", chooses the clock.
        target_sample_s: how long one sample lasts; a workload that is slower is called once per sample.
        seed: of the order inside the rounds.
        deadline: `time.monotonic()` after which no further round is begun. fewest: rounds that are begun whatever the deadline.
        stop: asked after each round with the milliseconds so far; True ends the run early.
        clock: seconds for n calls of a workload, instead of the device's own clock.

    Returns:
        Samples per name; sample i of every workload was taken in round i.

    Raises:
        InvalidConfigError: no workload, no round or an unknown device.
    """
    if device not in CLOCKS:
        msg = f"device={device!r} has no clock: it must be one of {list(CLOCKS)}. Pass the device's type."
        raise InvalidConfigError(msg)
    if rounds < 1 or not work:
        msg = f"rounds={rounds} over {len(work)} workloads measures nothing: both must be at least 1. Pass rounds={REPORTED_ROUNDS}."
        raise InvalidConfigError(msg)
    chosen = clock or CLOCKS[device]
    if clock is None:
        _warm(work.values(), chosen, WARM_S[device])
    repetitions = {name: _calibrate(call, chosen, target_sample_s) for name, call in work.items()}
    times: dict[str, list[float]] = {name: [] for name in work}
    order, shuffler = list(work), random.Random(seed)  # noqa: S311  # an order, not a secret
    for done in range(rounds):
        if done >= max(fewest, 1) and deadline is not None and time.monotonic() > deadline:
            break
        shuffler.shuffle(order)
        for name in order:
            times[name].append(1000 * chosen(work[name], repetitions[name]) / repetitions[name])
        if stop is not None and stop(times):
            break
    return {name: Samples(tuple(values), repetitions[name]) for name, values in times.items()}


def rotate(copies: Sequence[Work]) -> Work:
    """One workload that takes turns over copies with buffers of their own, so that each call finds its data cold.

    In training the caches belong to the model between two steps: a small problem timed over and over on the same buffers would
    be timed in the cache.
    """
    if len(copies) == 1:
        return copies[0]
    turns = itertools.cycle(copies)

    def next_copy() -> object:
        return next(turns)()

    return next_copy


def copies_beyond_cache(held_bytes: int, cache_bytes: int, *, most: int = MOST_COPIES) -> int:
    """How many copies of buffers of so many bytes leave a cache of that size behind: twice its size together, at most `most`.

    Where `most` decides, or what `cache_bytes` does not know of (a memory-side cache, a hypervisor's slice of a larger one), a
    call may find a part of its data in a cache.
    """
    return max(1, min(most, math.ceil(2 * cache_bytes / max(held_bytes, 1))))


def paired_ratio(a: Samples, b: Samples, *, seed: int = 0) -> Ratio:
    """Median of the per-round ratios a / b, with the bootstrap's 95 % interval of that median.

    Raises:
        InvalidConfigError: the samples do not come from the same rounds.
    """
    if len(a.times_ms) != len(b.times_ms) or not a.times_ms:
        msg = f"samples of {len(a.times_ms)} and {len(b.times_ms)} rounds cannot be paired. Take both from one call of interleave."
        raise InvalidConfigError(msg)
    ratios = np.asarray(a.times_ms) / np.asarray(b.times_ms)
    drawn = np.random.default_rng(seed).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), _CONFIDENCE)
    return Ratio(float(np.median(ratios)), float(low), float(high))


def unpaired_ratio(a: Samples, b: Samples, *, seed: int = 0) -> Ratio:
    """Median of a over median of b, of runs that shared no rounds, with the bootstrap's 95 % interval: what drifts between them counts."""
    rng = np.random.default_rng(seed)
    medians = [np.median(rng.choice(samples.times_ms, (_RESAMPLES, len(samples.times_ms))), axis=1) for samples in (a, b)]
    low, high = np.percentile(medians[0] / medians[1], _CONFIDENCE)
    return Ratio(a.median_ms / b.median_ms, float(low), float(high))


def _slices(shapes: Sequence[tuple[int, ...]], itemsize: int, copies: int) -> tuple[list[slice], int]:
    """Where tensors of these shapes lie in one copy's part of an allocation, each aligned, and that part's elements."""
    step = ALIGNMENT // itemsize
    sizes = [math.prod(shape) for shape in shapes]
    *starts, end = itertools.accumulate((-(-size // step) * step for size in sizes), initial=0)
    places = [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    return places, end if copies > 1 or not places else places[-1].stop


def fused_adamw(
    shapes: Sequence[tuple[int, ...]], *, dtype: torch.dtype | None = None, device: str = "cpu", seed: int = 0, copies: int = 1
) -> Work:
    """The baseline of every speed: one step of `torch.optim.AdamW(fused=True)` over tensors of these shapes; None: torch's default type.

    With several copies each has its own parameters, gradients and state, and they take turns. All of it exists before the first call.
    """
    import torch  # noqa: PLC0415  # see above

    generator = torch.Generator(device).manual_seed(seed)
    places, length = _slices(shapes, (dtype or torch.get_default_dtype()).itemsize, copies)
    values, grads = (torch.randn((copies, length), dtype=dtype, device=device, generator=generator) for _ in range(2))
    averages, squares = torch.zeros_like(values), torch.zeros_like(values)
    steps: list[Work] = []
    for buffers in zip(values, grads, averages, squares, strict=True):
        tensors = [[own[place].view(shape) for own in buffers] for place, shape in zip(places, shapes, strict=True)]
        optimizer = torch.optim.AdamW([param for param, *_ in tensors], lr=1e-6, fused=True)
        for param, grad, average, square in tensors:
            param.grad = grad
            count = torch.zeros((), dtype=torch.float32, device=device)
            optimizer.state[param] = {"step": count, "exp_avg": average, "exp_avg_sq": square}  # as its first step would make them
        steps.append(optimizer.step)
    return rotate(steps)


def copy_roof(elements: int, *, dtype: torch.dtype | None = None, device: str = "cpu", copies: int = 1) -> Work:
    """The memory system's own pace: a copy of so many elements, over several pairs of buffers in turn; None: torch's default type."""
    import torch  # noqa: PLC0415  # see above

    (place,), length = _slices([(elements,)], (dtype or torch.get_default_dtype()).itemsize, copies)
    sources = torch.ones((copies, length), dtype=dtype, device=device)
    targets = torch.zeros_like(sources)
    return rotate([partial(target[place].copy_, source[place]) for target, source in zip(targets, sources, strict=True)])


def roof_share(*, bytes_moved: float, time_ms: float, copy_bytes: float, copy_ms: float) -> float:
    """Bytes per second of a workload as a share of the copy's bytes per second in the same run."""
    return (bytes_moved / time_ms) / (copy_bytes / copy_ms)
