"""One document of many views, in which what several views share stands once.

`{"lists": [...], "views": {name: view}}`: inside the views `{"@": n}` stands for `lists[n]`. The dates and commits of the same runs stand
in every series' columns; without sharing they would be most of an exported file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Final

from sonew_perf.dashboard.content import Json

MARK: Final = "@"
REFERENCE: Final = f'{{"{MARK}":'  # how a reference begins; foreign objects that begin so are always shared, and not mistaken
SHORTEST: Final = 32  # characters of JSON that are worth a reference


def shared(views: Mapping[str, Json]) -> Json:
    """The document; lists and objects that occur at least twice are shared."""
    texts: Counter[str] = Counter()
    for view in views.values():
        _count(view, texts)
    worth = [text for text, count in texts.items() if (count > 1 and len(text) >= SHORTEST) or text.startswith(REFERENCE)]
    places = {text: place for place, text in enumerate(worth)}
    lists = [json.loads(text) for text in places]
    return {"lists": lists, "views": {name: _referring(view, places) for name, view in views.items()}}


def expanded(document: Json) -> dict[str, Json]:
    """The views of a document: what `shared` was given."""
    lists = document["lists"]

    def whole(value: Json) -> Json:
        if isinstance(value, dict):
            return lists[value[MARK]] if value.keys() == {MARK} else {key: whole(item) for key, item in value.items()}
        return [whole(item) for item in value] if isinstance(value, list) else value

    return {name: whole(view) for name, view in document["views"].items()}


def _text(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _count(value: Json, texts: Counter[str]) -> None:
    """Count the lists and objects inside a value; what was seen before is not looked into again."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, list | dict):
            text = _text(item)
            texts[text] += 1
            if texts[text] == 1:
                _count(item, texts)


def _referring(value: Json, places: Mapping[str, int]) -> Json:
    if not isinstance(value, list | dict):
        return value
    items = value.items() if isinstance(value, dict) else enumerate(value)
    made = {key: _reference(item, places) for key, item in items}
    return made if isinstance(value, dict) else list(made.values())


def _reference(value: Json, places: Mapping[str, int]) -> Json:
    if not isinstance(value, list | dict):
        return value
    place = places.get(_text(value))
    return _referring(value, places) if place is None else {MARK: place}
