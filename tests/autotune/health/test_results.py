"""What `doctor` says of stored results, and that a check which fails is a line and no crash."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from sonew.tuned import Entry
from sonew_autotune.health import results
from sonew_autotune.health.doctor import CHECKS, examine
from sonew_autotune.health.system import Answer, Line, StoredFacts, System, run_tool, triton_cache
from tests.autotune.entries import sound_entry, static_entry
from tests.autotune.health.planted import found, levels, machine, raising


def holding(root: Path, *entries: tuple[Entry, tuple[str, ...]], problems: tuple[str, ...] = ()) -> System:
    """A machine whose stores hold these entries, each with the reasons against it."""
    return machine(root, stored=lambda: StoredFacts(entries=entries, problems=problems))


def test_stores(tmp_path: Path) -> None:
    usable, stale, other = (
        (sound_entry(), ()),
        (sound_entry(band=2), ("stale: toolchain is 'a', here 'b'",)),
        (sound_entry(band=4), ("device",)),
    )
    assert found(results.check_stores, holding(tmp_path), "note").endswith("analytic defaults are used | sonew-autotune run")
    assert levels(results.check_stores, holding(tmp_path, usable, other)) == ["ok"]
    assert found(results.check_stores, holding(tmp_path, other), "note").startswith(
        "1 stored entries: 0 for this machine as it is, 1 for others"
    )
    assert found(results.check_stores, holding(tmp_path, usable, stale), "note") == (
        "1 entries are outdated: the compiler or the kernels have changed since | sonew-autotune run makes them anew"
    )
    broken = holding(tmp_path, usable, problems=("user store x: not readable as JSON",))
    assert found(results.check_stores, broken, "problem") == "user store x: not readable as JSON | sonew-autotune check tells more"


def test_targets_that_were_only_ever_compiled(tmp_path: Path) -> None:
    ran = replace(static_entry(), kind="measured")
    other = static_entry(capability="cuda:75")
    none = found(results.check_targets, holding(tmp_path), "note")
    assert none.startswith(
        "only ever compiled, never run, as far as the stores know: cuda:90 (0 static entries), hip:gfx942 (0 static entries) | on such"
    )
    system = holding(tmp_path, (ran, ()), (static_entry(), ("x",)), (other, ("x",)))
    assert found(results.check_targets, system, "ok").startswith("cuda:90 ran: 1 measured entries")
    assert ": hip:gfx942 (0 static entries), cuda:75 (1 static entries)" in found(results.check_targets, system, "note")


def test_every_check_survives_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    """Whatever fact cannot be told, each check still says something, and nothing is raised."""
    names = ("requires", "version", "run", "may", "free", "torch", "compiler", "cpu_backend", "gpu_problem", "seen", "stored")
    silent = machine(tmp_path, **{name: raising(RuntimeError(f"no {name}")) for name in names})
    said = list(examine(silent))
    assert {check for check, _ in said} == {name for name, _ in CHECKS}
    broken = {check: line for check, line in said if line.text.startswith("this could not be checked: RuntimeError: no ")}
    assert {"packages", "cpu backend", "gpu", "gpu driver", "cores", "folders", "store", "targets"} <= set(broken)
    assert {line.level for line in broken.values()} == {"note"}
    assert list(examine(silent, (("x", raising(ZeroDivisionError("y"))),))) == [
        ("x", Line(level="note", text="this could not be checked: ZeroDivisionError: y"))
    ]


def test_lines_before_a_check_fails_are_kept(tmp_path: Path) -> None:
    said = [line.level for check, line in examine(machine(tmp_path, cpu_backend=raising(OSError("x")))) if check == "cpu backend"]
    assert said == ["ok", "note"]


def test_a_tool_is_run_with_its_arguments_and_not_waited_for(tmp_path: Path) -> None:
    python = sys.executable
    assert run_tool((python, "-c", "print('said')")) == Answer(output="said\n")
    failed = run_tool((python, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"))
    assert failed.problem == "failed with status 3: why"
    assert run_tool((python, "-c", "import time; time.sleep(60)"), seconds=0.2).problem == "gave no answer in 0 s"
    assert run_tool(("no-such-tool-anywhere",)) == Answer(found=False, problem="not installed")
    text = tmp_path / "text"
    text.write_text("no program")
    text.chmod(0o755)
    assert run_tool((str(text),)).problem is not None


def test_tritons_cache_is_where_triton_puts_it(tmp_path: Path) -> None:
    assert triton_cache({}, tmp_path) == tmp_path / ".triton" / "cache"
    assert triton_cache({"TRITON_HOME": "elsewhere"}, tmp_path) == Path("elsewhere/.triton/cache")
    assert triton_cache({"TRITON_HOME": "elsewhere", "TRITON_CACHE_DIR": "cache"}, tmp_path) == Path("cache")
