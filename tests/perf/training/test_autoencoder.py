from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sonew_perf.errors import DataError
from sonew_perf.training.tasks import autoencoder, autoencoder_torch
from sonew_perf.training.tasks.autoencoder import SHAPES
from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.idx import ImageSet
from tests.perf.idx_files import idx_bytes


@pytest.fixture
def data(folder: Path) -> Data:
    return autoencoder.load(folder)


def test_the_model_has_the_sixteen_tensors_of_the_paper(data: Data) -> None:
    assert SHAPES[:2] == ((1000, 784), (1000,))
    assert SHAPES[6:10] == ((30, 250), (30,), (250, 30), (250,))
    assert sum(math.prod(shape) for shape in SHAPES) == 2_837_314
    assert tuple(tuple(param.shape) for param in autoencoder_torch.build(0, data).parameters()) == SHAPES


def test_weights_are_glorot_uniform_biases_zero_and_both_follow_the_seed(data: Data) -> None:
    drawn, again, other = (autoencoder.weights(seed) for seed in (3, 3, 4))
    for weight, bias in zip(drawn[::2], drawn[1::2], strict=True):
        bound = math.sqrt(6 / sum(weight.shape))
        assert weight.dtype == bias.dtype == np.float32
        assert 0.99 * bound < abs(weight).max() <= bound
        assert abs(weight.std() / (bound / math.sqrt(3)) - 1) < 0.02
        assert not bias.any()
    assert all((a == b).all() for a, b in zip(drawn, again, strict=True))
    assert not any((a == b).all() for a, b in zip(drawn[::2], other[::2], strict=True))
    for param, array in zip(autoencoder_torch.build(3, data).parameters(), drawn, strict=True):
        np.testing.assert_array_equal(param.detach().numpy(), array)


def _in_float64(model: torch.nn.Module, images: np.ndarray) -> tuple[np.ndarray, float]:
    """The logits and the loss of images in [0, 1], by the formulas."""
    arrays = [param.detach().to(torch.float64).numpy() for param in model.parameters()]
    hidden = images
    for layer in range(8):
        hidden = hidden @ arrays[2 * layer].T + arrays[2 * layer + 1]
        if layer not in (3, 7):  # the code and the logits are linear
            hidden = np.tanh(hidden)
    return hidden, float((np.logaddexp(0, hidden) - images * hidden).sum() / len(images))


def test_forward_and_loss_are_the_formulas(data: Data) -> None:
    model = autoencoder_torch.build(1, data)
    chosen = [5, 0, 39, 7]
    images = autoencoder_torch.pick(torch.from_numpy(data.values.copy()), torch.tensor(chosen))
    assert images.dtype == torch.float32
    exact = data.values[chosen] / 255
    np.testing.assert_allclose(images.numpy(), exact, rtol=1e-6)
    logits, expected = _in_float64(model, exact)
    with torch.no_grad():
        np.testing.assert_allclose(model(images).numpy(), logits, atol=1e-5)
        assert math.isclose(autoencoder_torch.loss(model, images).item(), expected, rel_tol=1e-6)


@pytest.mark.parametrize("at_once", [7, 10_000])
def test_the_result_is_the_mean_over_all_images_however_many_are_taken_at_once(
    data: Data, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder_torch, "EVALUATED", at_once)
    model = autoencoder_torch.build(1, data)
    result = autoencoder_torch.evaluate(model, torch.from_numpy(data.values.copy()), None)
    assert math.isclose(result, _in_float64(model, data.values / 255)[1], rel_tol=1e-6)


def test_a_bfloat16_model_has_a_float32_loss_near_the_exact_one(data: Data) -> None:
    model = autoencoder_torch.build(1, data).to(torch.bfloat16)
    images = autoencoder_torch.pick(torch.from_numpy(data.values.copy()), torch.arange(40))
    value = autoencoder_torch.loss(model, images)
    assert value.dtype == torch.float32
    assert math.isclose(value.item(), _in_float64(model, data.values / 255)[1], rel_tol=3e-3)


def test_the_data_is_every_pixel_and_its_identity_the_files(data: Data, pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(data.values, pixels.reshape(40, 784))
    assert data.describe() == {"name": "MNIST training images", "examples": 40, "sha256": hashlib.sha256(idx_bytes(pixels)).hexdigest()}


def test_data_that_does_not_suit_is_refused_with_the_fix() -> None:
    with pytest.raises(DataError, match=r"100 pixels, the autoencoder takes 784 .*--data"):
        autoencoder.data_of(ImageSet(np.zeros((40, 100), np.uint8), ""))
    with pytest.raises(DataError, match=r"neither --data nor SONEW_DATA is set\. Name the folder .*--download"):
        autoencoder.load(None)
