"""Building and caching of the compiled CPU library: keys, damage, locks, and errors that name the fix."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sonew import rounding
from sonew.backends import native_build
from sonew.backends.native_build import NativeBuildError, find_or_build, is_sound
from sonew_kernels.spec import Column, Graft, Slot, Storage

BAND = 0


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of the test's own, a compiler that only counts, and no choice of the caller's."""
    monkeypatch.setenv("SONEW_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)


def counting_compiler(monkeypatch: pytest.MonkeyPatch, folder: Path, *, build: str = 'echo library > "$out"') -> Path:
    """Set $CXX to a script that appends a line per build to the returned log; `build` makes the file "$out"."""
    log, script = folder / "builds", folder / "compiler"
    script.write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && echo "compiler 1.0" && exit 0
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
echo built >> {log}
{build}
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return log


def builds(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_the_real_compiler_builds_what_the_cache_then_gives() -> None:
    """The first call compiles, the second finds the same untouched file."""
    path = find_or_build(BAND)
    first = path.stat()
    assert path.read_bytes()[:4] == b"\x7fELF"
    assert find_or_build(BAND) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert [p.name for p in path.parent.iterdir() if p.suffix not in (".so", ".lock")] == []


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_a_damaged_library_is_built_again(damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The digest at the end tells; loading such a file could kill the process."""
    log = counting_compiler(monkeypatch, tmp_path)
    path = find_or_build(BAND)
    sound = path.read_bytes()
    path.write_bytes({"truncated": sound[:-5], "one bit": bytes([sound[0] ^ 1]) + sound[1:], "empty": b""}[damage])
    assert not is_sound(path)
    assert find_or_build(BAND) == path
    assert path.read_bytes() == sound
    assert builds(log) == 2


def test_the_key_holds_all_that_decides_the_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Band, compiler, its version, flags, CPU and source: another value of any is another file."""
    command = native_build.find_compiler()
    paths = {native_build.library_path(band, command) for band in (0, 1)}
    paths.add(native_build.library_path(0, (*command, "-pipe")))
    for name, value in (
        ("compiler_version", lambda _command: "another 1.0"),
        ("cpu_features", lambda: "mmx"),
        ("source_hash", lambda _name: "0123456789abcdef"),
        ("FLAGS", ("-O1",)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(native_build, name, value)
            paths.add(native_build.library_path(0, command))
    assert len(paths) == 7


def test_builds_at_the_same_time_build_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Others wait for the lock and then find the file."""
    log = counting_compiler(monkeypatch, tmp_path, build='sleep 0.2; echo library > "$out"')
    native_build.compiler_version(native_build.find_compiler())
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(find_or_build, [BAND] * 4))
    assert len(set(paths)) == 1
    assert is_sound(paths[0])
    assert builds(log) == 1


def test_a_killed_holder_leaves_no_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The system drops the lock of a process that dies in the middle of a build."""
    log = counting_compiler(monkeypatch, tmp_path)
    lock = native_build.library_path(BAND, native_build.find_compiler()).with_suffix(".lock")
    lock.parent.mkdir()
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(find_or_build, BAND)
            assert not waiting.done()
            assert builds(log) == 0
            holder.kill()
            assert is_sound(waiting.result(timeout=30))


def test_without_a_compiler_the_reason_names_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing on the path, or a CXX that is no program."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NativeBuildError, match=r"no C\+\+ compiler found \(tried c\+\+, g\+\+, clang\+\+\): install g\+\+ or set CXX"):
        find_or_build(BAND)
    monkeypatch.setenv("CXX", "no-such-compiler -v")
    with pytest.raises(NativeBuildError, match=r"CXX='no-such-compiler -v', which is no program here"):
        find_or_build(BAND)


def test_a_failing_build_shows_the_compilers_words_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message carries status and output; no half-made file stays."""
    counting_compiler(monkeypatch, tmp_path, build='echo "cpu.cpp: error: no such thing" >&2; echo half > "$out"; exit 3')
    with pytest.raises(NativeBuildError, match=r"(?s)failed with status 3: install g\+\+ 9 or newer or set CXX.*error: no such thing"):
        find_or_build(BAND)
    assert {p.suffix for p in (tmp_path / "cache").iterdir()} == {".lock"}


def test_an_unusable_cache_names_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file where the folder should be."""
    counting_compiler(monkeypatch, tmp_path)
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(NativeBuildError, match="make it writable or set SONEW_CACHE_DIR"):
        find_or_build(BAND)


def test_definitions_state_every_enumeration_and_its_size() -> None:
    """What the C++ source is compiled with is what spec.py says."""
    options = native_build.definitions()
    assert f"-DCOLUMN_STATS={Column.STATS.value}" in options
    assert f"-DCOLUMNS={len(Column)}" in options
    assert f"-DGRAFT_RMSPROP={Graft.RMSPROP.value}" in options
    assert f"-DNOISE_STRIDE={rounding.STRIDE}u" in options
    assert len(options) == len(set(options)) == len(Column) + len(Slot) + len(Graft) + len(Storage) + 4 + 4


def test_arithmetic_is_not_relaxed() -> None:
    """No flag that deletes NaN tests or flushes denormals; contraction is set explicitly."""
    assert not {"-ffast-math", "-Ofast", "-ffinite-math-only", "-funsafe-math-optimizations"} & set(native_build.FLAGS)
    assert any(flag.startswith("-ffp-contract=") for flag in native_build.FLAGS)


def test_the_cpu_is_described() -> None:
    """Model and features are not empty where the system lists them."""
    assert native_build.cpu_model()
    assert native_build.cpu_features()
    assert os.cpu_count()
