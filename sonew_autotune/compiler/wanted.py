"""What is to be compiled, as it is asked for on a command line: checked, varied by overrides, and handed to the compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from sonew.config import GRAFTS
from sonew.errors import InvalidConfigError
from sonew_autotune.compiler.kernel import ENTRIES, STORAGE_TYPES, Compiled, Dtypes, compile_kernel
from sonew_autotune.compiler.targets import parse_target
from sonew_autotune.compiler.toolchain import check_folder, compile_elsewhere
from sonew_kernels.spec import SPECS, SUPPORTED_BANDS

STATES: Final = ("float32", "bfloat16")
CHAINS: Final = ("tensor", "row")


def _choice(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        msg = f"{name}={value!r} is not one of {list(allowed)}. Pass for example --{name} {allowed[1 if name == 'band' else 0]}."
        raise InvalidConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The kernels of an entry for a target.

    Attributes:
        band: off-diagonals. target: "cuda:90" and the like. entry: one of `kernel.ENTRIES`.
        dtype: of parameters and gradients. state: of state and direction.
        graft: whose norm the direction takes. chain: "tensor", "row" or a length.
        config: pairs "name=value" over the default configuration of the band.
        triton: a folder that holds another Triton, "": the one here.

    Raises:
        InvalidConfigError: a value outside its set; the configuration is checked when it is asked for.
    """

    band: int = 1
    target: str = "cuda:90"
    entry: str = "table"
    dtype: str = "float32"
    state: str = "float32"
    graft: str = "adam"
    chain: str = "tensor"
    config: tuple[str, ...] = ()
    triton: str = ""

    def __post_init__(self) -> None:
        """Check every choice."""
        _choice("band", self.band, SUPPORTED_BANDS)
        _choice("entry", self.entry, tuple(ENTRIES))
        _choice("dtype", self.dtype, tuple(STORAGE_TYPES))
        _choice("state", self.state, STATES)
        _choice("graft", self.graft, GRAFTS)
        parse_target(self.target)
        if self.triton:
            check_folder(Path(self.triton))
        if self.chain not in CHAINS and not (self.chain.isdecimal() and int(self.chain) > 0):
            msg = f"chain={self.chain!r} is not one of {list(CHAINS)} or a length of at least 1. Pass for example --chain row."
            raise InvalidConfigError(msg)

    @property
    def dtypes(self) -> Dtypes:
        """Storage types of the four arrays."""
        return Dtypes(self.dtype, self.dtype, self.state, self.state)

    @property
    def launch_config(self) -> dict[str, int]:
        """The default configuration of the band with the pairs put over it.

        Raises:
            InvalidConfigError: a pair that is none, an unknown name, or a point outside the space.
        """
        spec = SPECS["triton"]
        config = spec.default(self.band)
        for pair in self.config:
            name, equals, value = pair.partition("=")
            if not equals or name not in config or not value.isdecimal():
                msg = f"config={pair!r} is not name=integer with a name of {list(config)}. Pass for example --config block=256."
                raise InvalidConfigError(msg)
            config[name] = int(value)
        if reason := spec.rejects(config, self.band):
            text = " ".join(f"{name}={value}" for name, value in config.items())
            msg = f"config {text} is not allowed: {reason}. Pass other values of --config."
            raise InvalidConfigError(msg)
        return config

    def described(self) -> dict[str, Any]:
        """Everything but where the compiler lies, for documents."""
        head = {name: getattr(self, name) for name in ("target", "band", "entry", "graft", "chain")}
        return {**head, "dtypes": self.dtypes._asdict(), "config": self.launch_config}

    def command(self) -> str:
        """The command line that compiles the same, without what is the default in every version."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("config", "triton")}
        usual = {"entry": "table", "graft": "adam", "chain": "tensor"}
        options = [f"--{name} {value}" for name, value in named.items() if usual.get(name) != value]
        return " ".join(["sonew-autotune compile", *options, *(f"--config {pair}" for pair in self.config)])


def varied(wanted: Wanted, overrides: str) -> Wanted:
    """`wanted` with "name=value,name=value" put over it: a name of the configuration or of a field of `Wanted`; "" changes nothing.

    Raises:
        InvalidConfigError: a pair that is none, an unknown name, or a value outside its set.
    """
    tunables = list(SPECS["triton"].default(wanted.band))
    names = [field.name for field in fields(Wanted) if field.name != "config"]
    changes: dict[str, Any] = {}
    pairs: list[str] = []
    for pair in filter(None, (part.strip() for part in overrides.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or name not in (*tunables, *names):
            msg = (
                f"{pair!r} in --diff is not name=value with a name of {[*tunables, *names]}. Pass for example --diff block=1024 block=512."
            )
            raise InvalidConfigError(msg)
        if name in tunables:
            pairs.append(pair)
        else:
            changes[name] = value
    if "band" in changes:
        if not changes["band"].isdecimal():
            msg = f"band={changes['band']!r} is not one of {list(SUPPORTED_BANDS)}. Pass for example --diff band=1 band=4."
            raise InvalidConfigError(msg)
        changes["band"] = int(changes["band"])
    return replace(wanted, **changes, config=(*wanted.config, *pairs))


def kernels_of(wanted: Wanted, kernel: str | None) -> tuple[str, ...]:
    """The kernel asked for, or all of the entry.

    Raises:
        InvalidConfigError: the entry has no such kernel.
    """
    if kernel is None:
        return ENTRIES[wanted.entry]
    _choice("kernel", kernel, ENTRIES[wanted.entry])
    return (kernel,)


def compile_wanted(wanted: Wanted, kernels: Sequence[str], *, line_info: bool = True) -> list[Compiled]:
    """Compile kernels, here or by the Triton of another folder; `line_info` and errors as in `kernel.compile_kernel`."""
    arguments: Mapping[str, Any] = {
        "config": wanted.launch_config,
        "band": wanted.band,
        "target": wanted.target,
        "dtypes": wanted.dtypes,
        "graft": wanted.graft,
        "entry": wanted.entry,
        "chained": wanted.chain != "tensor",
        "line_info": line_info,
    }
    if wanted.triton:
        return compile_elsewhere(Path(wanted.triton), [{"kernel": kernel, **arguments} for kernel in kernels])
    return [compile_kernel(kernel, **arguments) for kernel in kernels]
