from __future__ import annotations

import math

import pytest

from sonew.errors import InvalidConfigError
from sonew_kernels.spec import SUPPORTED_BANDS
from sonew_perf.gpu.plan import BANDS, FULL, JAX, JAX_TESTS, STAGES, JaxLadder, Scale, Tune, Unit, make_plan
from sonew_perf.gpu.run import BUDGET_S, Options, _allowed
from sonew_perf.gpu.targets import TARGETS
from sonew_perf.gpu.timing import Timing
from sonew_perf.jax.request import JaxTiming

PLAN = make_plan()


TIMINGS = {unit.name: unit.task for unit in PLAN if isinstance(unit.task, Timing | JaxTiming)}


def test_the_plan_has_every_stage_in_order_under_names_of_their_own_and_fits_the_budget() -> None:
    assert list(dict.fromkeys(unit.stage for unit in PLAN)) == list(STAGES)
    assert len({unit.name for unit in PLAN}) == len(PLAN)
    assert sum(unit.seconds for unit in PLAN if unit.stage != JAX) <= BUDGET_S < 600, "JAX's part may need a second call"
    assert [unit.stage for unit in make_plan(stages=("bench",))] == ["bench"] * 9


def test_every_band_is_tuned_and_timed_on_a_64_mi_tensor_beside_a_copy() -> None:
    assert set(BANDS) <= set(SUPPORTED_BANDS)
    tuned = [unit.task for unit in PLAN if isinstance(unit.task, Tune)]
    assert [task.band for task in tuned] == list(BANDS)
    assert all(task.sizes == (2**26,) for task in tuned)
    for band in BANDS:
        timing = TIMINGS[f"64 Mi, band {band}"]
        assert timing.workload.elements == 2**26
        assert {"copy", f"SONew band {band}, direction", f"SONew band {band} bf16, direction"} <= set(timing.case_names)


def test_whole_models_meet_their_peers_eager_and_as_graphs() -> None:
    cases = {unit.name: unit.task.case_names for unit in PLAN if unit.stage == "models" and isinstance(unit.task, Timing)}
    assert list(cases)[:2] == ["mnist-autoencoder", "gpt2-small"]
    assert [name.partition(",")[0] for name in list(cases)[2:]] == ["llama-1b"] * 4
    for names in cases.values():
        assert {"AdamW fused, eager", "AdamW fused, graph", "AdamW foreach, eager"} <= set(names)
        assert len(set(names)) == len(names)
    assert {"torch.compile band 1, graph", "reference band 1, eager"} <= set(cases["mnist-autoencoder"])
    llama = TIMINGS["llama-1b, band 1 float32"]
    assert (len(llama.workload.shapes), sum(math.prod(shape) for shape in llama.workload.shapes)) == (147, 1_204_881_408)


def test_every_target_names_cases_that_the_plan_measures() -> None:
    assert len(TARGETS) == 22
    for target in TARGETS:
        assert target.case in TIMINGS[target.unit].case_names
        assert target.against in TIMINGS[target.against_unit or target.unit].case_names
        if target.stretch is not None:
            better = target.stretch > target.reach if target.more else target.stretch < target.reach
            assert better, target.what


def test_jax_meets_adamw_and_its_own_xla_path_on_five_sizes_and_a_model() -> None:
    units = {unit.name: unit.task for unit in PLAN if unit.stage == JAX}
    assert list(units) == [JAX_TESTS, *(f"JAX, {size}" for size in ("1 Ki", "64 Ki", "1 Mi", "16 Mi", "64 Mi", "gpt2-small"))]
    assert units[JAX_TESTS] == JaxLadder()
    for task in list(units.values())[1:]:
        assert isinstance(task, JaxTiming)
        assert {"optax.adamw", "SONew band 1, Triton", "SONew band 1, XLA", "SONew band 4, Triton"} <= set(task.case_names)
        assert (len(task.workload.shapes), task.device) == (148 if task.workload.name == "gpt2-small" else 1, "cuda")


def test_elastic_units_share_what_the_others_leave_and_none_takes_more_than_there_is() -> None:
    first, *later = [unit for unit in PLAN if unit.elastic]
    fixed = Unit(stage="bench", name="fixed", seconds=40, task=FULL.ladder)
    assert _allowed(first, 200.0, [*later, fixed]) == (200 - 40) / len(BANDS)
    assert _allowed(first, 60.0, [*later, fixed]) == first.seconds
    assert _allowed(first, 5.0, [*later, fixed]) == 5.0
    assert _allowed(fixed, 1000.0, []) == 120.0
    assert _allowed(fixed, 50.0, []) == 50.0


def test_wrong_options_are_refused_with_the_allowed_values() -> None:
    with pytest.raises(InvalidConfigError, match=r"'warp' is not one of \['ladder', 'tune', 'bench', 'models', 'jax'\]"):
        Options(stages=("warp",))
    with pytest.raises(InvalidConfigError, match="budget=0 is not allowed"):
        Options(budget_s=0)
    with pytest.raises(ValueError, match="rounds=6 is below 7"):
        Scale(rounds=6)
