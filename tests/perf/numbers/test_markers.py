from __future__ import annotations

import pytest

from sonew_perf.errors import DataError
from sonew_perf.numbers.markers import fill, find

PAGE = """# A page

It takes <!-- number: one -->7 ms<!-- /number --> here.

<!-- numbers: a-table -->
| a |
<!-- /numbers -->
Written `<!-- numbers: NAME -->` in a page.

```markdown
<!-- numbers: shown -->
```
<!-- numbers: empty -->
<!-- /numbers -->
"""


def test_marked_places_are_found_and_code_is_left_alone() -> None:
    found = find(PAGE, "page")
    assert [(place.name, place.line, place.inline, PAGE[place.start : place.end]) for place in found] == [
        ("one", 3, True, "7 ms"),
        ("a-table", 5, False, "| a |\n"),
        ("empty", 13, False, ""),
    ]


def test_filling_changes_what_is_marked_and_nothing_else() -> None:
    filled = fill(PAGE, find(PAGE, "page"), lambda place: "8 ms" if place.inline else f"{place.name}!\n")
    expected = PAGE.replace("7 ms", "8 ms").replace("| a |", "a-table!").replace("empty -->\n", "empty -->\nempty!\n")
    assert filled == expected
    assert fill(PAGE, find(PAGE, "page"), lambda place: PAGE[place.start : place.end]) == PAGE


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("<!-- numbers: a -->\n", 3, "is not closed"),
        ("<!-- numbers: a -->\n\n<!-- numbers: b -->\n<!-- /numbers -->\n", 3, "is not closed before the next marker"),
        ("\n<!-- /numbers -->\n", 4, "closes nothing"),
        ("a <!-- number: a -->1<!-- /numbers -->\n", 3, "closes nothing"),
        ("<!-- numbers a -->\n", 3, "is not a marker"),
        ("<!-- numbers: Big_Name -->\n", 3, "is not a marker"),
        ("<!--numbers: a-->\n", 3, "is not a marker"),
        ("<!-- number: a\n-->", 3, "is not a marker"),
        ("<!-- numbers: a -->text\n<!-- /numbers -->\n", 3, "needs lines of its own"),
        ("<!-- numbers: a -->\ntext <!-- /numbers -->\n", 3, "needs lines of its own"),
        ("a <!-- number: a -->1\n<!-- /number -->\n", 3, "must be closed on its line"),
        ("\n  <!-- number: a -->1<!-- /number -->\n", 4, "must not begin a line"),
    ],
)
def test_a_broken_marker_is_named_with_its_page_and_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(DataError, match=rf"^folder/page\.md:{line}: .*{problem}.* Write <!-- numbers: NAME -->"):
        find("# A page\n\n" + text, "folder/page.md")
