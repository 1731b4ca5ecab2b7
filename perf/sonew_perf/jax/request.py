"""What a process that times JAX is asked: plain data, as JSON. No framework is loaded here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from sonew_perf.steps.workloads import Workload

SONEW: Final = "SONew"
ADAMW: Final = "optax.adamw"
TRITON: Final = "triton"
XLA: Final = "reference"  # the backend's name; what runs is XLA's compilation of the reference
LARGEST_XLA_BAND: Final = 4  # XLA unrolls the elimination: wider ones take minutes to compile
NAMES: Final = {TRITON: "Triton", XLA: "XLA"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One jitted, donated step.

    Attributes:
        family: `SONEW` or `ADAMW`. band, backend: of SONew; the backend is explicit, so it never falls back.
    """

    family: str = SONEW
    band: int = 1
    backend: str = XLA

    @property
    def case(self) -> str:
        """Its name, unique in a case."""
        return self.family if self.family == ADAMW else f"{self.family} band {self.band}, {NAMES[self.backend]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JaxTiming:
    """One case: methods that are interleaved in one run.

    Attributes:
        workload: the leaves.
        methods: what is timed; multiples are of `ADAMW`.
        device: "cuda" or "cpu".
        rounds: samples per method.
    """

    workload: Workload
    methods: tuple[Method, ...]
    device: str
    rounds: int

    @property
    def case_names(self) -> tuple[str, ...]:
        """What is timed."""
        return tuple(method.case for method in self.methods)

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> JaxTiming:
        """The request that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        workload = Workload(fields["workload"]["name"], tuple(map(tuple, fields["workload"]["shapes"])))
        methods = tuple(Method(**method) for method in fields["methods"])
        return cls(workload=workload, methods=methods, device=fields["device"], rounds=fields["rounds"])
