"""Training in JAX against the network, its gradient and the optimizers written out in float64; torch stays out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
import pytest

from sonew.config import Hyper
from sonew.errors import InvalidConfigError
from sonew_perf.training.jax import autoencoder, loop
from sonew_perf.training.jax.methods import BUILD, describe_plans, state_bytes
from sonew_perf.training.jax.request import PRECISIONS, Training, save
from sonew_perf.training.runs import Run
from sonew_perf.training.settings import Settings
from sonew_perf.training.tasks.data import batches
from tests.oracle import DenseState, step

SHAPES: Final = ((2, 6), (2,), (4, 2), (4,), (6, 4), (6,))  # six pixels to a code of two, tanh after the next layer only
SIZE: Final = 56
WEIGHTS: Final = [np.random.default_rng(number).normal(0, 0.5, shape).astype(np.float32) for number, shape in enumerate(SHAPES)]
VALUES: Final = np.random.default_rng(1).integers(0, 256, (22, 6)).astype(np.uint8)
LR: Final = 0.02
SETTINGS: Final = Settings(lr=LR, beta1=0.8, beta2=0.95, eps=1e-2)  # ill-conditioned windows would leave float32 few digits
Arrays = list[np.ndarray]


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Programs that compile in half the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _short_last_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last part of an evaluation is shorter than the others."""
    monkeypatch.setattr(autoencoder, "EVALUATED", 8)


def make(method: str = "sonew", **changed: Any) -> Training:
    """A request: six steps with batches of 5 from 22 examples, means over two steps; these fields of the run changed."""
    fields: dict[str, Any] = {
        "precision": "fp32",
        "settings": SETTINGS,
        "lr_rule": "constant",
        "schedule_steps": 24,
        "seed": 3,
        "steps": 6,
        "batch": 5,
    }
    uses = ("lr", "band") if method == "sonew" else ("lr",)
    run = Run(task="autoencoder", method=method, uses=uses, name=method, framework="jax", **fields | changed)
    return Training(run=run, device="cpu", every=2)


def trained(asked: Training) -> dict[str, Any]:
    return loop.train(asked, VALUES, WEIGHTS, lambda _mean, _loss: None)


def loss_and_slope(params: Sequence[np.ndarray], pixels: np.ndarray) -> tuple[float, Arrays]:
    """Cross-entropy of a batch and its gradient by the chain rule, layer by layer."""
    images = pixels / 255.0
    seen = [images]
    for layer in range(3):
        z = seen[-1] @ params[2 * layer].T + params[2 * layer + 1]
        seen.append(np.tanh(z) if layer == 1 else z)
    logits = seen[-1]
    loss = float(np.sum(np.logaddexp(0, logits) - logits * images)) / len(images)
    back = (1 / (1 + np.exp(-logits)) - images) / len(images)
    grads: Arrays = []
    for layer in (2, 1, 0):
        grads[:0] = [back.T @ seen[layer], back.sum(0)]
        back = back @ params[2 * layer]
        if layer == 2:
            back *= 1 - seen[layer] ** 2
    return loss, grads


Update = Callable[[Arrays, Arrays, float], Arrays]


def sonew(settings: Settings) -> Update:
    states = [DenseState.zeros(int(np.prod(shape))) for shape in SHAPES]

    def update(params: Arrays, grads: Arrays, lr: float) -> Arrays:
        chosen: Any = {
            name: getattr(settings, name) for name in ("beta1", "beta2", "eps", "weight_decay", "band", "chain", "eps_rel", "graft")
        }
        hyper = Hyper(**chosen, lr=lr, gamma=settings.gamma or 0.0)
        made = [step(param, grad, state, hyper) for param, grad, state in zip(params, grads, states, strict=True)]
        states[:] = [one.state for one in made]
        return [one.param for one in made]

    return update


def elementwise(settings: Settings, move: Callable[..., Any]) -> Update:
    """By what is moved for the gradient, two buffers (changed in place) and the number of the step."""
    buffers = [(np.zeros(shape), np.zeros(shape)) for shape in SHAPES]
    count = [0]

    def update(params: Arrays, grads: Arrays, lr: float) -> Arrays:
        count[0] += 1
        moves = [move(settings, grad, *both, count[0]) for grad, both in zip(grads, buffers, strict=True)]
        return [param - lr * by for param, by in zip(params, moves, strict=True)]

    return update


def adam(s: Settings, grad: np.ndarray, m: np.ndarray, v: np.ndarray, count: int) -> np.ndarray:
    m += (1 - s.beta1) * (grad - m)
    v += (1 - s.beta2) * (grad**2 - v)
    made: np.ndarray = m / (1 - s.beta1**count) / (np.sqrt(v / (1 - s.beta2**count)) + s.eps)
    return made


