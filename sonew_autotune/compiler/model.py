"""The static model: which candidates a GPU that is not here cannot run well, and in which order it would run the others.

A model, not a measurement. It knows a program by its machine code (`resources.Resources`) and the GPU by a few numbers of its data
sheet (`targets.Architecture`). `validate-model` compares its order with recorded times; until that was done for a target, the model
is a guess there.

Pruned is what cannot be launched (more threads, registers or shared memory than a processor has, so that not one program fits) and
what spills heavily: more bytes of spills, stored and loaded, than bytes a thread loads from and stores to global memory. The rest is
ranked by clocks per element and processor, of the direction and the update kernel together. Per program of n elements:

- memory: the fewest bytes that must move (`sonew_kernels.traffic`), over the processor's share of the bandwidth. The direction kernel
  adds a border record per tile, so that small tiles pay for their halo: band + 2 rows of 2 band values are read, a memory sector
  more each as they are not aligned, then written and read again.
- cache: the bytes that its loads and stores ask for, repeats included, at 64 per clock: shifted windows are not aligned, and an access
  across two lines takes two turns of a cache that serves 128. Where a kernel has a wide and a narrow path, one of them counts.
- issue: its instructions, over what a processor issues in a clock; and the instructions of each class over the rate of that class's unit
  (float64 is slow on consumer GPUs, shared memory and shuffles everywhere). The larger counts. Lanes of the halo are paid for
  because n excludes them. The text counts once, each path of it too, so that update's instructions are overestimated.
- overlap: a program alone takes `TRIPS` trips to memory, then memory, then issue, one after the other, because its loads stand before a
  barrier and its work after it; p programs at once (the occupancy) share that time.
- spills: their bytes at 64 per clock, on top: they stand between load and use.

A program costs max(memory, cache, issue, overlap) + spills, divided by n. The two kernels' costs add. The default is displaced only by a
candidate that is ahead by more than `MODEL_ERROR`, and stays so with the latency, the bandwidth or the rates of issue a third larger or
smaller (`targets.doubted`): what rests on one number of a data sheet is no reason. Assumed besides: tensors large
enough to fill the GPU many times, cold caches, full clocks, every launch free; the prologue and norms kernels, which have no tunables,
cost the same under every configuration but for the border records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sonew_autotune.compiler.kernel import ALL_FLOAT32, Compiled, Dtypes
from sonew_autotune.compiler.resources import Resources
from sonew_autotune.compiler.targets import THREADS_PER_PROGRAM, Architecture, architecture
from sonew_kernels.spec import SPECS, STORAGE_BYTES, border_record
from sonew_kernels.traffic import Case, bytes_per, traffic

MODEL: Final = "compiler.model.static_rank, clocks per element"  # as it stands in evidence
RANKED: Final[Mapping[str, tuple[str, ...]]] = {
    "direction": ("block", "num_warps"),
    "update": ("update_block", "update_num_warps"),
}
"""The kernels that are ranked, each with the tunables that its machine code depends on."""
MODEL_ERROR: Final = 0.15  # a predicted gain below this does not displace the default: the model orders, it does not measure
TRIPS: Final = 3  # to memory before a program's first use: tile map, table row, tensors
SECTOR_BYTES: Final = 32  # the least that memory moves
CACHE_BYTES: Final = 64  # per clock of a processor's first-level cache, for accesses that are not aligned


def prune_reason(used: Resources, target: str) -> str | None:
    """Why a kernel with these resources is not worth a try on the target, or None."""
    chip = architecture(target)
    limits = (
        ("threads", used.threads, THREADS_PER_PROGRAM),
        ("registers per thread", used.registers, chip.registers_per_thread),
        ("bytes of shared memory", used.shared_bytes, chip.shared_per_program),
    )
    for what, taken, allowed in limits:
        if taken > allowed:
            return f"cannot launch: it takes {taken} {what}, {target} allows {allowed}"
    if used.occupancy == 0:
        return f"cannot launch: {used.threads} threads with {used.registers} registers do not fit on a processor of {target}"
    spilled, moved = used.spill_store_bytes + used.spill_load_bytes, used.loaded_bytes + used.stored_bytes
    if spilled > moved:
        return f"spills heavily: {spilled} bytes per thread, more than the {moved} that it loads and stores"
    return None


def _traffic_case(band: int, dtypes: Dtypes) -> Case:
    param, grad, state, direction = (STORAGE_BYTES[dtype] for dtype in dtypes)
    return Case(band=band, param=param, grad=grad, state=state, direction=direction)


def _owned(kernel: str, config: Mapping[str, int], band: int) -> int:
    """Elements that a program owns."""
    spec = SPECS["triton"]
    return spec.tile(config, band) if kernel == "direction" else spec.update_tile(config, band)


def _border_bytes(band: int, dtypes: Dtypes) -> int:
    """Bytes that a border between two tiles costs."""
    rows, positions = border_record(band)
    return rows * (3 * positions * STORAGE_BYTES[dtypes.state] + SECTOR_BYTES) if band else 0


def fewest_bytes(kernel: str, band: int, dtypes: Dtypes = ALL_FLOAT32) -> int:
    """Bytes per element that a ranked kernel must move to and from memory, whatever its configuration."""
    return bytes_per("element", kernel, _traffic_case(band, dtypes))


def asked_bytes(kernel: str, used: Resources, config: Mapping[str, int], band: int, dtypes: Dtypes = ALL_FLOAT32) -> float:
    """Bytes per owned element that a ranked kernel's loads and stores ask for; above `fewest_bytes`, a cache serves repeats."""
    rows = traffic(kernel, _traffic_case(band, dtypes), config)
    paths = max(len(row.widths) for row in rows if row.per == "element")
    return (used.loaded_bytes + used.stored_bytes) * used.threads / _owned(kernel, config, band) / max(paths, 1)


