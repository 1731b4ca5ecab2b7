"""The README's section on JAX runs as it is printed."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.readme import losses, run_blocks


def test_jax(capsys: pytest.CaptureFixture[str]) -> None:
    """The paper's autoencoder learns."""
    names = run_blocks("JAX")
    found = losses(capsys.readouterr().out)
    assert len(found) == 25
    assert np.mean(found[-5:]) < 0.85 * np.mean(found[:5])
    assert sum(leaf.size for leaf in jax.tree.leaves(names["params"])) == 2_837_314
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(names["state"]))
