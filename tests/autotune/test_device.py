"""Which device is tuned, and that an unusable GPU is never passed over in silence."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sonew.errors import InvalidConfigError
from sonew_autotune import device
from sonew_autotune.device import (
    UNKNOWN_CACHE,
    Device,
    NoDeviceError,
    cache_bytes,
    device_name,
    find_device,
    gpus_seen,
    select_device,
)

CUDA, HIP, ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"

BROKEN = "the GPU cannot be used: driver too old; update the driver"


def test_a_usable_gpu_is_taken_and_the_cpu_where_there_is_none() -> None:
    assert find_device("auto", problem=lambda: None) == Device(type="cuda")
    assert find_device("auto", seen=list, problem=lambda: "no GPU is visible") == Device(type="cpu")
    assert find_device("cpu", problem=lambda: None) == Device(type="cpu")


def test_a_gpu_that_is_seen_but_unusable_is_a_loud_line_with_the_fix() -> None:
    device = find_device("auto", seen=lambda: ["/dev/nvidia0"], problem=lambda: BROKEN)
    assert device.type == "cpu"
    assert device.warning is not None
    assert all(part in device.warning for part in ("/dev/nvidia0", BROKEN, "Using the CPU instead"))


def test_an_explicit_request_never_falls_back() -> None:
    with pytest.raises(NoDeviceError, match=r"device='cuda' cannot be used: .*driver too old.*--device cpu"):
        find_device("cuda", seen=list, problem=lambda: BROKEN)
    with pytest.raises(InvalidConfigError, match=r"device='tpu' is not one of \['auto', 'cpu', 'cuda'\]"):
        find_device("tpu")


def test_device_nodes_are_found(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "kfd"):
        (tmp_path / "dev" / name).touch()
    assert gpus_seen(tmp_path) == ["/dev/nvidia0", "/dev/nvidia1", "/dev/kfd"]


class FakeTorch:
    """A torch with so many GPUs, which counts those that the environment leaves visible."""

    def __init__(self, gpus: int, *, hip: bool = False) -> None:
        self.version = SimpleNamespace(hip="7.0" if hip else None)
        self.initialized = False
        self.gpus = gpus
        self.uuid: str | None = None
        self.cuda = SimpleNamespace(
            is_initialized=lambda: self.initialized,
            device_count=self._count,
            current_device=lambda: 0,
            get_device_properties=lambda _: SimpleNamespace() if self.uuid is None else SimpleNamespace(uuid=self.uuid),
        )

    def _count(self) -> int:
        shown = os.environ.get(HIP if self.version.hip else CUDA)
        return self.gpus if shown is None else sum(name.startswith("GPU-") or int(name) < self.gpus for name in shown.split(","))


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> FakeTorch:
    return _planted(monkeypatch, FakeTorch(4))


def _planted(monkeypatch: pytest.MonkeyPatch, fake: FakeTorch, **variables: str) -> FakeTorch:
    for name in (CUDA, HIP, ROCR):
        monkeypatch.setenv(name, "")  # noted, so that what the test sets is undone
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    modules: dict[str, Any] = {"torch": fake}
    monkeypatch.setattr(device, "import_module", modules.__getitem__)
    monkeypatch.setattr(device, "gpu_problem", lambda: "no GPU is visible")
    monkeypatch.setattr(device, "_SELECTED", device._Selection())
    return fake


def test_a_number_leaves_that_gpu_visible(torch: FakeTorch, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [select_device(name) for name in ("auto", "cpu", "cuda")] == ["auto", "cpu", "cuda"]
    assert CUDA not in os.environ
    assert select_device("cuda:2") == "cuda"
    assert os.environ[CUDA] == "2"
    _planted(monkeypatch, torch, CUDA_VISIBLE_DEVICES="3,GPU-ab, 1")
    assert select_device("cuda:1") == "cuda"
    assert os.environ[CUDA] == "GPU-ab"


def test_hidden_gpus_stay_hidden(torch: FakeTorch, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "-1"):
        monkeypatch.setenv(CUDA, value)
        with pytest.raises(NoDeviceError, match=rf"'cuda:0' does not exist: CUDA_VISIBLE_DEVICES='{value}' hides every GPU. Unset it"):
            select_device("cuda:0")
        assert os.environ[CUDA] == value
    assert not torch.initialized


def test_a_number_beyond_the_visible_is_named(torch: FakeTorch, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        NoDeviceError, match=r"'cuda:4' cannot be used: with CUDA_VISIBLE_DEVICES=4 torch finds no GPU \(no GPU is visible\)"
    ):
        select_device("cuda:4")
    assert CUDA not in os.environ
    monkeypatch.setenv(CUDA, "2,3,-1,0")
    with pytest.raises(NoDeviceError, match=r"'cuda:2' does not exist: .*'2,3,-1,0' shows 2 GPUs. Pass --device cuda:1"):
        select_device("cuda:2")
    monkeypatch.setenv(CUDA, "9")
    with pytest.raises(NoDeviceError, match="'cuda:0' cannot be used: with CUDA_VISIBLE_DEVICES=9 torch finds no GPU"):
        select_device("cuda:0")
    assert os.environ[CUDA] == "9"
    with pytest.raises(InvalidConfigError, match="'cuda:one' is not cuda:<number>"):
        select_device("cuda:one")
    assert torch.gpus == 4


def test_a_process_chooses_once(torch: FakeTorch) -> None:
    select_device("cuda:1")
    torch.initialized = True
    assert select_device("cuda:1") == "cuda"
    assert os.environ[CUDA] == "1"
    for other in ("cuda:0", "cuda:2"):
        with pytest.raises(InvalidConfigError, match=f"'{other}' comes after cuda:1 was chosen"):
            select_device(other)


def test_a_choice_after_the_first_use_of_cuda_is_refused(torch: FakeTorch) -> None:
    torch.initialized = True
    with pytest.raises(InvalidConfigError, match=r"'cuda:1' comes too late.*Set CUDA_VISIBLE_DEVICES=1 before"):
        select_device("cuda:1")
    assert CUDA not in os.environ


@pytest.mark.parametrize(
    ("variables", "chosen"),
    [({}, "1"), ({HIP: "3,2", CUDA: "0"}, "2"), ({CUDA: "3,0"}, "0"), ({ROCR: "2,3"}, "1"), ({ROCR: "0,2,3", HIP: "2,0"}, "0")],
)
def test_amd_gpus_are_chosen_by_their_own_variable(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], chosen: str) -> None:
    _planted(monkeypatch, FakeTorch(4, hip=True), **variables)
    assert select_device("cuda:1") == "cuda"
    assert os.environ[HIP] == chosen
    assert {name: os.environ.get(name) for name in (CUDA, ROCR)} == {name: variables.get(name) for name in (CUDA, ROCR)}


@pytest.mark.parametrize("hiding", [HIP, ROCR, CUDA])
def test_hidden_amd_gpus_stay_hidden(monkeypatch: pytest.MonkeyPatch, hiding: str) -> None:
    _planted(monkeypatch, FakeTorch(4, hip=True), **{hiding: ""})
    with pytest.raises(NoDeviceError, match=f"{hiding}='' hides every GPU"):
        select_device("cuda:0")
    assert os.environ.get(HIP) == ("" if hiding == HIP else None)


def test_a_device_has_one_name_however_it_is_made_visible(torch: FakeTorch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "here")
    assert device_name("cpu") == "here-cpu"
    assert device_name("cuda") == "here-cuda-0"
    select_device("cuda:3")
    assert device_name("cuda") == "here-cuda-3"
    torch.uuid = "5ca1ab1e-0000"
    assert device_name("cuda") == "here-5ca1ab1e-0000"


def _plant_caches(root: Path, caches: dict[tuple[int, int], tuple[int, str, str]]) -> None:
    for (core, index), (level, size, shared) in caches.items():
        folder = root / f"sys/devices/system/cpu/cpu{core}/cache/index{index}"
        folder.mkdir(parents=True)
        for name, value in (("level", level), ("size", size), ("shared_cpu_list", shared)):
            (folder / name).write_text(f"{value}\n", encoding="utf-8")


def test_last_level_caches_of_the_cores_in_use_are_added_up(tmp_path: Path) -> None:
    second = {(core, 0): (2, "1024K", str(core)) for core in range(4)}
    third = {(core, 1): (3, "32M", "0-1" if core < 2 else "2-3") for core in range(4)}
    _plant_caches(tmp_path, second | third)
    assert cache_bytes("cpu", tmp_path, cores=[0, 1]) == 32 * 2**20
    assert cache_bytes("cpu", tmp_path, cores=[1, 2, 3]) == 64 * 2**20
    assert cache_bytes("cpu", tmp_path, cores=[9]) == UNKNOWN_CACHE


def test_cores_without_a_third_level_have_second_ones_of_their_own(tmp_path: Path) -> None:
    _plant_caches(tmp_path, {(core, 0): (2, "2M", str(core)) for core in range(3)})
    assert cache_bytes("cpu", tmp_path, cores=range(3)) == 6 * 2**20
