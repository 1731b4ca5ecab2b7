from __future__ import annotations

import pytest
import torch

from sonew.torch import SONew
from sonew_kernels.traffic import direction_bytes
from sonew_perf.steps.cases import fixed_tensors
from sonew_perf.steps.peers import (
    COMPILED,
    COPY,
    DIRECTION,
    EAGER,
    FAMILIES,
    FOREACH,
    FUSED,
    GRAPH,
    REFERENCE,
    SONEW,
    Method,
    _same_state,
    prepare,
)
from sonew_perf.steps.workloads import Workload

CPU = torch.device("cpu")
SMALL = Workload("small", ((30, 20), (7,)))
METHODS = (
    Method(family=FUSED),
    Method(family=FOREACH),
    Method(family=SONEW, band=1, ways=(EAGER, GRAPH, DIRECTION)),
    Method(family=SONEW, band=4, state="bfloat16", ways=(EAGER, GRAPH, DIRECTION)),
    Method(family=COMPILED, band=1, compiler="eager"),
    Method(family=REFERENCE, band=1, ways=(EAGER,)),
)


def test_names_say_family_band_type_and_way() -> None:
    assert METHODS[3].case_names == ("SONew band 4 bf16, eager", "SONew band 4 bf16, graph", "SONew band 4 bf16, direction")
    assert METHODS[0].case_names == ("AdamW fused, eager", "AdamW fused, graph")
    assert Method(family=COPY, ways=(EAGER,)).case_names == ("copy",)
    assert {method.family for method in METHODS} == set(FAMILIES)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_every_way_of_every_method_does_its_work_on_the_shared_parameters(method: Method) -> None:
    params = fixed_tensors(SMALL, CPU)
    ready = prepare(method, params)
    for way in method.ways:
        case = ready.timed(way)
        assert (case.name, case.settings["way"]) == (method.case(way), way)
        assert (case.optimizer is None) == (way == DIRECTION)
        assert case.settings.get("launched", "") == ("eager: a CPU has no graphs" if way == GRAPH else "")
        held = [tensor for state in ready.optimizer.state.values() for tensor in state.values()] if ready.optimizer else []
        before = [tensor.clone() for tensor in (*params, *held)]
        case.work()
        assert any(not torch.equal(old, new) for old, new in zip(before, (*params, *held), strict=True))


def test_the_direction_phase_states_its_nominal_bytes() -> None:
    params = fixed_tensors(SMALL, CPU)
    ready = prepare(METHODS[2], params)
    assert ready.timed(DIRECTION).settings["bytes"] == 607 * 32
    narrow = prepare(METHODS[3], params).timed(DIRECTION)
    assert narrow.settings["bytes"] == 607 * direction_bytes(4, state_bytes=2, direction_bytes=2) == 607 * 30


def test_a_graph_works_on_the_state_of_its_eager_form() -> None:
    """Or a model of a billion parameters would not fit twice."""
    for method in METHODS[:4]:
        params = fixed_tensors(SMALL, CPU)
        ready = prepare(method, params)
        assert ready.optimizer is not None
        twin = _same_state(ready.optimizer, FAMILIES[method.family].make(method, params, False))
        counts = [state[name].item() for state in ready.optimizer.state.values() for name in ("count", "step") if name in state]
        twin.step()
        assert [state[name].item() for state in ready.optimizer.state.values() for name in ("count", "step") if name in state] == [
            count + 1 for count in counts
        ]
        for param in params:
            for name, value in ready.optimizer.state[param].items():
                assert twin.state[param][name].data_ptr() == value.data_ptr()


def test_ours_is_stepped_by_the_backend_made_for_the_device() -> None:
    ready = prepare(METHODS[2], fixed_tensors(SMALL, CPU))
    assert isinstance(ready.optimizer, SONew)
    assert [plan.backend for plan in ready.optimizer.plans()] == ["cpu"]
    with pytest.raises(RuntimeError, match="reference band 1 has no direction phase"):
        prepare(METHODS[5], fixed_tensors(SMALL, CPU)).timed(DIRECTION)


@pytest.mark.parametrize("state", ["float32", "bfloat16"])
def test_the_direction_phase_works_on_numbers(state: str) -> None:
    """Its corrections are there: divisions by zero would take another time, and say nothing."""
    case = prepare(Method(family=SONEW, band=2, state=state, ways=(DIRECTION,)), fixed_tensors(SMALL, CPU)).timed(DIRECTION)
    case.work()
    table = case.work.__self__.table  # type: ignore[attr-defined]  # a step group's bound method
    assert torch.isfinite(table.direction).all()
    assert table.direction.any()
    assert (table.partials > 0).all()
