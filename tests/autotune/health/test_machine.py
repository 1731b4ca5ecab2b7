"""What `doctor` says of cores, clocks, load, memory and folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sonew_autotune.health import machine as checks
from sonew_autotune.health.system import Folder, TorchFacts
from tests.autotune.health.planted import found, levels, machine, plant

GIB = 2**30


def test_a_machine_in_good_order(tmp_path: Path) -> None:
    system = machine(tmp_path)
    every = (checks.check_cores, checks.check_cpu_clocks, checks.check_load, checks.check_memory, checks.check_folders)
    assert [levels(check, system) for check in every] == [["ok"]] * 5


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/user/job", "sys/fs/cgroup/user/cpu.max": "200000 100000"}, 2.0),
        (
            {
                "proc/self/cgroup": "0::/user/job",
                "sys/fs/cgroup/user/cpu.max": "200000 100000",
                "sys/fs/cgroup/user/job/cpu.max": "400000 100000",
            },
            2.0,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 3.0),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/box",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        ({"sys/fs/cgroup/cpu.max": "garbage"}, None),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    plant(tmp_path, files)
    assert checks.cpu_quota(machine(tmp_path)) == quota


def test_threads_beside_cores(tmp_path: Path) -> None:
    def torch() -> TorchFacts:
        return TorchFacts(cuda=None, hip=None, threads=8, gpus=())

    assert "8 threads; this process may use 4 cores" in found(checks.check_cores, machine(tmp_path, cores=4, torch=torch), "problem")
    plant(tmp_path, {"sys/fs/cgroup/cpu.max": "250000 100000"})
    assert found(checks.check_cores, machine(tmp_path, torch=torch), "problem").endswith(
        "this process may use 8 cores, time for 2.5: threads wait for one another | export OMP_NUM_THREADS=2"
    )


def test_governor_and_turbo(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    system = machine(tmp_path)
    plant(tmp_path, {f"{cpu}/cpu1/cpufreq/scaling_governor": "powersave\n", f"{cpu}/intel_pstate/no_turbo": "0\n"})
    assert "CPU governor: performance, powersave | for steadier times: sudo cpupower" in found(checks.check_cpu_clocks, system, "note")
    assert "turbo is on" in found(checks.check_cpu_clocks, system, "ok")
    plant(tmp_path, {f"{cpu}/intel_pstate/no_turbo": "1\n"})
    assert "turbo is off" in found(checks.check_cpu_clocks, system, "ok")
    for core in (0, 1):
        (tmp_path / cpu / f"cpu{core}/cpufreq/scaling_governor").unlink()
    assert "not told here" in found(checks.check_cpu_clocks, system, "note")


def test_load_and_memory(tmp_path: Path) -> None:
    assert "5.0 processes ran at a time" in found(checks.check_load, machine(tmp_path, load=5.0), "note")
    system = machine(tmp_path)
    assert checks.memory_left(system) == 16 * GIB
    plant(tmp_path, {"sys/fs/cgroup/memory.max": str(3 * GIB), "sys/fs/cgroup/memory.current": str(GIB)})
    assert "2.0 GiB of memory are free: the largest models cannot be tuned" in found(checks.check_memory, system, "note")
    plant(tmp_path, {"sys/fs/cgroup/memory.current": str(4 * GIB)})
    assert "0.0 GiB of memory are free: trials may fail" in found(checks.check_memory, system, "problem")
    plant(tmp_path, {"sys/fs/cgroup/memory.max": "max", "proc/meminfo": "nothing"})
    assert "not told" in found(checks.check_memory, system, "note")


def test_folders(tmp_path: Path) -> None:
    plant(tmp_path, {"data/a": "x" * 2**20, "data/below/b": "x" * 2**20, "file": ""})
    (line,) = checks.check_folders(machine(tmp_path))
    assert line.text == f"store: {tmp_path / 'data'}, 2.0 MiB, 100.0 GiB free"
    cases: tuple[tuple[Path, dict[str, Any], str, str], ...] = (
        (tmp_path / "new" / "deep", {}, "ok", "not made yet, 100.0 GiB free"),
        (tmp_path / "file" / "below", {}, "problem", f"{tmp_path / 'file'} is no folder | move that file away, or set SONEW_STORE"),
        (
            tmp_path / "data",
            {"may": lambda _path, mode: not mode & os.W_OK},
            "problem",
            "cannot be written | make it writable, or set SONEW_",
        ),
        (tmp_path / "data", {"free": lambda _folder: GIB}, "note", "1.0 GiB free | free space there, or set SONEW_STORE"),
        (tmp_path / "data", {"free": lambda _folder: 0}, "problem", "0.0 GiB free: nearly full | free space there"),
    )
    for path, changes, level, words in cases:
        system = machine(tmp_path, folders=(Folder(name="store", path=path, move="set SONEW_STORE"),), **changes)
        assert words in found(checks.check_folders, system, level)
    assert not (tmp_path / "new").exists()


def test_the_size_of_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    plant(tmp_path, {"a/x": "12345", "a/b/y": "123"})
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert checks.folder_size(tmp_path / "a") == (8, True), "links to folders are not followed"
    assert checks.folder_size(tmp_path / "a", seconds=-1.0)[1] is False
