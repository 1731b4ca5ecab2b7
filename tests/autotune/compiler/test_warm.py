"""Warm caches: what training launches is found in them. A driver that records stands in for the GPU's; Triton's own launch path is real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from sonew.backends import triton_torch
from sonew.backends.table import Leaf
from sonew.config import Hyper, LaunchConfig, Plan, Problem
from sonew.dispatch import step
from sonew.errors import BackendUnavailableError, InvalidConfigError
from sonew.torch import SONew
from sonew_autotune.compiler.kernel import KERNELS, compile_kernel
from sonew_autotune.compiler.targets import parse_target
from sonew_autotune.compiler.warm import Launch, cache_folder, warm
from sonew_kernels.spec import SPECS
from tests.autotune.commands.command_line import entries, invoke

TARGETS: Final = ("cuda:90", "hip:gfx942")
TILE: Final = 1023  # of the default configuration at band 1


def plain(band: int = 1, **changes: Any) -> Launch:
    """A launch under the default configuration."""
    return Launch(band=band, config=LaunchConfig.of("triton", SPECS["triton"].default(band)), **changes)


class RecordingDriver:
    """A driver for a GPU that is not here: kernels are compiled and loaded as ever, launches are written down."""

    def __init__(self, target: str) -> None:
        self.target = GPUTarget(*parse_target(target))
        self.loaded: dict[str, bytes] = {}
        self.launched: list[tuple[int, ...]] = []
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return id(self)  # a device of its own: what Triton holds in memory for another driver does not count

    def get_current_stream(self, device: int) -> int:
        return device

    def get_device_properties(self, _device: int) -> dict[str, int]:
        return {"max_shared_mem": 65536}

    def load_binary(self, name: str, code: bytes, _shared: int, _device: int) -> tuple[int, int, int, int, int]:
        self.loaded[name] = code
        return 1, 2, 32, 0, 1024

    def launcher_cls(self, _source: object, _metadata: object) -> Any:
        return lambda *arguments: self.launched.append(arguments[:3])


class Training(RecordingDriver):
    """What a training compiled and what it found; `hits` by kernel in the order of their first launch."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.hits: list[tuple[str, bool]] = []

    def heard(self, *, src: Any, cache_hit: bool, **_others: object) -> None:
        self.hits.append((src.name.removesuffix("_table"), cache_hit))


