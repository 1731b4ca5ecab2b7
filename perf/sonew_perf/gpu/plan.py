"""What a run would do: units of work in their order, each with the seconds it needs. Plain data, made on any machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sonew_autotune.measure import REPORTED_ROUNDS
from sonew_perf.gpu.timing import Timing
from sonew_perf.jax.request import ADAMW, TRITON, XLA, JaxTiming
from sonew_perf.jax.request import Method as JaxMethod
from sonew_perf.steps.cases import whole_model
from sonew_perf.steps.peers import COMPILED, COPY, DIRECTION, EAGER, FOREACH, FUSED, GRAPH, REFERENCE, SONEW, Method
from sonew_perf.steps.workloads import Workload, one_tensor

BANDS: Final = (0, 1, 2, 3, 4, 6, 8, 16)
MODEL_BANDS: Final = (1, 4)
STATES: Final = ("float32", "bfloat16")
BENCH_ELEMENTS: Final = 64 * 2**20
TUNED_MODEL: Final = "mnist-autoencoder"
ROUNDS: Final = 9
LADDER: Final = "ladder"
JAX: Final = "jax"
STAGES: Final = (LADDER, "tune", "bench", "models", JAX)
JAX_TESTS: Final = "JAX tests on the device"
JAX_SIZES: Final = (2**10, 2**16, 2**20, 2**24, BENCH_ELEMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The tests of a folder, on the device.

    Attributes:
        tests: folder or file, below the repository's root or absolute.
        marker: which of them, as pytest's -m.
    """

    tests: str = "tests/kernels/gpu"
    marker: str = "gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Racecheck:
    """compute-sanitizer's search for races, over two small steps.

    Attributes:
        program: the sanitizer, found on PATH. bands: stepped one after the other.
    """

    program: str = "compute-sanitizer"
    bands: tuple[int, ...] = (1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tune:
    """`sonew-autotune run` on one band; fields as in `sonew_autotune.settings`."""

    band: int
    sizes: tuple[int, ...]
    models: tuple[str, ...] = ()
    states: tuple[str, ...] = ("float32",)
    device: str
    trials: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JaxLadder:
    """The tests of the JAX surface, on the device.

    Attributes:
        ladder: which. device: "cuda", or "cpu" where tests prove the driver.
    """

    ladder: Ladder = Ladder(tests="tests/jax/gpu")
    device: str = "cuda"


Task = Ladder | Racecheck | Tune | Timing | JaxLadder | JaxTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What is done, or continued, as a whole.

    Attributes:
        stage: one of `STAGES`. name: unique.
        seconds: what it needs on an H100-class machine that has compiled nothing yet: estimated, not measured.
        elastic: it takes what the others leave, at least `seconds`.
        task: what is done.
    """

    stage: str
    name: str
    seconds: float
    elastic: bool = False
    task: Task

    @property
    def cases(self) -> tuple[str, ...]:
        """What it consists of, for people."""
        task = self.task
        if isinstance(task, Timing | JaxTiming):
            return task.case_names
        if isinstance(task, Tune):
            return tuple(
                f"{name}, {state} state" for state in task.states for name in (*(f"{size} elements" for size in task.sizes), *task.models)
            )
        if isinstance(task, Racecheck):
            return tuple(f"two steps of band {band}" for band in task.bands)
        ladder = task.ladder if isinstance(task, JaxLadder) else task
        return (f"pytest {ladder.tests} -m {ladder.marker!r}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large everything is; the default is the real run, tests make small ones.

    Attributes:
        device: "cuda", or "cpu" where tests prove the driver.
        bands: tuned and timed on the one tensor. elements: of that tensor.
        small_models: also meet the compiled and the plain form. models: meet AdamW only.
        split_models: too large for all methods at once: a unit per SONew setting.
        tuned_models: tuned beside the one tensor, at `MODEL_BANDS`. trials: of the tuner; None takes its own number.
        compiler: of the compiled form. rounds: of every timing.
        ladder, racecheck: the two units of the first stage.
        jax_ladder: tests of the JAX surface. jax_sizes: elements of the one leaf that it steps. jax_models: steps their leaves.
    """

    device: str = "cuda"
    bands: tuple[int, ...] = BANDS
    elements: int = BENCH_ELEMENTS
    small_models: tuple[Workload, ...] = (whole_model("mnist-autoencoder"),)
    models: tuple[Workload, ...] = (whole_model("gpt2-small"),)
    split_models: tuple[Workload, ...] = (whole_model("llama-1b"),)
    tuned_models: tuple[str, ...] = (TUNED_MODEL,)
    compiler: str = "inductor"
    rounds: int = ROUNDS
    trials: int | None = None
    ladder: Ladder = Ladder()
    racecheck: Racecheck = Racecheck()
    jax_ladder: JaxLadder = JaxLadder()
    jax_sizes: tuple[int, ...] = JAX_SIZES
    jax_models: tuple[Workload, ...] = (whole_model("gpt2-small"),)

    def __post_init__(self) -> None:
        """Numbers that are shown need enough rounds."""
        if self.rounds < REPORTED_ROUNDS:
            msg = f"rounds={self.rounds} is below {REPORTED_ROUNDS}, the fewest behind a number that is shown. Pass rounds={ROUNDS}."
            raise ValueError(msg)


FULL: Final = Scale()
SETTINGS: Final = tuple((band, state) for band in MODEL_BANDS for state in STATES)


def ours(band: int, state: str, ways: tuple[str, ...] = (EAGER, GRAPH)) -> Method:
    """SONew at a band, with float32 or bfloat16 state and direction."""
    return Method(family=SONEW, band=band, state=state, ways=ways)


def _timing(scale: Scale, workload: Workload, *methods: Method) -> Timing:
    return Timing(workload=workload, methods=methods, device=scale.device, rounds=scale.rounds)


def _tune_units(scale: Scale) -> list[Unit]:
    tasks = [
        Tune(
            band=band,
            sizes=(scale.elements,),
            models=scale.tuned_models if band in MODEL_BANDS else (),
            states=STATES if band in MODEL_BANDS else STATES[:1],
            device=scale.device,
            trials=scale.trials,
        )
        for band in scale.bands
    ]
    return [Unit(stage="tune", name=f"tune band {task.band}", seconds=12, elastic=True, task=task) for task in tasks]


def bench_name(elements: int, band: int | None = None) -> str:
    """Name of the unit that times one band on the one tensor, or of the one in which it meets torch.compile."""
    return f"{_size(elements)}, peers" if band is None else f"{_size(elements)}, band {band}"


def jax_name(what: int | str) -> str:
    """Name of the unit that steps one leaf of so many elements, or a model's, by JAX."""
    return f"JAX, {what if isinstance(what, str) else _size(what)}"


def _size(elements: int) -> str:
    for unit, name in ((2**20, "Mi"), (2**10, "Ki")):
        if elements % unit == 0:
            return f"{elements // unit} {name}"
    return str(elements)


def model_name(model: str, band: int | None = None, state: str = "") -> str:
    """Name of a model's unit, or of one of its parts."""
    return model if band is None else f"{model}, band {band} {state}"


def _bench_units(scale: Scale) -> list[Unit]:
    tensor = one_tensor(scale.elements)
    roofs = Method(family=COPY, ways=(EAGER,)), Method(family=FUSED, ways=(EAGER,))
    units = []
    for band in scale.bands:
        sonew = [ours(band, state, (EAGER, DIRECTION)) for state in STATES]
        units.append(Unit(stage="bench", name=bench_name(scale.elements, band), seconds=10, task=_timing(scale, tensor, *roofs, *sonew)))
    peers = Method(family=COPY, ways=(EAGER,)), *_adamw(), ours(1, "float32"), Method(family=COMPILED, band=1, compiler=scale.compiler)
    return [*units, Unit(stage="bench", name=bench_name(scale.elements), seconds=35, task=_timing(scale, tensor, *peers))]


def _adamw() -> tuple[Method, Method]:
    return Method(family=FUSED), Method(family=FOREACH)


def _model_units(scale: Scale) -> list[Unit]:
    sonew = [ours(band, state) for band, state in SETTINGS]
    slow = [Method(family=COMPILED, band=1, compiler=scale.compiler)]
    slow += [Method(family=REFERENCE, band=band, ways=(EAGER,)) for band in MODEL_BANDS]
    small = [
        Unit(stage="models", name=model_name(model.name), seconds=60, task=_timing(scale, model, *_adamw(), *sonew, *slow))
        for model in scale.small_models
    ]
    middle = [
        Unit(stage="models", name=model_name(model.name), seconds=25, task=_timing(scale, model, *_adamw(), *sonew))
        for model in scale.models
    ]
    beside = Method(family=FUSED), Method(family=FOREACH, ways=(EAGER,))  # its graph would keep another two copies of the model
    large = [
        Unit(stage="models", name=model_name(model.name, band, state), seconds=15, task=_timing(scale, model, *beside, ours(band, state)))
        for model in scale.split_models
        for band, state in SETTINGS
    ]
    return [*small, *middle, *large]


def jax_ours(band: int, backend: str) -> JaxMethod:
    """SONew's jitted step by a backend of JAX."""
    return JaxMethod(band=band, backend=backend)


def _jax_units(scale: Scale) -> list[Unit]:
    both = [jax_ours(band, backend) for band in MODEL_BANDS for backend in (TRITON, XLA)]
    few = [method for method in both if method != jax_ours(MODEL_BANDS[-1], XLA)]  # XLA takes long to compile that many leaves
    cases = [(jax_name(size), 15.0, one_tensor(size), both) for size in scale.jax_sizes]
    cases += [(jax_name(model.name), 40.0, model, few) for model in scale.jax_models]
    adamw = JaxMethod(family=ADAMW)
    return [
        Unit(stage=JAX, name=JAX_TESTS, seconds=60, task=scale.jax_ladder),
        *(
            Unit(
                stage=JAX,
                name=name,
                seconds=seconds,
                task=JaxTiming(workload=workload, methods=(adamw, *methods), device=scale.device, rounds=scale.rounds),
            )
            for name, seconds, workload, methods in cases
        ),
    ]


def make_plan(scale: Scale = FULL, stages: tuple[str, ...] = STAGES) -> tuple[Unit, ...]:
    """Every unit of the chosen stages, in the order in which they are done: right before tuned, tuned before timed."""
    units = [
        Unit(stage=LADDER, name="tests on the device", seconds=150, task=scale.ladder),
        Unit(stage=LADDER, name="racecheck", seconds=50, task=scale.racecheck),
        *_tune_units(scale),
        *_bench_units(scale),
        *_model_units(scale),
        *_jax_units(scale),
    ]
    return tuple(unit for unit in units if unit.stage in stages)
