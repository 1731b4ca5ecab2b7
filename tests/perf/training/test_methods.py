from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
import torch
from torch import nn

from sonew.config import default_gamma
from sonew.errors import InvalidConfigError
from sonew.torch import SONew
from sonew_perf.training import methods
from sonew_perf.training.methods import METHODS, PRECISIONS, Optimizer, Several, build, state_bytes
from sonew_perf.training.settings import Settings
from tests.perf.training.made import WIDTH, loss, small_model

SETTINGS: Final = Settings(
    lr=0.02,
    beta1=0.8,
    beta2=0.95,
    eps=1e-5,
    weight_decay=0.25,
    band=3,
    chain="row",
    eps_rel=1e-3,
    gamma=1e-4,
    graft="rmsprop",
)
BETAS: Final = (0.8, 0.95)
OF_TORCH: Final[dict[str, tuple[type, dict[str, Any]]]] = {
    "adam": (torch.optim.Adam, {"lr": 0.02, "betas": BETAS, "eps": 1e-5, "weight_decay": 0, "amsgrad": False, "fused": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.02, "betas": BETAS, "eps": 1e-5, "weight_decay": 0.25, "amsgrad": False, "fused": True}),
    "sgd": (torch.optim.SGD, {"lr": 0.02, "momentum": 0.8, "dampening": 0, "nesterov": False, "weight_decay": 0, "fused": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.02, "alpha": 0.95, "eps": 1e-5, "momentum": 0.8, "centered": False, "weight_decay": 0}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.02, "eps": 1e-5, "lr_decay": 0, "initial_accumulator_value": 0, "weight_decay": 0}),
}
PEERS: Final = tuple(name for name, row in METHODS.items() if row.package)
EVERY: Final = [(name, precision) for name, row in METHODS.items() for precision in row.precisions]


def group_of(optimizer: Optimizer, at: int = 0) -> dict[str, Any]:
    """A parameter group's settings."""
    return {name: value for name, value in optimizer.param_groups[at].items() if name != "params"}


def model_in(precision: str) -> nn.Sequential:
    return small_model().to(torch.bfloat16 if precision in {"bf16", "bf16-rounded"} else torch.float32)


def train(optimizer: Optimizer, model: nn.Module, steps: int) -> None:
    batch = torch.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH)
    for _ in range(steps):
        model.zero_grad()
        loss(model, batch).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("precision", "narrow", "rounded"),
    [("fp32", "float32", False), ("bf16-state", "bfloat16", False), ("bf16", "bfloat16", False), ("bf16-rounded", "bfloat16", True)],
)
def test_sonew_takes_every_setting_and_the_precision(precision: str, narrow: str, rounded: bool) -> None:
    optimizer = build("sonew", model_in(precision), SETTINGS, precision)
    assert type(optimizer) is SONew
    assert len(optimizer.param_groups) == 1
    assert group_of(optimizer) == {
        **SONew([nn.Parameter(torch.zeros(1))]).defaults,
        "lr": 0.02,
        "betas": BETAS,
        "eps": 1e-5,
        "weight_decay": 0.25,
        "band": 3,
        "chain": "row",
        "eps_rel": 1e-3,
        "gamma": 1e-4,
        "graft": "rmsprop",
        "state_dtype": narrow,
        "direction_dtype": narrow,
        "stochastic_rounding": rounded,
    }


def test_without_a_gamma_sonew_chooses_it_from_the_type_of_its_state() -> None:
    plain = replace(SETTINGS, gamma=None)
    chosen = [group_of(build("sonew", model_in(precision), plain, precision))["gamma"] for precision in ("fp32", "bf16-state")]
    assert chosen == [0, default_gamma("bfloat16", 0.95, SETTINGS.band)]
    assert chosen[1] > 0


def test_only_what_falls_back_in_sonew_is_counted() -> None:
    assert group_of(build("sonew", small_model(), SETTINGS, "fp32", counters=True))["counters"] is True
    assert group_of(build("sonew", small_model(), SETTINGS, "fp32"))["counters"] is False
    assert "counters" not in group_of(build("adam", small_model(), SETTINGS, "fp32", counters=True))


