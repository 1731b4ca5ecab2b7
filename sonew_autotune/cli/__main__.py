"""`python -m sonew_autotune.cli`."""

from sonew_autotune.cli import app

app()
