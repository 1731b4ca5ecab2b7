"""Mutants of the reference: each small falsification of the formula must be caught by a comparison with the oracle."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest

from sonew import reference
from sonew.config import Hyper
from tests import oracle
from tests.strategies import history
from tests.tolerances import assert_close

SOURCE: Final = Path(reference.__file__).read_text(encoding="utf-8")
MUTATIONS: Final = {
    "sign of L": ("xp.where(failed, 0.0, -value)", "xp.where(failed, 0.0, value)"),
    "sign in the second half of apply": ("direction = direction + behind(", "direction = direction - behind("),
    "no shift ahead in apply": ("column * ahead(xp, momentum, q)", "column * momentum"),
    "no shift back in apply": ("behind(xp, xp.where(links[q], column * scaled, 0.0), q)", "xp.where(links[q], column * scaled, 0.0)"),
    "no shift in accumulate": ("grad * ahead(xp, grad, k)", "grad * grad"),
    "no pivot rule": ("failed = failed | bad", "failed = failed"),
    "no last pivot rule": ("return failed | ~(window[0][0] > gamma * diagonal[0])", "return failed"),
    "threshold without gamma": ("~(window[q][q] > gamma * diagonal[q])", "~(window[q][q] > 0)"),
    "elimination of the wrong row": ("weights[q, s] * window[q][r]", "weights[q, s] * window[q][s]"),
    "no back substitution": ("value = value - weights[q, r] * psi[r - 1]", "value = value"),
    "momentum uncorrected": ("momentum / correction(xp, steps, numbers.log_beta1)", "momentum"),
    "stats corrected with the wrong decay": (
        "stats / correction(xp, steps, numbers.log_beta2)",
        "stats / correction(xp, steps, numbers.log_beta1)",
    ),
    "correction one step late": ("-xp.expm1(count * log_beta)", "-xp.expm1((count + 1) * log_beta)"),
    "chain links unmasked": ("(left > k) & (in_chain > k)", "(left > k)"),
    "no absolute damping": ("(1.0 + hyper.eps_rel) + hyper.eps", "(1.0 + hyper.eps_rel)"),
    "no relative damping": ("stats[0] * (1.0 + hyper.eps_rel)", "stats[0]"),
    "target damped": ("momentum / (xp.sqrt(variance) + GRAFT_EPS)", "momentum / (xp.sqrt(variance + hyper.eps) + GRAFT_EPS)"),
    "no graft": ('if hyper.graft != "none":', "if False:"),
    "no weight decay": (" + step_decay(hyper) * param)", ")"),
    "decay not scaled by lr": (
        "hyper.lr * (u.reshape(param.shape) + step_decay(hyper) * param)",
        "hyper.lr * u.reshape(param.shape) - step_decay(hyper) * param",
    ),
}


def check(module: ModuleType) -> None:
    """Compare a reference with the oracle over a few settings; raises AssertionError where they differ."""
    for seed, (band, chain, gamma) in enumerate(itertools.product((1, 3), ("tensor", 7), (0.0, 0.6, 0.8))):
        settings: Any = {"band": band, "chain": chain, "gamma": gamma}
        hyper = Hyper(lr=0.5, eps=0.05, eps_rel=0.02, weight_decay=0.3, **settings)
        grads = history(seed, (20,), band=band).astype(np.float64)
        state, momentum, stats = oracle.DenseState.zeros(20), np.zeros(20), np.zeros((band + 1, 20))
        for count, grad in enumerate(grads, start=1):
            want = oracle.step(np.ones(20), grad, state, hyper)
            got, momentum, stats = module.step(np, np.ones(20), grad, momentum, stats, np.asarray(count), hyper)
            state = want.state
        assert_close(got, want.param, "float64", context=f"{hyper}")


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module made of a text, known to the import system (dataclasses look there) for the test's time."""

    def module_of(source: str) -> ModuleType:
        path = tmp_path / "copied_reference.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module

    return module_of


def test_the_unchanged_copy_passes(load: Callable[[str], ModuleType]) -> None:
    check(load(SOURCE))


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_mutant_is_caught(name: str, load: Callable[[str], ModuleType]) -> None:
    old, new = MUTATIONS[name]
    assert SOURCE.count(old) == 1, f"{old!r} stands {SOURCE.count(old)} times in the reference: update this mutation"
    mutant = load(SOURCE.replace(old, new))
    with pytest.raises(AssertionError, match=r"not close|non-finite"), np.errstate(all="ignore"):
        check(mutant)
