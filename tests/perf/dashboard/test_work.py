"""What a roofline counts, against an algorithm that counts itself and a table of words."""

from __future__ import annotations

import math

import pytest

from sonew_perf.dashboard.views.work import NOT_COUNTED, direction_flops, rate, work_of
from tests.perf.dashboard.made import a_series


class Counted:
    """A number that counts the operations on it."""

    operations = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def _made(self, value: float) -> Counted:
        Counted.operations += 1
        return Counted(value)

    def __add__(self, other: Counted) -> Counted:
        return self._made(self.value + other.value)

    def __sub__(self, other: Counted) -> Counted:
        return self._made(self.value - other.value)

    def __mul__(self, other: Counted) -> Counted:
        return self._made(self.value * other.value)

    def __truediv__(self, other: Counted) -> Counted:
        return self._made(self.value / other.value)

    def root(self) -> Counted:
        return self._made(math.sqrt(self.value))


def column(band: int) -> int:
    """Operations of one column far from every border: accumulate, correct, damp, eliminate, apply, norms, on its own new values."""

    def c(value: float = 1.5) -> Counted:
        return Counted(value)

    Counted.operations = 0
    momentum = c() * c() + c() * c()
    rows = [c() * c() + c() * (c() * c()) for _ in range(band + 1)]
    momentum, rows = momentum / c(), [row / c() for row in rows]
    diagonal = rows[0] * c() + c()
    window = [[c(0.1) for _ in range(q)] + [c(9.0 + q)] for q in range(band + 1)]  # the neighbours' rows are theirs: no operation here
    for entry in (diagonal, *(window[q][q] for q in range(1, band + 1))):
        entry * c()  # gamma A_qq  # counted
    weights = {}
    for q in range(band, 0, -1):
        for s in range(q):
            weights[q, s] = window[q][s] / window[q][q]
            for r in range(s + 1):
                window[s][r] = window[s][r] - weights[q, s] * window[q][r]
    psi: list[Counted] = []
    for q in range(1, band + 1):
        value = weights[q, 0]
        for r in range(1, q):
            value = value - weights[q, r] * psi[r - 1]
        psi.append(value)
    inverse = c() / window[0][0]
    inner = momentum
    for value in psi:
        inner = inner + value * c()
    direction = inner * inverse
    for _ in psi:
        direction = direction + c() * c()
    adam = momentum / (rows[0].root() + c())
    c() + direction * direction  # a partial norm
    c() + adam * adam  # the other
    return Counted.operations


@pytest.mark.parametrize("band", [0, 1, 2, 4, 8, 16])
def test_operations_of_a_column_are_those_that_the_algorithm_counts_itself(band: int) -> None:
    assert direction_flops(band) == column(band)


@pytest.mark.parametrize("band", [0, 1, 4])
def test_bytes_of_a_step_are_its_words(band: int) -> None:
    # direction: g, m and band + 1 rows read; m, rows and u written. update: u and p read, p written
    words = (1 + 1 + band + 1) + (1 + band + 1 + 1) + 3
    assert work_of(a_series(case=f"SONew band {band}", band=band, elements=100)).moved == 4 * words * 100
    phase = work_of(a_series("direction", f"SONew band {band}", band=band, elements=100))
    assert phase.moved == 4 * (words - 3) * 100
    assert phase.flops == 100 * direction_flops(band)
    halved = work_of(a_series(case=f"SONew band {band}", band=band, elements=100, dtype="float32, bfloat16 state"))
    assert halved.moved == (4 * 3 + 2 * (words - 3)) * 100  # g, p read and p written stay at four bytes


def test_peers_move_their_words_and_what_nobody_counted_is_not_invented() -> None:
    assert work_of(a_series(case="copy", elements=10)).moved == 80
    assert work_of(a_series(case="AdamW fused", elements=10)).moved == 280
    unknown = [
        a_series(case="AdamW foreach"),
        a_series(band=1, dtype="float8"),
        a_series(band=1, measure="peak memory", unit="bytes"),
        a_series(band=1, unit="s"),
        a_series("norms", band=1),
        a_series(case="reference, band 1", band=1),
        a_series(band=1, elements=0),
    ]
    assert [work_of(series) for series in unknown] == [NOT_COUNTED] * len(unknown)


def test_a_rate_is_per_second() -> None:
    assert rate(8e9, 1000.0) == pytest.approx(8.0)
    assert rate(None, 1.0) is rate(1.0, None) is rate(1.0, 0.0) is None
