"""What every test starts from: fixed seeds, stores and studies of its own, threads put back, GPU tests only where a GPU is."""

from __future__ import annotations

import itertools
import os
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import settings

SEED: Final = 20231
JAX_TESTS: Final = Path(__file__).resolve().parent / "jax"
_NUMBERS: Final = itertools.count()  # of the tests' folders, which are made only when something is written

# Timings vary with load, so no example is failed for being slow. The same examples in every run, new ones under `--full`.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=500, print_blob=True)
settings.load_profile("fixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked gpu where torch sees no GPU; torch is asked only when there is such a test. JAX's ask JAX."""
    marked = [item for item in items if item.get_closest_marker("gpu") and JAX_TESTS not in item.path.parents]
    if not marked:
        return
    import torch

    with warnings.catch_warnings(record=True) as caught:  # of a driver that is too old, say: no reason to stop every other test
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        reason = "; ".join(["torch sees no GPU on this machine", *(str(warning.message) for warning in caught)])
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No SONEW_* setting of the caller reaches a test, and nothing tuned, shipped or not, is read or written outside its folder.

    The cache of compiled libraries stays shared: it is keyed by what decides the machine code, and a build takes seconds per band.
    """
    for name in [name for name in os.environ if name.startswith("SONEW_") and name != "SONEW_CACHE_DIR"]:
        monkeypatch.delenv(name)
    folder = tmp_path_factory.getbasetemp() / f"user-{next(_NUMBERS)}"
    monkeypatch.setenv("SONEW_STORE", str(folder / "tuned.json"))
    monkeypatch.setenv("SONEW_STATE_DIR", str(folder / "state"))
    monkeypatch.setenv("SONEW_PERF_STORE", str(folder / "perf"))
    monkeypatch.setattr("sonew.dispatch.SHIPPED_FOLDER", folder / "shipped")


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same random state; torch's default type and thread count are as the last test found them."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002  # the legacy state is what careless code would use
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    torch.manual_seed(SEED)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
