"""Tuning: measures kernel configurations on this machine and keeps the winners where `sonew` finds them.

A whole program::

    from sonew_autotune import Problems, make_settings, tune

    if __name__ == "__main__":  # trials run in a process that imports this program
        results = tune(Problems(bands=[1], sizes=[2**22]), settings=make_settings("quick"))

Names are loaded when they are first used: importing the package loads no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sonew_autotune.api import tune
    from sonew_autotune.search.results import Result
    from sonew_autotune.settings import Problems, Settings, make_settings

__all__ = ["Problems", "Result", "Settings", "make_settings", "tune"]

_HOMES: Final = {
    "Problems": "sonew_autotune.settings",
    "Result": "sonew_autotune.search.results",
    "Settings": "sonew_autotune.settings",
    "make_settings": "sonew_autotune.settings",
    "tune": "sonew_autotune.api",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # any of __all__
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)
