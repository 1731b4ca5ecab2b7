"""How much each parameter decides, by Optuna's PED-ANOVA."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from sonew_autotune.report.studies import Axes
from sonew_autotune.search.results import Record

FEWEST_TRIALS: Final = 12  # timed ones: below it the best of them are too few to compare with the rest
TOP_TRIALS: Final = 5  # that the evaluator is to see at least
TOP_SHARE: Final = 0.1


def top_share(trials: int) -> float:
    """The share of the trials that counts as the best."""
    return max(TOP_SHARE, TOP_TRIALS / trials)


def _distribution(values: Sequence[int]) -> BaseDistribution:
    """Positions among the values, as in `search.study`."""
    return IntDistribution(0, len(values) - 1) if len(values) > 2 else CategoricalDistribution(range(len(values)))


def importances(records: Sequence[Record], axes: Axes) -> dict[str, float]:
    """Share of each parameter, largest first: how differently the best trials are spread over its values than all trials.

    Empty where there are too few timed trials (`FEWEST_TRIALS`), and where no parameter tells the best from the rest.
    """
    usable = [record for record in records if record.ratio is not None and all(record.config.get(name) in values for name, values in axes)]
    varied = [(name, values) for name, values in axes if len({record.config[name] for record in usable}) > 1]
    if len(usable) < FEWEST_TRIALS or not varied:
        return {}
    distributions = {name: _distribution(values) for name, values in varied}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="minimize")
        study.add_trials(
            [
                create_trial(
                    params={name: values.index(record.config[name]) for name, values in varied},
                    distributions=distributions,
                    value=record.ratio.median if record.ratio is not None else None,
                )
                for record in usable
            ]
        )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=top_share(len(usable)))
        found = get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()} if all(map(math.isfinite, found.values())) and any(found.values()) else {}
