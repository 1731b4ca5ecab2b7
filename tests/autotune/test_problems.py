"""The problem list and the tensors behind it."""

from __future__ import annotations

import pytest
import torch

from sonew.dispatch import step
from sonew.errors import InvalidConfigError
from sonew_autotune.problems import BANDS, MODELS, Case, build_bench, build_group, cases_of
from sonew_autotune.settings import Problems
from sonew_kernels.spec import SPECS


def test_the_default_list_is_bands_by_sizes_and_a_model() -> None:
    cases = cases_of(Problems(), "cpu")
    assert [case.band for case in cases] == list(BANDS) * 3
    assert {case.name for case in cases} == {"65536", "4194304", "mnist-autoencoder"}
    autoencoder = next(case for case in cases if case.name == "mnist-autoencoder")
    assert (len(autoencoder.shapes), autoencoder.elements) == (16, 2837314)
    assert autoencoder.problem.median == 4250
    assert autoencoder.bytes_moved == 44 * autoencoder.elements  # band 1, float32: read g, u, p, m and 2 of H; write u, p, m and 2 of H


def test_everything_can_be_chosen() -> None:
    cases = cases_of(Problems(bands=(3, 3), sizes=(10, 20), dtypes=("bfloat16", "float32")), "cuda")
    assert [(case.band, case.name, case.param_dtype, case.device) for case in cases] == [
        (3, "10", "bfloat16", "cuda"),
        (3, "20", "bfloat16", "cuda"),
        (3, "10", "float32", "cuda"),
        (3, "20", "float32", "cuda"),
    ]
    assert cases[0].bytes_moved == 10 * (2 + 2 * 5 * 4 + 4 + 4 + 2 * 2)


def test_a_large_model_is_cut_as_the_optimizer_cuts_it() -> None:
    cases = cases_of(Problems(bands=(1,), models=("gpt2-small",)), "cpu")
    assert len(MODELS["gpt2-small"]) == 148
    assert (cases[0].name, cases[0].shapes) == ("gpt2-small[0]", ((50257, 768),))
    buckets = [case.problem.size_bucket for case in cases]
    assert len(set(buckets)) == len(buckets)


@pytest.mark.parametrize(
    ("problems", "match"),
    [
        (Problems(bands=(9,)), r"band=9 is not one of .*--band 1"),
        (Problems(sizes=(0,)), r"size=0 .*between 1 and .*--size 4194304"),
        (Problems(models=("resnet",)), r"model='resnet' is not one of .*mnist-autoencoder"),
        (Problems(dtypes=("float64",)), r"dtype='float64' is not one of .*bfloat16"),
        (Problems(states=("float16",)), r"state='float16' is not one of .*bfloat16"),
    ],
)
def test_wrong_choices_name_value_set_and_fix(problems: Problems, match: str) -> None:
    with pytest.raises(InvalidConfigError, match=match):
        cases_of(problems, "cpu")


def test_a_group_steps_the_benchs_own_tensors() -> None:
    case = Case(name="x", shapes=((40, 3), (7,)), device="cpu", band=1)
    bench = build_bench(case)
    before = [leaf.param.clone() for leaf in bench.leaves]
    group = build_group(bench, "cpu", "cpu", SPECS["cpu"].default(1))
    step(group)
    for leaf, grad, old in zip(bench.leaves, bench.grads, before, strict=True):
        assert int(leaf.count) == 1
        torch.testing.assert_close(leaf.momentum, 0.1 * grad)
        assert not torch.equal(leaf.param, old)
    again = build_bench(case)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(bench.grads, again.grads, strict=True))


def test_narrow_state_and_direction_come_together_and_are_named() -> None:
    """`--state bfloat16` means both; the title, the problem and the bytes of a step know it."""
    wide, narrow = cases_of(Problems(bands=(1,), sizes=(1000,), states=("float32", "bfloat16")), "cpu")
    assert wide.title == "band 1 1000 float32 on cpu"
    assert narrow.title == "band 1 1000 float32, bfloat16 state, bfloat16 direction on cpu"
    assert (narrow.problem.state_dtype, narrow.problem.direction_dtype) == ("bfloat16", "bfloat16")
    assert wide.bytes_moved == 44_000
    assert narrow.bytes_moved == (4 + 2 * 3 * 2 + 2 + 2 + 8) * 1000
    bench = build_bench(narrow)
    assert {tensor.dtype for leaf in bench.leaves for tensor in (leaf.momentum, leaf.stats)} == {torch.bfloat16}
