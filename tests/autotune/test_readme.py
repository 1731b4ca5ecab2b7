"""The tuner's README: its program runs, and its commands exist with the options that it shows."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.autotune.commands.command_line import invoke
from tests.readme import ROOT, fenced

PAGE = (ROOT / "sonew_autotune" / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].strip() for line in PAGE.splitlines() if line.startswith("    sonew-autotune ")]


def test_the_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = fenced(PAGE, "python")
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102  # our own page
    assert capsys.readouterr().out.startswith("band 1 65536 float32 on cpu ")


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_takes_what_is_shown(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    code, out, _ = invoke(command, "--help")
    assert code == 0
    assert all(option in out for option in arguments if option.startswith("--"))


def test_every_command_is_in_the_page() -> None:
    _, out, _ = invoke("--help")
    listed = re.findall(r"^\W*([a-z-]+)  +\w", out, re.MULTILINE)
    assert {"run", "worker", "compile"} <= set(listed)
    assert [command for command in listed if f"sonew-autotune {command}" not in PAGE and f"`{command}" not in PAGE] == []
