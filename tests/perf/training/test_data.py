from __future__ import annotations

import numpy as np
import pytest

from sonew_perf.errors import DataError
from sonew_perf.training.tasks.data import Data, batches, steps_per_epoch


def test_an_epoch_shows_every_example_once_in_an_order_of_the_seed() -> None:
    first, again, other = (np.stack(list(batches(12, 4, 6, seed))) for seed in (0, 0, 1))
    for epoch in (first[:3], first[3:], other[:3]):
        assert sorted(epoch.ravel().tolist()) == list(range(12))
    assert (first == again).all()
    assert (first[:3] != first[3:]).any()
    assert (first != other).any()


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    short, long = (np.stack(list(batches(12, 4, steps, 3))) for steps in (5, 9))
    assert (long[:5] == short).all()


def test_examples_that_fill_no_batch_sit_an_epoch_out() -> None:
    shown = np.stack(list(batches(11, 4, 4, 0)))
    assert shown.shape == (4, 4)
    assert shown.dtype == np.int64
    assert len(set(shown[:2].ravel().tolist())) == 8
    assert steps_per_epoch(11, 4) == 2


@pytest.mark.parametrize("batch", [0, 41])
def test_a_batch_that_does_not_fit_is_refused_with_the_fix(batch: int) -> None:
    with pytest.raises(DataError, match=rf"batch={batch} is not allowed with 40 examples: .* from 1 to .*--batch 40 or less"):
        next(batches(40, batch, 1, 0))
    assert steps_per_epoch(40, 40) == 1


def test_a_record_quotes_the_name_the_number_and_the_checksum() -> None:
    data = Data(name="a", sha256="0f", values=np.zeros((3, 2), np.uint8), examples=3, symbols="xy")
    assert data.describe() == {"name": "a", "examples": 3, "sha256": "0f"}