def sgd(s: Settings, grad: np.ndarray, m: np.ndarray, _v: np.ndarray, _count: int) -> np.ndarray:
    m += grad - (1 - s.beta1) * m
    return m


def rmsprop(s: Settings, grad: np.ndarray, m: np.ndarray, v: np.ndarray, count: int) -> np.ndarray:
    v += (1 - s.beta2) * (grad**2 - v)
    return sgd(s, grad / (np.sqrt(v) + s.eps), m, v, count)


def adagrad(s: Settings, grad: np.ndarray, _m: np.ndarray, v: np.ndarray, _count: int) -> np.ndarray:
    v += grad**2
    made: np.ndarray = grad / np.sqrt(v + s.eps)
    return made


def decayed(settings: Settings) -> Update:
    plain = elementwise(settings, adam)
    return lambda params, grads, lr: [
        new - lr * settings.weight_decay * old for new, old in zip(plain(params, grads, lr), params, strict=True)
    ]


def by_hand(asked: Training, update: Update, rates: Sequence[float]) -> tuple[list[float], float]:
    """Mean losses of two steps each, and the loss over all examples after the last."""
    params: Arrays = [drawn.astype(np.float64) for drawn in WEIGHTS]
    losses = []
    for rate, chosen in zip(rates, batches(22, 5, asked.run.steps, 3), strict=True):
        loss, grads = loss_and_slope(params, VALUES[chosen])
        losses.append(loss)
        params = update(params, grads, rate)
    return [float(np.mean(losses[at : at + 2])) for at in range(0, len(losses), 2)], loss_and_slope(params, VALUES)[0]


DECAYING: Final = replace(SETTINGS, weight_decay=0.3)
EVERYTHING: Final = Settings(
    lr=LR, beta1=0.7, beta2=0.9, eps=1e-2, weight_decay=0.3, band=2, chain="row", eps_rel=0.1, gamma=0.3, graft="rmsprop"
)
CASES: Final[Mapping[str, tuple[str, Settings, Callable[[Settings], Update]]]] = {
    "sonew": ("sonew", SETTINGS, sonew),
    "sonew with every setting": ("sonew", EVERYTHING, sonew),
    "adam": ("adam", SETTINGS, lambda settings: elementwise(settings, adam)),
    "adamw": ("adamw", DECAYING, decayed),
    "sgd": ("sgd", SETTINGS, lambda settings: elementwise(settings, sgd)),
    "rmsprop": ("rmsprop", SETTINGS, lambda settings: elementwise(settings, rmsprop)),
    "adagrad": ("adagrad", SETTINGS, lambda settings: elementwise(settings, adagrad)),
}


@pytest.mark.parametrize("case", [pytest.param("sonew", marks=pytest.mark.full), *list(CASES)[1:]])  # torch's losses say the same of it
def test_a_run_is_the_loop_the_network_and_the_optimizer_written_out(case: str) -> None:
    method, settings, update = CASES[case]
    asked = make(method, settings=settings)
    losses, result = by_hand(asked, update(settings), [LR] * 6)
    entry = trained(asked)
    assert entry["losses"] == pytest.approx(losses, rel=1e-5)
    assert entry["loss"] == pytest.approx(result, rel=1e-5)


def test_the_rate_follows_the_rule() -> None:
    asked = make("adam", lr_rule="epochs", steps=9)
    losses, result = by_hand(asked, elementwise(SETTINGS, adam), [0.0] * 4 + [LR / 4] * 4 + [LR / 2])
    entry = trained(asked)
    assert entry["losses"] == pytest.approx(losses, rel=1e-5)
    assert entry["loss"] == pytest.approx(result, rel=1e-5)


def test_muon_moves_matrices_by_orthogonal_updates_of_adams_size_and_the_rest_by_adam() -> None:
    """Newton and Schulz leave singular values of about 1, between 0.6 and 1.3."""
    stepper = loop.Stepper(make("muon").run, WEIGHTS, jax.numpy.asarray(VALUES))
    before = [np.asarray(param) for param in stepper.params]
    _, grads = stepper.slope(np.arange(5))
    expected = [np.asarray(grad) for grad in grads]
    stepper.update(grads, LR)
    for old, new, grad in zip(before, stepper.params, expected, strict=True):
        move = (old - np.asarray(new)) / LR
        if grad.ndim == 1:
            np.testing.assert_allclose(move, np.sign(grad), rtol=1e-3)
            continue
        left, _, right = np.linalg.svd(grad, full_matrices=False)
        values = np.diag(left.T @ move @ right.T) / (0.2 * np.sqrt(max(grad.shape)))
        assert ((values > 0.6) & (values < 1.3)).all()


