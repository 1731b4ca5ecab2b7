"""Errors: every message names the value, the allowed set and the fix."""

from __future__ import annotations


class SonewError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidConfigError(SonewError, ValueError):
    """A setting is outside its allowed set."""


class UnsupportedProblemError(SonewError, NotImplementedError):
    """The request is meaningful but nothing here implements it."""


class SonewFallbackWarning(UserWarning):
    """A slower backend was chosen because a faster one cannot run here; the message says which and why."""


class BackendUnavailableError(SonewError, RuntimeError):
    """An explicitly requested backend cannot run here; the message lists every backend with its reason."""


class CaptureError(SonewError, RuntimeError):
    """A CUDA graph capture that cannot hold what it should; raised before anything is launched, the message says what to do first."""
