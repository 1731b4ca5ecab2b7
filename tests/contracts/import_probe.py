"""Imports modules of the source tree given first and prints, as JSON, what that loaded and every effect it had.

An effect is an environment access, a device query, a process, a loaded library or a written file that our own code causes while it is
imported. What a third-party package does while *it* is imported is not ours.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

ROOT: Final = Path(sys.argv[1]).resolve()
OWN: Final = tuple(str(ROOT / folder) + os.sep for folder in ("kernels", "sonew", "sonew_autotune", "perf"))
DEVICE_QUERIES: Final = {
    "torch.cuda": ("_lazy_init", "current_device", "device_count", "get_device_capability", "get_device_properties", "is_available"),
    "torch.library": ("Library",),
    "jax": ("default_backend", "device_count", "devices", "local_devices"),
}
AUDITED: Final = ("ctypes.dlopen", "os.mkdir", "os.system", "socket.connect", "subprocess.Popen")


def culprit() -> str | None:
    """The line of our code that is being executed, unless somebody else's import stands between."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return None
        if file.startswith(OWN):
            return f"{Path(file).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def watch(owner: Any, name: str, label: str, effects: list[str]) -> None:
    """Record calls of `owner.name` that our code causes."""
    original: Callable[..., Any] = getattr(owner, name)

    def recording(*args: Any, **kwargs: Any) -> Any:
        line = culprit()
        detail = f" {args[1]}" if owner is os._Environ and len(args) > 1 else ""
        # triton.jit itself asks TRITON_* when it decorates a kernel: the reason why interpreted kernels need a process of their own
        if line is not None and not detail.startswith(" TRITON_"):
            effects.append(f"{line} {label}{detail}")
        return original(*args, **kwargs)

    setattr(owner, name, recording)


def audit(effects: list[str]) -> None:
    """Record processes, libraries, connections and written files that our code causes."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[1], str) and bool(set(args[1]) & set("wax+"))
        if (writes or event in AUDITED) and (line := culprit()) is not None:
            effects.append(f"{line} {event} {args[0]}")

    sys.addaudithook(hook)


def main(modules: list[str]) -> None:
    """Watch, import, report."""
    effects: list[str] = []
    for name in ("__delitem__", "__getitem__", "__iter__", "__setitem__"):
        watch(os._Environ, name, "environment", effects)
    for owner, queries in DEVICE_QUERIES.items():
        if any(module.split(".", 1)[0] == owner.split(".", 1)[0] for module in modules):
            for query in queries:
                watch(importlib.import_module(owner), query, f"{owner}.{query}", effects)
    audit(effects)
    for module in modules:
        importlib.import_module(module)
    print(json.dumps({"loaded": sorted({name.split(".", 1)[0] for name in sys.modules}), "effects": effects}))


if __name__ == "__main__":
    main(sys.argv[2:])
