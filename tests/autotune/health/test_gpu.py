"""What `doctor` says of a GPU: seen, allowed, served by its driver, and left alone by heat and by other work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sonew_autotune.health import gpu
from sonew_autotune.health.system import Answer, TorchFacts
from tests.autotune.health.planted import NVIDIA_SMI, STATE, Tools, found, gpu_machine, levels, machine, plant

CHECKS = (gpu.check_gpu, gpu.check_permissions, gpu.check_driver, gpu.check_gpu_clocks)


def test_machines_in_good_order(tmp_path: Path) -> None:
    assert [levels(check, gpu_machine(tmp_path / "gpu")) for check in CHECKS] == [["ok"]] * 4
    assert [levels(check, machine(tmp_path / "cpu")) for check in CHECKS] == [["note"], ["ok"], ["ok"], ["ok"]]
    assert found(gpu.check_gpu, gpu_machine(tmp_path / "gpu"), "ok").startswith("usable: NVIDIA H100 80GB HBM3")


def test_a_gpu_that_is_seen_and_cannot_be_used(tmp_path: Path) -> None:
    system = gpu_machine(tmp_path, gpu_problem=lambda: "the driver is too old: update it")
    assert found(gpu.check_gpu, system, "problem") == "a GPU is there (/dev/nvidia0) but cannot be used | the driver is too old: update it"


@pytest.mark.parametrize(
    ("vendor", "class_", "words"),
    [
        (
            "0x10de\n",
            "0x030200\n",
            "there is a GPU of NVIDIA on the PCI bus (0000:0b) without a device file | if you mean to use it: install",
        ),
        ("0x1002\n", "0x120000\n", "start that with --device=/dev/kfd --device=/dev/dri"),
        ("0x1002\n", "0x030000\n", "there is a GPU of AMD"),
        ("0x10de\n", "0x020000\n", ""),
        ("0x8086\n", "0x030000\n", ""),
    ],
)
def test_a_gpu_on_the_bus_that_nothing_serves(tmp_path: Path, vendor: str, class_: str, words: str) -> None:
    plant(tmp_path, {"sys/bus/pci/devices/0000:0b/vendor": vendor, "sys/bus/pci/devices/0000:0b/class": class_})
    lines = [f"{line.text} | {line.fix}" for line in gpu.check_gpu(machine(tmp_path)) if "PCI" in line.text]
    assert [words in line for line in lines] == ([True] if words else [])


def test_device_files_that_may_not_be_opened(tmp_path: Path) -> None:
    plant(tmp_path, {"dev/kfd": "", "dev/dri/renderD128": ""})
    closed = gpu_machine(tmp_path, may=lambda path, _mode: path.name == "nvidiactl")
    assert [f"{line.text} | {line.fix}" for line in gpu.check_permissions(closed)] == [
        "/dev/nvidia0 may not be read and written by this user | sudo chmod a+rw the file, or ask who runs this machine",
        "/dev/kfd may not be read and written by this user | sudo usermod -aG render,video $USER, then log in again",
        "/dev/dri/renderD128 may not be read and written by this user | sudo usermod -aG render,video $USER, then log in again",
    ]
    assert levels(gpu.check_permissions, closed) == ["problem"] * 3


@pytest.mark.parametrize(
    ("header", "cuda", "level", "words"),
    [
        (NVIDIA_SMI, "13.0", "ok", "driver 580.65.06 serves CUDA 13.0, torch is built for CUDA 13.0"),
        (NVIDIA_SMI, "12.8", "ok", "serves CUDA 13.0, torch is built for CUDA 12.8"),
        (NVIDIA_SMI, "13.2", "note", "the same major version, which works with few exceptions"),
        (NVIDIA_SMI.replace("CUDA Version: 13.0", "CUDA UMD Version: 13.1"), "13.1", "ok", "serves CUDA 13.1"),
        (
            NVIDIA_SMI.replace("13.0", "12.4"),
            "13.0",
            "problem",
            "| update the driver to one that serves CUDA 13, or install torch's build for CUDA 12",
        ),
        (NVIDIA_SMI, None, "problem", "torch is built without CUDA | install torch's build for CUDA"),
        ("nothing of use", "13.0", "note", "does not say which CUDA the driver serves"),
        (
            Answer(problem="failed with status 18: Failed to initialize NVML: Driver/library version mismatch"),
            "13.0",
            "problem",
            "nvidia-smi failed with status 18: Failed to initialize NVML: Driver/library version mismatch | reboot, or load",
        ),
        (Answer(problem="gave no answer in 15 s"), "13.0", "problem", "nvidia-smi gave no answer in 15 s"),
        (Answer(found=False, problem="not installed"), "13.0", "note", "nvidia-smi is not installed"),
    ],
)
def test_nvidia_drivers(tmp_path: Path, header: str | Answer, cuda: str | None, level: str, words: str) -> None:
    facts = TorchFacts(cuda=cuda, hip=None, threads=8, gpus=())
    assert words in found(gpu.check_driver, gpu_machine(tmp_path, {"nvidia-smi": header}, torch=lambda: facts), level)


def amd_machine(root: Path, tools: dict[str, str | Answer], hip: str | None = "6.4") -> Any:
    plant(root, {"dev/kfd": "", "dev/dri/renderD128": ""})
    return machine(
        root, run=Tools(tools), torch=lambda: TorchFacts(cuda=None, hip=hip, threads=8, gpus=("MI300X",)), gpu_problem=lambda: None
    )


def test_amd_drivers_and_clocks(tmp_path: Path) -> None:
    said: dict[str, str | Answer] = {
        "rocm-smi --showdriverversion": "==== Version of System Component ====\nDriver version: 6.10.5\n",
        "rocm-smi --showperflevel": "GPU[0]\t\t: Performance Level: auto\n",
    }
    system = amd_machine(tmp_path, said)
    assert [levels(check, system) for check in CHECKS] == [["ok"], ["ok"], ["ok"], ["note", "ok"]]
    assert found(gpu.check_driver, system, "ok").startswith("AMD driver 6.10.5")
    assert "performance level of the AMD GPU: auto | for steadier times: sudo rocm-smi" in found(gpu.check_gpu_clocks, system, "note")
    assert "built without ROCm | install torch's build for ROCm" in found(gpu.check_driver, amd_machine(tmp_path, said, None), "problem")
    assert "version is unknown: rocm-smi not installed" in found(gpu.check_driver, amd_machine(tmp_path, {}), "note")


@pytest.mark.parametrize(
    ("tools", "level", "words"),
    [
        ({"nvidia-smi --query-gpu=clocks_event_reasons.active*": "0x0000000000000040"}, "problem", "it is too hot | cool it"),
        ({"nvidia-smi --query-gpu=clocks_event_reasons.active*": "0x0000000000000008"}, "problem", "the hardware slows down"),
        ({"nvidia-smi --query-gpu=clocks_event_reasons.active*": "0x0000000000000004"}, "note", "by the power limit"),
        ({"nvidia-smi --query-gpu=clocks.applications*": "1200, 1980"}, "note", "application clocks are set to 1200 MHz, by default 1980"),
        (
            {"nvidia-smi --query-gpu=name*": STATE.replace("Default", "Exclusive_Process")},
            "problem",
            "compute mode Exclusive_Process: the tuner's worker and its parent cannot both use the GPU | sudo nvidia-smi --compute-mode",
        ),
        ({"nvidia-smi --query-gpu=name*": STATE.replace("Enabled", "Disabled")}, "note", "persistence mode is off"),
        ({"nvidia-smi --query-gpu=name*": STATE.replace(", 0, 4,", ", 87, 4,")}, "note", "other work uses it (87 % busy"),
        ({"nvidia-smi --query-gpu=name*": STATE.replace(", 0, 4,", ", 0, 40000,")}, "note", "40000 of 81559 MiB"),
        ({"nvidia-smi --query-gpu=name*": Answer(problem="failed with status 9: x")}, "note", "clocks are unknown"),
    ],
)
def test_gpu_clocks(tmp_path: Path, tools: dict[str, str | Answer], level: str, words: str) -> None:
    assert words in found(gpu.check_gpu_clocks, gpu_machine(tmp_path, tools), level)


def test_older_and_newer_drivers_know_other_fields(tmp_path: Path) -> None:
    """A field that the driver does not know fails alone; the older name of the reasons is asked next. Each GPU has its lines."""
    failed = Answer(problem="failed with status 2: Field is not a valid field to query")
    system = gpu_machine(
        tmp_path,
        {
            "nvidia-smi --query-gpu=name*": f"{STATE}\n{STATE.replace('H100', 'H200').replace('1980, 1980', '[N/A], 1980')}\n",
            "nvidia-smi --query-gpu=clocks_event_reasons.active*": failed,
            "nvidia-smi --query-gpu=clocks_throttle_reasons.active*": "0x0000000000000000\n0x0000000000000020\n",
            "nvidia-smi --query-gpu=clocks.applications*": failed,
        },
    )
    lines = list(gpu.check_gpu_clocks(system))
    assert [line.level for line in lines] == ["ok", "ok", "problem"]
    assert "H200" in lines[1].text
    assert lines[2].text == "NVIDIA H200 80GB HBM3: clocks are held down: software holds the temperature down"
