"""Triton's interpreter in a quarter less time, for every process that runs kernels in it. Imports Triton: set TRITON_INTERPRET before."""

from __future__ import annotations

from typing import Any

import triton.language as tl
from triton.runtime import interpreter


def patch_language_once() -> None:
    """Let the interpreter replace the functions of `triton.language` once per launch, not again at each call of a device function.

    Each time it looks through all that the language has. Within a launch a second look finds nothing to replace: what is still to be
    replaced has Triton's mark, and what was replaced has none.
    """
    replace = interpreter._patch_lang

    def once(fn: Any) -> Any:
        languages = [value for value in fn.__globals__.values() if value is tl or value is tl.core]
        return replace(fn) if any(tl.core.is_builtin(language.load) for language in languages) else None

    interpreter._patch_lang = once
