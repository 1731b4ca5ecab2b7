from __future__ import annotations

import itertools
import json

import pytest

from sonew.errors import InvalidConfigError
from sonew.registry import BACKENDS
from sonew_autotune.problems import MODELS, STATES
from sonew_kernels.spec import SPECS, SUPPORTED_BANDS
from sonew_perf.jax.request import LARGEST_XLA_BAND
from sonew_perf.steps.workloads import Workload
from sonew_perf.suite.estimates import LEAST_LIMIT_S, estimate_s, limit_s, needed_bytes
from sonew_perf.suite.groups import (
    EFFORTS,
    HOST,
    IMPORT,
    PHASE,
    SIZES,
    STEP,
    TUNER,
    Group,
    all_groups,
    band_sets,
    label,
    select,
)
from sonew_perf.suite.run import rounds_of
from tests.perf.suite.made import JAX, host_group, phase_group, step_group

GROUPS = all_groups()
BOTH = ("cpu", "cuda")


def _of(what: str) -> list[Group]:
    return [group for group in GROUPS if group.what == what]


def test_names_are_unique_and_fit_for_patterns() -> None:
    names = [group.name for group in GROUPS]
    assert len(set(names)) == len(names) > 100
    assert "step/torch/cpu/4Mi/float32/bands-1-4" in names
    assert "phases/torch/cuda/64Mi/bfloat16/bands-8-16" in names
    assert not any(set(name) & set("*?[] ") for name in names)
    assert [label(Workload("one tensor", ((size,),))) for size in (1000, 2048, 2**20)] == ["1000", "2Ki", "1Mi"]


def test_every_band_is_in_exactly_one_set() -> None:
    assert sorted(itertools.chain(*band_sets())) == sorted(SUPPORTED_BANDS)
    assert band_sets((1, 4, 32)) == [(1, 4), (32,)]  # a new band comes in by itself


def _axes(group: Group) -> list[dict[str, object]]:
    """The values of a group, once for every band of ours that it times."""
    bands = sorted({case["settings"]["band"] for case in group.cases if "band" in case["settings"]})
    shared = {"what": group.what, "framework": group.framework, "device": group.device, "workload": label(group.workload)}
    return [{**shared, "state": group.state, "band": band} for band in bands]


@pytest.mark.parametrize(("what", "framework"), [(STEP, "torch"), (STEP, "jax"), (PHASE, "torch")])
def test_every_pair_of_values_that_the_specs_know_is_measured(what: str, framework: str) -> None:
    workloads = [label(Workload("one tensor", ((size,),))) for size in SIZES] + ([] if what == PHASE else list(MODELS))
    devices = {row.device for row in BACKENDS if row.framework == framework and row.device} | {"cpu"}
    assert {spec.device for spec in SPECS.values()} == {"cpu", "gpu"}
    values: dict[str, list[object]] = {
        "device": [*sorted(devices)],
        "workload": list(workloads),
        "state": list(STATES if framework == "torch" else ["float32"]),
        "band": list(SUPPORTED_BANDS),
    }
    rows = [row for group in _of(what) if group.framework == framework for row in _axes(group)]
    for one, other in itertools.combinations(values, 2):
        found = {(row[one], row[other]) for row in rows}
        wanted = set(itertools.product(values[one], values[other]))
        if framework == "jax":  # XLA on a CPU unrolls wide bands, which takes it minutes
            wanted = {pair for pair in wanted if not (pair[0] == "cpu" and isinstance(pair[1], int) and pair[1] > LARGEST_XLA_BAND)}
        assert wanted <= found


def test_a_case_is_in_one_group_or_says_what_it_was_timed_beside() -> None:
    seen: dict[str, str] = {}
    for group in GROUPS:
        for case in group.cases:
            names = ("kernel", "case", "framework", "workload", "dtype", "settings")
            series = json.dumps([group.device, *(case.get(name) for name in names)], sort_keys=True)
            assert series not in seen, (seen.get(series), group.name, series)
            seen[series] = group.name


