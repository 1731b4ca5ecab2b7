"""Which device is tuned, and that an unusable GPU is never passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonew.errors import InvalidConfigError
from sonew_autotune.device import Device, NoDeviceError, find_device, gpus_seen

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
