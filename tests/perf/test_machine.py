from __future__ import annotations

import torch

import sonew
import sonew.torch
from sonew_perf.machine import describe, describe_plans, headline


def test_the_machine_is_named_with_threads_and_versions() -> None:
    machine = describe(torch.device("cpu"))
    assert (machine["type"], machine["threads"]) == ("cpu", torch.get_num_threads())
    assert (machine["torch"], machine["sonew"]) == (torch.__version__, sonew.__version__)
    line = headline(machine)
    for name in ("device", "torch", "threads", "sonew"):
        assert str(machine[name]) in line


def test_only_our_optimizer_has_plans() -> None:
    params = [torch.ones(4, requires_grad=True)]
    params[0].grad = torch.ones(4)
    optimizer = sonew.torch.SONew(params, backend="reference")
    assert describe_plans(optimizer) == []
    optimizer.step()
    assert describe_plans(optimizer) == [
        {"backend": "reference", "kernel": "", "source_hash": "", "config": {}, "provenance": "nothing to tune"}
    ]
    assert describe_plans(torch.optim.AdamW(params)) == []
