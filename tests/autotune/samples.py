"""Made-up measurements for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sonew_autotune.measure import Ratio, Samples
from sonew_autotune.trials.outcome import Failure
from sonew_autotune.trials.trial import Comparison, FinalRequest, Request, Timed, TrialRequest


def timed(ratio: float, default_ms: float = 2.0) -> Timed:
    """A trial in which every round had this ratio."""
    rounds = (default_ms, default_ms * 1.1, default_ms * 0.9)
    copy = Samples(tuple(0.05 * time for time in rounds))
    return Timed(Ratio(ratio, ratio, ratio), Samples(tuple(ratio * time for time in rounds)), Samples(rounds), copy)


class FakeMachine:
    """Answers trial requests by a cost function of the configuration, and remembers what was asked.

    Args:
        cost: milliseconds of a configuration, or the failure that it meets.
        noise: of the final comparison's rounds, as factors on the challenger's time.
        drift: of the same rounds, as factors on every time.
    """

    def __init__(
        self,
        cost: Callable[[Mapping[str, int]], float | Failure],
        noise: tuple[float, ...] = (1.0,) * 7,
        drift: tuple[float, ...] = (1.0, 1.3, 0.8, 1.1, 1.0, 0.9, 1.2),
    ) -> None:
        self.cost = cost
        self.drift = drift
        self.noise = noise
        self.tried: list[dict[str, int]] = []
        self.finals: list[FinalRequest] = []

    def answer(self, request: Request, _timeout_s: float) -> Timed | Comparison | Failure:
        """As `worker.Worker.answer`."""
        default = self.cost(request.subject.default)
        if isinstance(request, TrialRequest):
            self.tried.append(dict(request.config))
            cost = self.cost(request.config)
            if isinstance(cost, Failure) or isinstance(default, Failure):
                return cost if isinstance(cost, Failure) else Failure("error", "the default fails")
            return timed(cost / default, default)
        self.finals.append(request)
        best = min(request.finalists, key=lambda config: float(self.cost(config)))  # type: ignore[arg-type]
        work = {"default": default, "best": self.cost(best), "adamw": 0.5, "copy": 0.1}
        samples = {
            name: Samples(tuple(float(cost) * d * (n if name == "best" else 1) for d, n in zip(self.drift, self.noise, strict=True)))  # type: ignore[arg-type]
            for name, cost in work.items()
        }
        return Comparison(dict(best), samples, {"default": 1000, "best": 1010})