@contextmanager
def training_on(target: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    """Within, torch's Triton backend takes CPU tensors and launches by the recording driver."""
    training = Training(target)
    with monkeypatch.context() as patch:
        patch.setattr(triton_torch, "_interpreted", lambda: True)  # the one case in which it takes CPU tensors
        patch.setattr(driver, "_active", training)
        patch.setattr(triton.knobs.compilation, "listener", training.heard)
        yield training


def train(*params: torch.Tensor, **options: Any) -> None:
    """The first step of a training."""
    params = tuple(torch.nn.Parameter(param) for param in params)
    optimizer = SONew(params, backend="triton", tuning="off", **options)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for Triton."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folders(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


@pytest.mark.parametrize("target", TARGETS)
def test_the_first_step_after_warm_compiles_nothing(target: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of tiles; and what `compile` shows is byte for byte what training loads."""
    warmed = warm([plain()], target, lambda _: None)
    assert [done.kernel for done in warmed] == [*KERNELS, "prologue", "prologue"]
    assert not any(done.hit or done.error for done in warmed)
    assert all(done.seconds > 0 for done in warmed)
    assert folders(cache) == {warmed_folder(done.key) for done in warmed}
    for sizes in ((5000,), (10,), (6 * TILE, 10 * TILE - 5)):  # 5 tiles, 1, 16
        with training_on(target, monkeypatch) as training:
            train(*(torch.zeros(size) for size in sizes))
        assert training.hits == [(kernel, True) for kernel in KERNELS], sizes
        assert training.launched[1] == (sum(-(-size // TILE) for size in sizes), 1, 1)  # the direction kernel's grid
    assert folders(cache) == {warmed_folder(done.key) for done in warmed}
    again = warm([plain()], target, lambda _: None)
    assert [(done.kernel, done.key) for done in again] == [(done.kernel, done.key) for done in warmed]
    assert all(done.hit for done in again)
    with training_on(target, monkeypatch) as training:
        train(torch.zeros(5000))
    for kernel in KERNELS:
        compiled = compile_kernel(kernel, SPECS["triton"].default(1), 1, target).binary
        assert compiled is not None
        assert compiled.code == training.loaded[compiled.symbol], kernel


def warmed_folder(key: str) -> str:
    """The name of a kernel's folder in Triton's cache."""
    from triton.runtime.cache import get_cache_manager

    return Path(get_cache_manager(key).cache_dir).name


def test_without_warm_the_first_step_compiles(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a warm for another graft serves only the kernels that do not know it."""
    with training_on("cuda:90", monkeypatch) as training:
        train(torch.zeros(5000), band=0)
    assert training.hits == [(kernel, False) for kernel in KERNELS]
    assert len(folders(cache)) == len(KERNELS)
    warmed = warm([plain(0, graft="none")], "cuda:90", lambda _: None)
    assert {(done.kernel, done.hit) for done in warmed if done.tiles in ("", "several tiles")} == {
        ("prologue", True),
        ("direction", False),
        ("norms", False),
        ("update", True),
    }


NARROW: Final = dict.fromkeys(("param_dtype", "grad_dtype", "state_dtype", "direction_dtype"), "bfloat16")
VARIANTS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "row chains": ({"chain": "row"}, {"chained": True}),
    "counters": ({"counters": True}, {"counted": True}),
    "graft": ({"graft": "rmsprop"}, {"graft": "rmsprop"}),
    "bfloat16": (
        {"stochastic_rounding": True, "state_dtype": "bfloat16", "direction_dtype": "bfloat16"},
        {"stochastic": True, **NARROW},
    ),
}
ALL: Final = {name: value for options, _ in VARIANTS.values() for name, value in options.items()}
ALL_CHANGES: Final = {name: value for _, changes in VARIANTS.values() for name, value in changes.items()}
CASES: Final = [
    pytest.param(ALL, ALL_CHANGES, id="all at once"),
    *(pytest.param(*both, id=name, marks=pytest.mark.full) for name, both in VARIANTS.items()),
]


@pytest.mark.parametrize(("options", "changes"), CASES)
def test_other_ways_of_training_have_options(
    options: dict[str, Any], changes: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not cache.exists()
    warm([plain(0, **changes)], "cuda:90", lambda _: None)
    with training_on("cuda:90", monkeypatch) as training:
        train(torch.zeros((50, 40), dtype=getattr(torch, changes.get("param_dtype", "float32"))), band=0, **options)
    assert training.hits == [(kernel, True) for kernel in KERNELS]


@pytest.mark.full
def test_pieces_of_sharded_parameters_have_an_option(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not cache.exists()
    warm([plain(1, pieces=True)], "cuda:90", lambda _: None)
    leaf = Leaf(
        torch.zeros(3000), torch.zeros(3000), torch.zeros((2, 3000)), torch.zeros((), dtype=torch.int32), 9000, start=3000, total=9000
    )
    problem = Problem(device="cpu", band=1, total=3000, median=3000)
    plan = Plan(problem=problem, backend="triton", config=plain().config, provenance="")
    with training_on("cuda:90", monkeypatch) as training:
        group = triton_torch.StepGroup([leaf], plan)
        group.set_hyper(Hyper())
        group.bind([torch.zeros(3000)])
        step(group)
    assert training.hits == [(kernel, True) for kernel in KERNELS]


def test_a_kernel_that_does_not_compile_is_reported_and_the_others_go_on(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: object) -> None:
        msg = "PassManager::run failed"
        raise RuntimeError(msg)

    assert not cache.exists()
    monkeypatch.setattr(triton_torch.StepGroup, "direction", fail)
    before = driver._active
    warmed = warm([plain(0)], "cuda:90", lambda _: None)
    errors = {done.kernel: done.error for done in warmed if done.error}
    assert errors == {"direction": "the direction kernel does not compile for cuda:90: RuntimeError: PassManager::run failed"}
    assert {done.kernel for done in warmed if not done.error} == {"prologue", "norms", "update"}
    assert driver._active is before
    code, out, err = invoke("warm", "--target", "cuda:90", "--band", "0", "--size", "9", "--json")
    assert code == 1
    assert [entry["kernel"] for entry in entries(out) if "error" in entry] == ["direction"]
    assert "0 compiled in 0.0 s, 5 were there." in err


def test_a_cache_that_cannot_be_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(InvalidConfigError, match=r"cannot be written .* Set TRITON_CACHE_DIR"):
        cache_folder()
    monkeypatch.setenv("TRITON_ALWAYS_COMPILE", "1")
    with pytest.raises(BackendUnavailableError, match="TRITON_ALWAYS_COMPILE is set"):
        cache_folder()
