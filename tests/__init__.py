"""Tests, held to one another from the float64 oracle up to the surfaces. `python -m tests` runs every check."""
