"""Errors of the measurements: each names what was found, what was expected and the fix."""

from __future__ import annotations

from sonew.errors import SonewError


class DataError(SonewError, ValueError):
    """A data file is missing, or not what its format says."""


class RecordError(SonewError, ValueError):
    """A record file cannot be read as one."""


class MeasurementError(SonewError, RuntimeError):
    """A process that measures ended without a result."""


class ProcessGoneError(MeasurementError):
    """A process that measures is gone, or does not answer: nothing more can be asked of it."""
