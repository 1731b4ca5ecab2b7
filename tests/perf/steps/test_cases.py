from __future__ import annotations

import pytest
import torch

from sonew.torch import SONew
from sonew_perf.steps.cases import adamw_wanted, copy_case, phase_works, sonew_wanted, wanted_cases, whole_model
from sonew_perf.steps.workloads import Workload, one_tensor

CPU = torch.device("cpu")
SMALL = one_tensor(5000)


def _params(optimizer: torch.optim.Optimizer | None) -> list[torch.Tensor]:
    assert optimizer is not None
    params: list[torch.Tensor] = optimizer.param_groups[0]["params"]
    return params


def test_workloads_have_the_stated_tensors() -> None:
    assert one_tensor(4 * 2**20).elements == 4_194_304
    model = whole_model("mnist-autoencoder")
    assert (len(model.shapes), model.elements) == (16, 2_837_314)


def test_a_run_has_every_peer_band_and_mode_under_a_name_of_its_own() -> None:
    wanted = wanted_cases([1, 4], ["on", "off"], reference=True)
    names = [case.name for case in wanted]
    ours = ["SONew band 1", "SONew band 1, untuned", "SONew band 4", "SONew band 4, untuned", "reference, band 1", "reference, band 4"]
    assert names == ["AdamW fused", "AdamW foreach", "copy", *ours]
    assert [case.build(SMALL, CPU).name for case in wanted] == names
    assert not any("reference" in case.name for case in wanted_cases([1], reference=False))


def test_every_case_steps_the_same_numbers_in_memory_of_its_own() -> None:
    built = [case for case in (wanted.build(SMALL, CPU) for wanted in wanted_cases([1], reference=True)) if case.optimizer is not None]
    first = _params(built[0].optimizer)
    for case in built[1:]:
        for a, b in zip(first, _params(case.optimizer), strict=True):
            assert a.data_ptr() != b.data_ptr()
            assert torch.equal(a, b)
            assert a.grad is not None
            assert b.grad is not None
            assert torch.equal(a.grad, b.grad)


def test_the_peers_take_an_adamw_step_and_the_reference_the_same_step_as_ours() -> None:
    fused, foreach = (adamw_wanted(name).build(SMALL, CPU) for name in ("fused", "foreach"))
    wanted = sonew_wanted(0), sonew_wanted(0, backend="reference")  # a first step is well posed at band 0 only
    ours, plain = (each.build(SMALL, CPU) for each in wanted)
    for one, other in ((fused, foreach), (ours, plain)):
        before = _params(one.optimizer)[0].clone()
        one.work()
        other.work()
        stepped = _params(one.optimizer)[0]
        assert not torch.equal(stepped, before)
        torch.testing.assert_close(stepped, _params(other.optimizer)[0], rtol=1e-6, atol=1e-7)


def test_bands_and_modes_reach_the_optimizer() -> None:
    group = sonew_wanted(4, tuning="off", backend="reference").build(SMALL, CPU).optimizer
    assert isinstance(group, SONew)
    assert [group.param_groups[0][name] for name in ("band", "tuning", "backend")] == [4, "off", "reference"]


def test_the_copy_moves_every_element() -> None:
    case = copy_case(SMALL, CPU)
    case.work()
    target, (source,) = case.work.func.__self__, case.work.args  # type: ignore[attr-defined]  # a bound method and its argument
    assert source.numel() == target.numel() == SMALL.elements
    assert torch.equal(source, target)


@pytest.mark.parametrize("workload", [SMALL, whole_model("mnist-autoencoder")])
def test_the_phases_in_order_are_a_step(workload: Workload) -> None:
    whole, phased = (sonew_wanted(1).build(workload, CPU).optimizer for _ in range(2))
    assert isinstance(whole, SONew)
    assert isinstance(phased, SONew)
    for _ in range(2):
        whole.step()
    phased.step()
    works = phase_works(phased)
    assert list(works) == ["prologue", "direction", "norms", "update"]
    for work in works.values():
        work()
    for a, b in zip(_params(whole), _params(phased), strict=True):
        assert torch.equal(a, b)


def test_the_reference_has_no_phases_of_its_own() -> None:
    optimizer = sonew_wanted(1, backend="reference").build(SMALL, CPU).optimizer
    assert isinstance(optimizer, SONew)
    optimizer.step()
    assert phase_works(optimizer) == {}
