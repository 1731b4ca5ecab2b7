"""How READMEs write numbers, facts and tables."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sonew_perf.records.files import Entry
from sonew_perf.tables import MEBI

WIDTH: Final = 140  # of a line of prose
NONE: Final = "-"
HELD: Final = "\0"  # a space at which no line ends
MODELS: Final[Mapping[str, str]] = {
    "mnist-autoencoder": "the MNIST autoencoder",
    "gpt2-small": "GPT-2 small",
    "llama-1b": "the Llama-style model of 1.2 B",
}


def number(value: float) -> str:
    """Three digits, at most two of them behind the point."""
    return f"{value:.{2 if round(value, 2) < 10 else 1 if round(value, 1) < 100 else 0}f}"


def percent(share: float, decimals: int = 0) -> str:
    """A share in percent."""
    return f"{100 * share:.{decimals}f} %"


def rate(value: float) -> str:
    """A learning rate: 3.6e-3."""
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def multiple(ratio: Mapping[str, float], decimals: int | None = None) -> str:
    """A ratio with its 95 % interval; 1 for a case beside itself."""
    median, low, high = ratio["median"], ratio["low"], ratio["high"]
    if median == low == high == 1:
        return "1"
    places = decimals if decimals is not None else 2 if median < 1 else 1 if median < 50 else 0
    return f"{median:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


def middle(ratio: Mapping[str, float]) -> str:
    """A ratio without its interval."""
    return multiple(ratio).partition(" ")[0]


def spread(entry: Entry) -> str:
    """20th to 80th percentile over the median."""
    return percent((entry["p80_ms"] - entry["p20_ms"]) / entry["median_ms"])


def mebibytes(amount: int | None) -> str:
    """Bytes as MiB."""
    return NONE if amount is None else f"{amount / MEBI:.0f}"


def state(entry: Entry) -> str:
    """Bytes of state per element."""
    per_element: float = entry["state_bytes"] / entry["workload"]["elements"]
    return f"{per_element:.3g}" if per_element else NONE


def bold(text: str, *, when: bool = True) -> str:
    """Set off, if it is to be."""
    return f"**{text}**" if when else text


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def distinct(values: Iterable[Any]) -> str:
    """What several records say of one thing, each answer once."""
    return listed(list(dict.fromkeys(str(value) for value in values)))


def size(elements: int) -> str:
    """A number of elements: 4 Mi, 2.84 M."""
    return f"{elements // MEBI} Mi" if elements % MEBI == 0 else f"{elements / 1e6:.3g} M"


def work(workload: Mapping[str, Any], one: str = "tensor", many: str = "tensors") -> str:
    """What was stepped, in words; `one` and `many` are what the framework calls its tensors."""
    kind = {"float32": "fp32"}.get(workload["dtype"], workload["dtype"])
    if workload["tensors"] == 1:
        return f"one {kind} {one} of {size(workload['elements'])} elements"
    name = MODELS.get(workload["name"], workload["name"])
    return f"{name}, {workload['tensors']} {kind} {many}, {size(workload['elements'])} elements"


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def threads(entry: Entry) -> str:
    """On how many threads of the CPU."""
    count = entry["machine"]["threads"]
    return f"{count} thread{'s' * (count != 1)}"


def device(entry: Entry) -> str:
    """What the time was taken on."""
    return f"{entry['machine']['device']}, {threads(entry)}"


def facts(entries: Sequence[Entry], packages: Sequence[str] = ("torch",)) -> str:
    """Device, threads, versions, date, and where they are recorded load and rounds; what entries disagree on is listed.

    Args:
        entries: one per record, of runs described together, or all of a record.
        packages: whose versions to name.
    """
    told = [distinct(device(entry) for entry in entries)]
    told += [f"{package} {distinct(entry['machine'][package] for entry in entries)}" for package in packages]
    told += [
        f"Python {distinct(entry['machine']['python'] for entry in entries)}",
        distinct(sorted(entry["date"][:10] for entry in entries)),
    ]
    if loads := [f"{entry['load_before']:.2f}" for entry in entries if "load_before" in entry]:
        told.append(f"load average before the run{'s' * (len(loads) > 1)} {distinct(loads)}")
    if rounds := [len(entry["samples_ms"]) for entry in entries if "samples_ms" in entry]:
        told.append(f"{distinct(rounds)} interleaved rounds")
    return ", ".join(told)


def paragraph(text: str) -> str:
    """Prose, wrapped; words, links and code spans are not broken."""
    kept = re.sub(r"`[^`]+`", lambda span: span[0].replace(" ", HELD), text)
    return textwrap.fill(kept, WIDTH, break_long_words=False, break_on_hyphens=False).replace(HELD, " ")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of GitHub's markdown."""
    cells = [headers, ["---"] * len(headers), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in row] for row in cells)
    return "\n".join(f"| {' | '.join(row)} |" if row[0] != "---" else f"|{'|'.join(row)}|" for row in escaped)


def block(*parts: str) -> str:
    """Paragraphs and tables, one below the other; empty ones are left out."""
    return "\n\n".join(filter(None, parts)) + "\n"
