"""The kernels' README: its programs do what they say, and its formulas, names and bytes are the code's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from sonew import reference
from sonew.config import GRAFTS, Hyper
from sonew_kernels.traffic import direction_bytes, update_bytes
from tests.oracle import damp, preconditioner, property_errors
from tests.readme import ROOT, fenced

FOLDER: Final = ROOT / "kernels"
PAGE: Final = (FOLDER / "README.md").read_text(encoding="utf-8")
ELIMINATE, CHAIN = fenced(PAGE, "python")
NAN: Final = float("nan")


def run(program: str) -> dict[str, Any]:
    """What a program of the page leaves behind."""
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(program, "kernels/README.md", "exec"), names)  # noqa: S102  # our own page
    return names


def test_the_inverse_of_the_printed_chain_is_its_matrix_on_the_band(capsys: pytest.CaptureFixture[str]) -> None:
    made = run(CHAIN)
    printed = capsys.readouterr().out
    assert printed.count("True") == 4
    assert "False" not in printed

    on_band, stored = made["on_band"], np.zeros((8, 8))
    for k, row in enumerate(made["corrected"]):
        stored += np.diag(row[: 8 - k], k) + (np.diag(row[: 8 - k], -k) if k else 0)
    expected, fallen = preconditioner(damp(stored, made["hyper"]), on_band)
    assert not fallen.any()
    np.testing.assert_allclose(made["X"], expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
    on, off, least = property_errors(made["X"], made["A"], on_band)
    assert on < 1e-9
    assert off == 0
    assert least > 0
    assert np.abs(np.linalg.inv(made["X"])[~on_band]).min() > 1e-3, "the picture: the inverse is full"


def windows(band: int, kind: str) -> np.ndarray:
    """Five windows (5, band + 1, band + 1)."""
    factors = np.random.default_rng(band).standard_normal((5, band + 1, 2 if kind == "singular" else band + 3))
    made = np.asarray(factors @ factors.transpose(0, 2, 1))
    if kind == "NaN":
        made[0, 0, 0] = NAN
        made[1, :, band] = made[1, band, :] = NAN
    if kind == "dead":
        made[0, 0, 0] = 0.0
        made[1, 0, 0] = -1.0
    return made


@pytest.mark.parametrize("kind", ["sound", "singular", "NaN", "dead"])
@pytest.mark.parametrize("gamma", [0.0, 0.3])
@pytest.mark.parametrize("band", [0, 1, 2, 4, 16])
def test_the_printed_elimination_is_the_reference(band: int, gamma: float, kind: str) -> None:
    """Each window as the first column of a chain that ends with it."""
    eliminate: Callable[..., tuple[list[float], float]] = run(ELIMINATE)["eliminate"]
    hyper, n = Hyper(band=band, gamma=gamma, eps=0.0, eps_rel=0.0), band + 1
    links = reference.chain_links(np, np.zeros(n), band, n)
    fallen = 0
    for window in windows(band, kind):
        stats = np.stack([np.pad(np.diagonal(window, -k), (0, k)) for k in range(n)])
        lower, diagonal = reference.factor(np, stats, links, hyper)
        psi, d = eliminate(window.tolist(), gamma)
        sound = not reference.fallen_columns(np, stats, links, hyper)[0]
        fallen += not sound
        np.testing.assert_allclose(psi, [-row[0] for row in lower], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(d, diagonal[0], rtol=1e-9)
        if sound and kind == "sound":
            np.testing.assert_allclose(psi, np.linalg.solve(window[1:, 1:], window[1:, 0]), rtol=1e-6)
            np.testing.assert_allclose(d, np.linalg.inv(window)[0, 0], rtol=1e-6)
    if kind in ("NaN", "dead"):
        assert fallen >= 2
    if kind == "sound" and (gamma == 0 or band in (0, 16)):
        assert (fallen > 0) == (gamma > 0 and band == 16)


def test_the_closed_form_of_band_one() -> None:
    """psi = A_kj / A_kk and 1 / D_j = A_jj - A_kj^2 / A_kk, as printed."""
    assert "psi = A_kj / A_kk        1 / D_j = A_jj - A_kj^2 / A_kk" in PAGE
    links = np.array([True, True]), np.array([True, False])
    stats, plain = np.array([[3.0, 4.0], [2.0, 0.0]]), Hyper(band=1, eps=0.0, eps_rel=0.0, gamma=0.0)
    lower, diagonal = reference.factor(np, stats, links, plain)
    assert -lower[0][0] == 2.0 / 4.0
    assert 1 / diagonal[0] == 3.0 - 2.0**2 / 4.0


def test_the_work_per_window_is_counted_right() -> None:
    shown = re.search(r"\((\d+), (\d+), (\d+) and (\d+) for b = (\d+), (\d+), (\d+) and (\d+)\)", PAGE)
    assert shown is not None
    counts, bands = [int(n) for n in shown.groups()[:4]], [int(n) for n in shown.groups()[4:]]
    assert counts == [sum(1 for q in range(b, 0, -1) for s in range(q) for _ in range(s + 1)) for b in bands]
    assert counts == [b * (b + 1) * (b + 2) // 6 for b in bands]


def test_the_bytes_per_element_are_those_of_the_launches() -> None:
    shown = {int(b): int(n) for n, b in re.findall(r"(\d+) for b = (\d+)(?=,| \(a fused)", PAGE)}
    assert shown == {b: direction_bytes(b) + update_bytes() for b in (1, 4, 8)}
    assert [direction_bytes(b) for b in range(9)] == [4 + 2 * 4 * (b + 2) + 4 for b in range(9)]
    assert update_bytes() == 12


def test_the_grafts_are_all_there() -> None:
    table = PAGE.split("### The graft")[1].split("### Try it")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(GRAFTS)


def test_every_source_file_is_named() -> None:
    sources = {file.name for pattern in ("*.py", "*.cpp", "*.h") for file in (FOLDER / "sonew_kernels").glob(pattern)} - {"__init__.py"}
    assert {name for name in sources if f"`{name}`" not in PAGE} == set()