@pytest.mark.parametrize(("precision", "width"), [("fp32", 4), ("bf16-state", 2), ("bf16", 2)])
def test_a_precision_is_that_of_sonews_state(precision: str, width: int) -> None:
    state = BUILD["sonew"](SETTINGS, precision).init([jax.numpy.asarray(one) for one in WEIGHTS])
    assert {leaf.dtype.itemsize for leaf in jax.tree.leaves(state) if leaf.ndim} == {width}
    assert state_bytes(state) == width * SIZE * 3 + 4


@pytest.mark.parametrize(
    ("method", "precision", "width"),
    [*(pytest.param("sonew", *row, marks=pytest.mark.full) for row in (("bf16-state", 4), ("bf16", 2))), ("adam", "bf16", 2)],
)
def test_training_in_a_precision_follows_float64_as_far_as_that_goes(method: str, precision: str, width: int) -> None:
    settings = replace(SETTINGS, band=0)  # compiles in half the time
    asked = make(method, precision=precision, settings=settings)
    stepper = loop.Stepper(asked.run, WEIGHTS, jax.numpy.asarray(VALUES))
    losses = []
    for chosen in batches(22, 5, 6, 3):
        loss, grads = stepper.slope(chosen)
        stepper.update(grads, LR)
        losses.append(float(loss))
    assert {param.dtype.itemsize for param in stepper.params} == {width}
    assert {leaf.dtype.itemsize for leaf in jax.tree.leaves(stepper.state) if leaf.ndim} == {2}
    assert state_bytes(stepper.state) == 2 * SIZE * 2 + 4
    exact = by_hand(asked, CASES[method][2](settings), [LR] * 6)[0]
    assert [np.mean(losses[at : at + 2]) for at in (0, 2, 4)] == pytest.approx(exact, rel=2e-2)


def test_bfloat16_logits_are_compared_in_float32() -> None:
    params = [jax.numpy.asarray(drawn, "bfloat16") for drawn in WEIGHTS]
    logits = autoencoder.logits_of(params, jax.numpy.asarray(VALUES / 255, "bfloat16"))
    assert str(logits.dtype) == "bfloat16"
    z = np.asarray(logits, np.float64)
    expected = np.sum(np.logaddexp(0, z) - z * VALUES / 255) / len(VALUES)
    assert float(autoencoder.loss(params, jax.numpy.asarray(VALUES))) == pytest.approx(expected, rel=1e-6)


def test_an_entry_has_its_times_and_its_plan() -> None:
    asked = make("adam", steps=5)
    told: list[tuple[int, float]] = []
    entry = loop.train(asked, VALUES, WEIGHTS, lambda *mean: told.append(mean))
    assert told == list(enumerate(entry["losses"]))
    assert (len(told), entry["losses_every"], entry["fallback"], entry["plans"]) == (3, 2, None, [])
    assert entry["state_bytes"] == 2 * SIZE * 4 + 4
    assert 0 < entry["optimizer_step_s"] < entry["step_s"] < entry["wall_s"]
    assert entry["optimizer_s"] < entry["wall_s"]
    assert [plan["backend"] for plan in describe_plans(make(precision="bf16").run, [SIZE], "cpu")] == ["reference"]


def test_a_run_that_diverged_ends_with_nulls_and_without_a_result() -> None:
    told: list[int] = []
    asked = make("sgd", steps=8, settings=Settings(lr=1e37, beta1=0.0))
    entry = loop.train(asked, VALUES, WEIGHTS, lambda mean, _loss: told.append(mean))
    assert entry["losses"][-2:] == [None, None]
    assert entry["loss"] is None
    assert len(told) < 4


def test_the_process_says_each_mean_and_then_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "arrays.npz"
    save(path, VALUES, WEIGHTS)
    loop.main(make("adam", steps=3).to_json(), str(path))
    *means, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert means == [{"mean": at, "loss": loss} for at, loss in enumerate(last["result"]["losses"])]
    assert len(means) == 2
    with pytest.raises(InvalidConfigError):
        loop.main(make(settings=Settings(graft="none at all")).to_json(), str(path))
    (refused,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert refused["refused"]
    assert refused["failed"].startswith("graft='none at all' is not allowed")
    with pytest.raises(FileNotFoundError):
        loop.main(make().to_json(), str(tmp_path / "nothing"))
    (failed,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (failed["refused"], failed["failed"].split(":")[0]) == (False, "FileNotFoundError")


def test_a_request_arrives_as_it_was_made() -> None:
    asked = make(settings=EVERYTHING, precision="bf16")
    assert Training.from_json(asked.to_json()) == asked
    assert set(BUILD) == set(PRECISIONS)
