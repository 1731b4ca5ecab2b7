"""A study as one HTML page."""

from __future__ import annotations

from typing import Final

from sonew_autotune.report import parameters, sections, trials
from sonew_autotune.report.analysis import leading_pair
from sonew_autotune.report.document import Charts, whole
from sonew_autotune.report.importance import importances
from sonew_autotune.report.markup import Html, Node, element, paragraph
from sonew_autotune.report.reasons import Reasons
from sonew_autotune.report.studies import Study
from sonew_autotune.report.verdict import facts, status, verdict

BADGES: Final = {"tuned": "tuned", "default kept": "kept", "undecided": "open", "failed": "failed"}
CONTENTS: Final = {
    "comparison": "Round by round",
    "history": "History",
    "why": "Why",
    "importance": "Importance",
    "slices": "Slices",
    "pairs": "Pairs",
    "failures": "Failures",
    "roof": "Roofline",
    "trials": "Every trial",
    "provenance": "Provenance",
}


def badge(study: Study) -> Html:
    """How the study stands, in a word."""
    word = status(study)
    return element("span", word, class_=f"badge {BADGES[word]}")


def _head(study: Study, index: str | None) -> Html:
    numbers = [
        element("div", element("dt", fact.name), element("dd", fact.value, element("small", fact.about) if fact.about else None))
        for fact in facts(study)
    ]
    where = f"{study.key.device}, {study.key.capability}" if study.key is not None else "device not stated"
    back: list[Node] = [element("a", "All studies", href=index), " / "] if index is not None else []
    links = [element("li", element("a", text, href=f"#{anchor}")) for anchor, text in CONTENTS.items()]
    return element(
        "header",
        element("p", back, f"Tuning study of the SONew step on {where}", class_="eyebrow"),
        element("h1", study.title),
        element("p", badge(study), verdict(study), class_="verdict"),
        [paragraph(note, muted=True) for note in study.notes],
        element("dl", numbers, class_="facts"),
        element("nav", element("ul", links), aria_label="Contents"),
    )


def study_page(study: Study, reasons: Reasons, *, index: str | None = None) -> str:
    """The page of a study.

    Args:
        study: as read. reasons: why its winner won. index: file name of the list of studies, None where there is none.
    """
    charts = Charts()
    shares = importances(study.records, study.axes)
    parts = [
        sections.comparison(study, charts),
        trials.history(study, charts),
        sections.why(study, reasons),
        parameters.importance(study, shares, charts),
        parameters.slices(study, charts),
        parameters.heat_map(study, leading_pair(study, shares), charts),
        trials.failures(study, charts),
        trials.roof(study, charts),
        trials.trials(study),
        sections.provenance(study),
    ]
    foot = element("footer", "Written by sonew-autotune report. This page holds all it needs and loads nothing from anywhere.")
    return whole(f"{study.title}: tuning study", [_head(study, index), element("main", parts), foot], charts)