def with_embeddings() -> nn.ModuleDict:
    return nn.ModuleDict({"look up": nn.Embedding(4, 3), "norm": nn.LayerNorm(3), "out": nn.Linear(3, 2)})


def test_layers_chooses_what_takes_the_band_and_changes_nothing_else() -> None:
    model = with_embeddings()
    optimizer = build("sonew", model, replace(SETTINGS, layers="no-embeddings"), "fp32")
    everything = group_of(build("sonew", model, SETTINGS, "fp32"))
    groups = {frozenset(map(id, group["params"])): group for group in optimizer.param_groups}
    embedding = frozenset({id(model.get_parameter("look up.weight"))})
    assert set(groups) == {embedding, frozenset(map(id, model.parameters())) - embedding}
    for params, group in groups.items():
        assert {name: group[name] for name in everything} == everything | {"band": 0 if params == embedding else 3}


@pytest.mark.parametrize("method", list(OF_TORCH))
def test_torchs_optimizers_take_the_settings_that_their_row_names(method: str) -> None:
    model = small_model()
    optimizer = build(method, model, SETTINGS, "fp32")
    kind, expected = OF_TORCH[method]
    assert type(optimizer) is kind
    assert group_of(optimizer).items() >= expected.items()
    assert list(map(id, optimizer.param_groups[0]["params"])) == list(map(id, model.parameters()))


def test_muon_takes_matrices_and_leaves_embeddings_and_vectors_to_adam() -> None:
    model = with_embeddings()
    optimizer = build("muon", model, SETTINGS, "fp32")
    assert isinstance(optimizer, Several)
    assert [type(part) for part in optimizer.parts] == [torch.optim.Muon, torch.optim.Adam]
    names = {id(param): name for name, param in model.named_parameters()}
    assert [[names[id(param)] for param in group["params"]] for group in optimizer.param_groups] == [
        ["out.weight"],
        ["look up.weight", "norm.weight", "norm.bias", "out.bias"],
    ]
    muon = {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.25, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}
    assert group_of(optimizer).items() >= muon.items()
    assert group_of(optimizer, 1).items() >= {"lr": 0.02, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "fused": True}.items()


