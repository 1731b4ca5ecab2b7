from __future__ import annotations

import math

import numpy as np
import torch

from sonew_perf.training import autoencoder

CPU = torch.device("cpu")


def test_the_model_has_the_sixteen_tensors_of_the_paper() -> None:
    shapes = autoencoder.SHAPES
    assert shapes[:2] == ((1000, 784), (1000,))
    assert shapes[6:10] == ((30, 250), (30,), (250, 30), (250,))
    assert sum(math.prod(shape) for shape in shapes) == 2_837_314
    assert tuple(tuple(parameter.shape) for parameter in autoencoder.build(0, CPU).parameters()) == shapes


def test_weights_are_glorot_uniform_biases_zero_and_both_follow_the_seed() -> None:
    model, again, other = (list(autoencoder.build(seed, CPU).parameters()) for seed in (3, 3, 4))
    for weight, bias in zip(model[::2], model[1::2], strict=True):
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.99 * bound < weight.abs().max() <= bound
        assert abs(weight.std() / (bound / math.sqrt(3)) - 1) < 0.02
        assert not bias.any()
    assert all(torch.equal(a, b) for a, b in zip(model, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(model[::2], other[::2], strict=True))


def test_forward_and_loss_are_the_formulas_in_float64() -> None:
    model = autoencoder.build(1, CPU)
    images = torch.rand(5, 784)
    arrays = [parameter.detach().numpy().astype(np.float64) for parameter in model.parameters()]
    x = hidden = images.numpy().astype(np.float64)
    for layer in range(8):
        hidden = hidden @ arrays[2 * layer].T + arrays[2 * layer + 1]
        if layer not in (3, 7):  # the code and the logits are linear
            hidden = np.tanh(hidden)
    expected = (np.logaddexp(0, hidden) - x * hidden).sum() / 5
    with torch.no_grad():
        np.testing.assert_allclose(model(images).numpy(), hidden, atol=1e-5)
        assert math.isclose(autoencoder.loss(model, images).item(), expected, rel_tol=1e-6)
