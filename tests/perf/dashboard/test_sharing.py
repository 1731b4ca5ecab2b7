"""What several views share stands once, and comes back whole."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sonew_perf.dashboard.documents import document, names
from sonew_perf.dashboard.sharing import expanded, shared
from tests.perf.dashboard import demo

leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=12
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["x", "y", "z"]), json_values), st.lists(st.integers(100, 10**6), min_size=9, max_size=12))
def test_sharing_loses_nothing(views: dict[str, Any], column: list[int]) -> None:
    views = {**views, "one": {"run": column, "inner": [column]}, "two": [{"run": column}, {"run": column}]}
    packed = json.loads(json.dumps(shared(views)))
    assert expanded(packed) == views


def test_what_looks_like_a_reference_is_not_mistaken_for_one() -> None:
    views = {"x": {"ratio": {"@": [1.5]}, "other": {"@": 0}}, "y": [{"@": {"@": 3}}]}
    assert expanded(json.loads(json.dumps(shared(views)))) == views


def test_a_column_of_many_series_stands_once() -> None:
    column = [f"2026-11-{day:02d}" for day in range(1, 30)]
    packed = json.dumps(shared({f"series/{name}": {"points": {"date": column, "median": [name] * 29}} for name in range(9)}))
    assert packed.count(json.dumps(column)) == 1


def test_the_views_of_a_store_come_back_as_they_were_in_less_text() -> None:
    made = demo.store()
    views = {name: document(made, name) for name in names(made)}
    packed = json.dumps(shared(views))
    assert expanded(json.loads(packed)) == views
    assert len(packed) < 0.6 * len(json.dumps(views))