def test_phases_hosts_imports_and_tuners_have_their_cases() -> None:
    phases = [(case["case"], case["kernel"]) for case in phase_group(1, 4).cases]
    kernels = ("prologue", "direction", "norms", "update")
    assert phases == [(name, kernel) for name in ("SONew band 1", "SONew band 4") for kernel in kernels]
    assert {case["settings"]["gradients"] for case in host_group().cases} == {"stay", "new"}
    assert [[case["case"] for case in group.cases] for group in _of(IMPORT)] == [["sonew"], ["torch", "sonew.torch"], ["jax", "sonew.jax"]]
    assert sorted(group.device for group in _of(TUNER)) == ["cpu", "cuda"]
    assert len(_of(HOST)) == len(MODELS)


def test_each_effort_holds_the_one_before_it_and_full_holds_all() -> None:
    quick, normal, full = (select(GROUPS, effort=effort, devices=BOTH) for effort in EFFORTS)
    assert set(quick) < set(normal) < set(full) == set(GROUPS)
    on_cpu = select(GROUPS, effort="quick", devices=("cpu",))
    assert {group.what for group in on_cpu} == {STEP, PHASE, HOST, IMPORT}
    assert {group.framework for group in on_cpu} == {"torch", "jax", ""}
    assert sum(estimate_s(group, rounds_of(group, "quick")) for group in on_cpu) <= 60
    in_normal = select(GROUPS, effort="normal", devices=("cpu",))
    assert sum(estimate_s(group, rounds_of(group, "normal")) for group in in_normal) <= 240


def test_patterns_choose_and_one_without_a_group_names_the_fix() -> None:
    chosen = select(GROUPS, effort="quick", devices=("cpu",), only=["phases/*", "import/*"])
    assert [group.name for group in chosen] == ["phases/torch/cpu/4Mi/float32/bands-1-4", "import/sonew"]
    with pytest.raises(
        InvalidConfigError, match=r"'\*bands-6-7' matches none of the \d+ groups of effort quick on cpu\. .*--effort normal"
    ):
        select(GROUPS, effort="quick", devices=("cpu",), only=["*bands-6-7"])
    with pytest.raises(InvalidConfigError, match="--list --effort full"):
        select(GROUPS, effort="full", devices=("cpu",), only=["import/*", "nothing"])


def test_rounds_are_as_asked_or_as_the_effort_and_the_kind_are_worth() -> None:
    (importing,) = (group for group in _of(IMPORT) if group.framework == "torch")
    assert [rounds_of(group, "quick") for group in (step_group(1), host_group(), importing)] == [9, 27, 7]
    assert [rounds_of(group, "full", 21) for group in (step_group(1), importing)] == [21, 21]


def test_memory_and_time_grow_with_what_is_held() -> None:
    tensor = 4 * step_group(1).workload.elements  # type: ignore[union-attr]  # it has one
    # AdamW twice: parameters, gradients, two averages; the copy's two buffers; SONew band 1: momentum and two rows, and its direction
    assert needed_bytes(step_group(1)) >= (2 * 4 + 2 + 2 + 3) * tensor
    assert needed_bytes(step_group(4, state="bfloat16")) < needed_bytes(step_group(4))
    assert needed_bytes(phase_group(1)) < needed_bytes(step_group(1))
    assert needed_bytes(host_group()) == 0
    large = next(group for group in GROUPS if group.name == "step/torch/cpu/64Mi/float32/bands-8-16")
    assert limit_s(large, 9) > estimate_s(large, 9) > estimate_s(step_group(8, 16), 9)
    assert limit_s(step_group(1), 9) == LEAST_LIMIT_S
    assert [method.case for method in JAX.methods] == ["optax.adamw", "SONew band 0, XLA", "SONew band 1, XLA"]