def test_optimizers_that_step_together_step_as_each_alone_at_the_rate_that_is_written_to_all() -> None:
    together, apart = small_model(), small_model()
    optimizer = build("muon", together, SETTINGS, "fp32")
    matrices, others = [[param for param in apart.parameters() if (param.ndim == 2) is matrix] for matrix in (True, False)]
    muon = torch.optim.Muon(matrices, lr=0.5, momentum=0.8, weight_decay=0.25, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.Adam(others, lr=0.5)
    for rate in (0.0, 0.1, 0.03):
        for group in optimizer.param_groups:
            group["lr"] = rate
        muon.param_groups[0]["lr"] = adam.param_groups[0]["lr"] = rate
        train(optimizer, together, 1)
        batch = torch.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH)
        apart.zero_grad()
        loss(apart, batch).backward()
        muon.step()
        adam.step()
        for ours, theirs in zip(together.parameters(), apart.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert set(optimizer.state) == set(together.parameters())


def test_the_peers_take_the_settings_that_their_row_names() -> None:
    pytest.importorskip("pytorch_optimizer")
    soap = {"lr": 0.02, "betas": BETAS, "eps": 1e-5, "weight_decay": 0.25, "precondition_frequency": 10, "shampoo_beta": None}
    assert group_of(build("soap", small_model(), SETTINGS, "fp32")).items() >= soap.items()
    optimizer: Any = build("shampoo", small_model(), SETTINGS, "fp32")
    shampoo = {"lr": 0.02, "betas": BETAS, "weight_decay": 0.25, "decoupled_weight_decay": True, "moving_average_for_momentum": True}
    assert group_of(optimizer).items() >= shampoo.items()
    assert (optimizer.matrix_eps, optimizer.preconditioning_compute_steps, optimizer.block_size) == (1e-5, 20, 1024)


def test_shampoo_steps_with_the_norm_of_rmsprop() -> None:
    """Its first step, on a matrix that it preconditions, without momentum: the gradient over sqrt(0.05) of its size."""
    pytest.importorskip("pytorch_optimizer")
    weight = nn.Parameter(torch.zeros(40, 30))
    model = nn.ParameterList([weight])
    optimizer = build("shampoo", model, replace(SETTINGS, beta1=0.0, weight_decay=0.0), "fp32")
    weight.grad = torch.linspace(-3, 3, 1200).reshape(40, 30)
    optimizer.step()
    assert weight.detach().norm().item() == pytest.approx(0.02 * (1200 / 0.05) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(("method", "precision"), EVERY)
def test_two_steps_change_every_parameter_and_keep_every_type(method: str, precision: str) -> None:
    if METHODS[method].package:
        pytest.importorskip(METHODS[method].package)
    model = model_in(precision)
    before = [param.detach().clone() for param in model.parameters()]
    train(build(method, model, Settings(lr=0.02), precision), model, 2)
    for param, old in zip(model.parameters(), before, strict=True):
        assert param.dtype == old.dtype
        assert param.isfinite().all()
        assert not param.equal(old)


NUMBERS: Final = {  # in the state of the small model's 45 weights and 8 biases
    "sonew": 53 * (3 + 2),
    "adam": 53 * 2,
    "adamw": 53 * 2,
    "sgd": 53,
    "rmsprop": 53 * 2,
    "adagrad": 53,
    "muon": 45 + 8 * 2,
    "soap": 53 * 2 + 2 * (5 * 5 + 6 * 6 + 3 * 3 + 5 * 5),  # each side's statistics and eigenbasis
    "shampoo": 53 * 3,  # two momenta and the squares: nothing this small is preconditioned
}
COUNTED: Final = {"sonew": 4, "adam": 4, "adamw": 4, "rmsprop": 4, "adagrad": 4, "muon": 2}  # tensors with a count of their steps


@pytest.mark.parametrize(("method", "precision"), EVERY)
def test_the_state_is_counted_to_the_byte(method: str, precision: str) -> None:
    """(b + 2) numbers per parameter in SONew, two in Adam, of half the size in bfloat16, and 4 bytes per tensor where steps are counted."""
    if METHODS[method].package:
        pytest.importorskip(METHODS[method].package)
    model = model_in(precision)
    optimizer = build(method, model, Settings(band=3), precision)
    train(optimizer, model, 2)
    size = 4 if precision == "fp32" else 2
    assert state_bytes(optimizer) == size * NUMBERS[method] + 4 * COUNTED.get(method, 0)


def test_the_matrices_of_shampoo_count_and_are_float32() -> None:
    pytest.importorskip("pytorch_optimizer")
    weight = nn.Parameter(torch.ones(40, 30, dtype=torch.bfloat16))
    optimizer = build("shampoo", nn.ParameterList([weight]), Settings(), "bf16")
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert state_bytes(optimizer) == 3 * 1200 * 2 + 2 * (40 * 40 + 30 * 30) * 4


def test_a_tensor_that_is_held_twice_counts_once() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    shared = torch.zeros(5, dtype=torch.float64)
    circle: dict[str, Any] = {"again": shared, "listed": [shared, (shared, None)]}
    circle["itself"] = circle
    optimizer.state[optimizer.param_groups[0]["params"][0]] = circle
    assert state_bytes(optimizer) == 40


@pytest.mark.parametrize("method", [name for name in METHODS if name != "sonew"])
def test_a_precision_that_a_method_lacks_is_refused_with_the_fix(method: str) -> None:
    assert METHODS["sonew"].precisions == tuple(PRECISIONS)
    for precision in ("bf16-state", "bf16-rounded"):
        said = rf"precision='{precision}' is not allowed with {method}: it must be one of \['fp32', 'bf16'\]\. Pass --precision fp32"
        with pytest.raises(InvalidConfigError, match=said):
            build(method, small_model(), Settings(), precision)


@pytest.mark.parametrize("method", PEERS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "find_spec", lambda _name: None)
    with pytest.raises(InvalidConfigError, match=rf"method='{method}' needs the package pytorch_optimizer.*pip install 'sonew\[peers\]'"):
        build(method, small_model(), Settings(), "fp32")
