"""Commands from outside, within this process."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

from sonew_autotune.cli import app


def invoke(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command; what it raises beyond its exit is raised here."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def entries(text: str) -> list[dict[str, Any]]:
    """The entries of a --json document."""
    document = json.loads(text)
    assert set(document) == {"schema_version", "entries"}
    assert document["schema_version"] == 1
    return list(document["entries"])
