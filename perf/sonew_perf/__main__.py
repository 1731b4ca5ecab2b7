"""`python -m sonew_perf` is `sonew-perf`."""

from sonew_perf.cli import app

app()
