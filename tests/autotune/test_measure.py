"""The clock: pairing, calibration and ratios, on synthetic times."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from sonew.errors import InvalidConfigError
from sonew_autotune.measure import (
    ALIGNMENT,
    MOST_COPIES,
    WARM_S,
    Ratio,
    Samples,
    Work,
    copies_beyond_cache,
    copy_roof,
    fused_adamw,
    interleave,
    paired_ratio,
    roof_share,
    rotate,
)


class FakeClock:
    """Workloads take what `cost` says, times a drift that doubles from sample to sample of a round."""

    def __init__(self, cost: Callable[[str], float], drift: Callable[[int], float] = lambda _: 1.0) -> None:
        self.cost = cost
        self.drift = drift
        self.calls: list[tuple[str, int]] = []

    def __call__(self, work: Work, repetitions: int) -> float:
        name = str(work())
        self.calls.append((name, repetitions))
        return repetitions * self.cost(name) * self.drift(len(self.calls))


def _named(*names: str) -> dict[str, Work]:
    return {name: partial(str, name) for name in names}


def test_interleave_times_every_workload_once_per_round_in_changing_order() -> None:
    clock = FakeClock(lambda name: {"a": 0.005, "b": 0.01, "c": 0.5}[name])
    samples = interleave(_named("a", "b", "c"), rounds=8, target_sample_s=0.02, clock=clock)
    assert {name: taken.repetitions for name, taken in samples.items()} == {"a": 4, "b": 2, "c": 1}
    for name, cost in (("a", 5.0), ("b", 10.0), ("c", 500.0)):
        assert samples[name].times_ms == pytest.approx([cost] * 8)
    rounds = [tuple(name for name, _ in clock.calls[start : start + 3]) for start in range(len(clock.calls) - 24, len(clock.calls), 3)]
    assert all(set(order) == {"a", "b", "c"} for order in rounds)
    assert len(set(rounds)) > 1
    again = FakeClock(clock.cost)
    interleave(_named("a", "b", "c"), rounds=8, target_sample_s=0.02, clock=again)
    assert again.calls == clock.calls


def test_one_slow_calibrating_call_does_not_shorten_the_samples() -> None:
    clock = FakeClock(lambda _: 0.001, drift=lambda call: 15.0 if call == 2 else 1.0)
    samples = interleave(_named("a"), rounds=1, target_sample_s=0.02, clock=clock)
    assert samples["a"].repetitions == 20


def test_ratios_are_of_the_same_round_so_drift_cancels() -> None:
    drift = FakeClock(lambda name: {"a": 0.02, "b": 0.04}[name], drift=lambda call: 1.5 ** (call // 2))
    samples = interleave(_named("a", "b"), rounds=9, target_sample_s=0.02, clock=drift)
    assert samples["a"].spread > 1
    ratio = paired_ratio(samples["a"], samples["b"])
    assert 0.5 / 1.5 <= ratio.low <= ratio.median <= ratio.high <= 0.5 * 1.5


def test_stop_and_deadline_end_early_but_never_before_the_first_round() -> None:
    clock = FakeClock(lambda _: 0.02)
    stopped = interleave(_named("a", "b"), rounds=9, clock=clock, stop=lambda times: len(times["a"]) == 2)
    assert [len(taken.times_ms) for taken in stopped.values()] == [2, 2]
    late = interleave(_named("a"), rounds=9, clock=clock, deadline=time.monotonic() - 1)
    assert len(late["a"].times_ms) == 1
    kept = interleave(_named("a"), rounds=9, clock=clock, deadline=time.monotonic() - 1, fewest=7)
    assert len(kept["a"].times_ms) == 7


@pytest.mark.parametrize(("arguments", "match"), [({"rounds": 0}, "rounds=0"), ({"device": "tpu"}, r"device='tpu'.*cpu.*cuda")])
def test_interleave_refuses(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidConfigError, match=match):
        interleave(_named("a"), **arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match="0 workloads"):
        interleave({})


def test_samples_statistics() -> None:
    samples = Samples((1.0, 2.0, 3.0, 4.0, 10.0))
    assert (samples.median_ms, samples.p20_ms, samples.p80_ms) == pytest.approx((3.0, 1.8, 5.2))
    assert samples.spread == pytest.approx(3.4 / 3)


def test_paired_ratio_of_known_ratios() -> None:
    base = np.array([1.0, 5.0, 2.0, 8.0, 3.0, 4.0, 7.0])
    exact = paired_ratio(Samples(tuple(0.8 * base)), Samples(tuple(base)))
    assert (exact.median, exact.low, exact.high) == pytest.approx((0.8, 0.8, 0.8))
    assert exact.inverse().median == pytest.approx(1.25)
    ratios = np.array([0.7, 0.9, 0.95, 1.0, 1.05, 1.2, 1.4])
    noisy = paired_ratio(Samples(tuple(ratios * base)), Samples(tuple(base)))
    assert noisy.median == pytest.approx(1.0)
    assert 0.7 <= noisy.low < 1.0 < noisy.high <= 1.4
    assert noisy == paired_ratio(Samples(tuple(ratios * base)), Samples(tuple(base)))
    assert Ratio(0.5, 0.4, 0.8).inverse() == Ratio(2.0, 1.25, 2.5)
    with pytest.raises(InvalidConfigError, match="7 and 1 rounds"):
        paired_ratio(Samples(tuple(base)), Samples((1.0,)))


def test_roof_share_is_a_ratio_of_bytes_per_second() -> None:
    assert roof_share(bytes_moved=44, time_ms=10, copy_bytes=8, copy_ms=2) == pytest.approx(1.1)


def test_baselines_do_their_work() -> None:
    step = fused_adamw([(3, 5), (7,)])
    optimizer = step.__self__  # type: ignore[attr-defined]
    params = optimizer.param_groups[0]["params"]
    plain = [param.detach().clone().requires_grad_() for param in params]
    for clone, param in zip(plain, params, strict=True):
        clone.grad = param.grad.clone()
    assert [tuple(param.shape) for param in params] == [(3, 5), (7,)]
    assert optimizer.param_groups[0]["fused"] is True
    step()
    torch.optim.AdamW(plain, lr=1e-6, fused=False, foreach=False).step()
    for clone, param in zip(plain, params, strict=True):
        torch.testing.assert_close(param, clone.detach())

    copy = copy_roof(9, dtype=torch.bfloat16)
    assert isinstance(copy, partial)
    target, (source,) = copy.func.__self__, copy.args  # type: ignore[attr-defined]
    assert not target.any()
    copy()
    assert torch.equal(target, torch.ones(9, dtype=torch.bfloat16))
    assert source.shape == (9,)


def _turns(work: Work, count: int) -> list[Any]:
    """What a rotation of so many copies calls, in order."""
    turns = inspect.getclosurevars(work).nonlocals["turns"]
    return [next(turns) for _ in range(count)]


def test_copies_of_the_baselines_share_no_memory_and_are_aligned() -> None:
    copy = copy_roof(1001, copies=3)
    pairs = [(turn.func.__self__, turn.args[0]) for turn in _turns(copy, 3)]
    addresses = sorted(tensor.data_ptr() for pair in pairs for tensor in pair)
    assert len(addresses) == 6
    assert min(np.diff(addresses)) >= 1001 * 4
    assert len({target.data_ptr() % ALIGNMENT for target, _ in pairs}) == 1

    step = fused_adamw([(3, 5), (7,)], copies=2)
    optimizers = [turn.__self__ for turn in _turns(step, 2)]
    params = [param for optimizer in optimizers for param in optimizer.param_groups[0]["params"]]
    assert [tuple(param.shape) for param in params] == [(3, 5), (7,)] * 2
    states = [optimizer.state[param] for optimizer in optimizers for param in optimizer.param_groups[0]["params"]]
    held = [tensor.data_ptr() for state, param in zip(states, params, strict=True) for tensor in (param, param.grad, *state.values())]
    assert len(set(held)) == 4 * 5
    before = [param.clone() for param in params]
    step()
    assert [bool((param != old).any()) for param, old in zip(params, before, strict=True)] == [True, True, False, False]


def test_the_cpu_clock_takes_real_time() -> None:
    samples = interleave({"sleep": lambda: time.sleep(0.002)}, rounds=2, target_sample_s=0.004)
    assert min(samples["sleep"].times_ms) >= 2.0


def test_copies_take_turns() -> None:
    called: list[str] = []
    turning = rotate([partial(called.append, name) for name in "abc"])
    for _ in range(5):
        turning()
    assert called == ["a", "b", "c", "a", "b"]


@pytest.mark.parametrize(
    ("held", "cache", "copies"),
    [(2**20, 2**25, 64), (2**19, 2**25, 128), (3 * 2**20, 2**25, 22), (2**27, 2**25, 1), (0, 2**25, MOST_COPIES)],
)
def test_copies_leave_the_cache_behind(held: int, cache: int, copies: int) -> None:
    assert copies_beyond_cache(held, cache) == copies
    assert copies_beyond_cache(held, cache, most=5) == min(copies, 5)


def test_the_device_is_warm_before_the_first_sample() -> None:
    calls: list[float] = []
    interleave({"a": lambda: calls.append(time.perf_counter())}, rounds=1, target_sample_s=1e-6)
    assert calls[-1] - calls[0] >= WARM_S["cpu"] * 0.5