def _issue(chip: Architecture, used: Resources) -> float:
    """Clocks to issue one warp's instructions, by the slowest unit."""
    issued = sum(count for name, count in used.mix.items() if name not in chip.beside)
    return max(issued / chip.issue, *(used.mix.get(name, 0) / rate for name, rate in chip.rates.items()))


def _program_cost(chip: Architecture, used: Resources, moved: float, asked: float) -> float:
    """Clocks of one program that must move and asks for so many bytes; terms as in the module's description."""
    warps = -(-used.threads // chip.warp_size)
    programs = max(used.occupancy * chip.warps / warps, 1.0)
    memory = moved / chip.bytes_per_clock
    issue = _issue(chip, used) * warps
    overlap = (TRIPS * chip.latency + memory + issue) / programs
    spills = (used.spill_store_bytes + used.spill_load_bytes) * used.threads / CACHE_BYTES
    return max(memory, asked / CACHE_BYTES, issue, overlap) + spills


def static_rank(
    compiled: Mapping[str, Compiled],
    config: Mapping[str, int],
    band: int,
    dtypes: Dtypes = ALL_FLOAT32,
    chip: Architecture | None = None,
) -> float:
    """Estimated clocks per element and processor of a configuration: lower is better. The model stands in the module's description.

    Args:
        compiled: the kernels of `RANKED` under this configuration, by name.
        config: the configuration. band: its band. dtypes: storage types of the problem.
        chip: the processor; the target's where None.
    """
    total = 0.0
    for kernel in RANKED:
        built = compiled[kernel]
        owned = _owned(kernel, config, band)
        moved = fewest_bytes(kernel, band, dtypes) * owned + (_border_bytes(band, dtypes) if kernel == "direction" else 0)
        asked = asked_bytes(kernel, built.resources, config, band, dtypes) * owned
        total += _program_cost(chip or architecture(built.target), built.resources, moved, asked) / owned
    return total
