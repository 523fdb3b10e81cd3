"""The reader's bets: written down before, and shown beside what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np

from swys_utils.baseline import linear_logits
from swys_utils.config import BUILD, write_json
from swys_utils.data import Dataset
from swys_utils.shipped_results import SeriesResults

from .agreement import beyond_chance

OPEN = "no bet"
WORDS = {"nearly all": 0.75, "most": 0.5, "a part": 0.25}  # a word -> the least share it is said of
CHOICES = [*WORDS, "next to nothing"]
KEPT = ["its scores", "its answers", "the reasons for them", "its heatmaps"]
TAUGHT = {  # id in ``SERIES`` -> how its questions begin
    "vit_tiny_answers": "Tiny, answers:",
    "vit_tiny_maps": "Tiny, answers + maps:",
}
QUESTIONS = {  # what is compared with Base -> the question
    "same": "same answers?",
    "occlusion": "same reasons?",
    "grad_cam": "same maps?",
}


class Bets(widgets.VBox):
    """A bet for each question, which is kept for later cells and notebooks.

    Args:
        name: under which they are kept, in ``build/results/bets.json``.
        questions: what is bet on.
        choices: what can be bet.

    Attributes:
        dropdowns: one for each question; it shows the bet of an earlier run.
    """

    def __init__(self, name: str, questions: Sequence[str], choices: Sequence[str]):
        self.name = name
        earlier = read_bets(name)
        self.dropdowns = []
        for question in questions:
            bet = earlier.get(question, OPEN)
            dropdown = widgets.Dropdown(
                options=[OPEN, *choices],
                value=bet if bet in choices else OPEN,
                description=question,
                style={"description_width": "initial"},
            )
            dropdown.observe(self._keep, "value")
            self.dropdowns.append(dropdown)
        super().__init__(self.dropdowns)

    def made(self) -> dict[str, str]:
        """Question -> bet, of the questions that have one."""
        bets = {dropdown.description: dropdown.value for dropdown in self.dropdowns}
        return {question: bet for question, bet in bets.items() if bet != OPEN}

    def _keep(self, change: dict) -> None:
        everything = {**_all_bets(), self.name: self.made()}
        write_json(BUILD / "results" / "bets.json", everything)

    def __repr__(self) -> str:
        return f"{len(self.dropdowns)} bets to choose, {len(self.made())} made (run it to choose)"


def read_bets(name: str) -> dict[str, str]:
    """The bets that were made and kept.

    Args:
        name: as for ``Bets``.

    Returns:
        Question -> bet; empty where none was made.
    """
    return _all_bets().get(name, {})


def _all_bets() -> dict[str, dict[str, str]]:
    path = BUILD / "results" / "bets.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def kept_rows(
    results: SeriesResults, starts: Mapping[str, float] | None = None
) -> list[dict[str, str]]:
    """What Tiny keeps of Base, and whether the bets of notebook 1 were right; means over runs.

    Args:
        results: of ``shipped_results.series_results``; what was not measured is left out.
        starts: of ``starts_without_base``; what is kept of scores and of answers is counted from
            there, and not said where it is unknown.

    Returns:
        Rows for ``results.as_table``. "Kept" is how far Tiny is on the way from the start, which a
        model has that knows nothing of Base, to a second Base, and at most 100 %; "found" is the
        word of ``CHOICES`` for it.
    """
    starts = {KEPT[2]: 0.0, KEPT[3]: 0.0, **(starts or {})}
    bets = read_bets("kept")
    runs = {name: results.runs.get(name, []) for name in ("vit_tiny", "vit_base")}
    scores = {name: [run["last"]["accuracy"] for run in runs[name]] for name in runs}
    found = {
        KEPT[0]: ("images right", scores["vit_tiny"], scores["vit_base"][1:]),
        KEPT[1]: ("same answers", *_shares(results, "same")),
        KEPT[2]: ("beyond chance", *_shares(results, "occlusion")),
        KEPT[3]: ("beyond chance", *_shares(results, "grad_cam")),
    }
    rows = []
    for question, (words, tiny, base) in found.items():
        start = starts.get(question)
        share = share_kept(tiny, base, start)
        row = {
            "of Base's": question.removeprefix("its ").removeprefix("the "),
            "your bet": _judged(bets.get(question, OPEN), share),
            "found": "" if share is None else word_for(share),
            "kept": "" if share is None else f"{share:.0%}",
            "what is counted": words,
            "start": "" if start is None else f"{start:.1%}",
            "Tiny": _percent(tiny, ".1%"),
            "second Base": _percent(base, ".1%"),
        }
        rows.append(row)
    return rows


def starts_without_base(results: SeriesResults, data: Dataset) -> dict[str, float]:
    """What a model has that knows nothing of Base: the beginning of the way to a second Base.

    Args:
        results: of ``shipped_results.series_results``.
        data: of the lesson.

    Returns:
        Question of ``KEPT`` -> a share of the test images, from 0 to 1: those that are right if all
        get the most frequent class, and those to which notebook 1's linear model gives the first
        Base's answer. Empty where the results are of other images, or images have several labels.
    """
    if data.info.multi_label:
        return {}
    if results.dataset != data.info.results_name or "vit_base" not in results.runs:
        return {}
    of_base = [int(digit, 36) for digit in results.runs["vit_base"][0]["predicted"]]
    if len(of_base) != len(data.test):
        return {}
    of_linear = linear_logits(data, data.test.images).argmax(axis=1)
    most_frequent = np.bincount(np.ravel(data.test.labels)).max()
    return {
        KEPT[0]: float(most_frequent / len(of_base)),
        KEPT[1]: float(np.mean(of_linear == of_base)),
    }


def word_for(share: float) -> str:
    """The word of ``CHOICES`` for a share: one for each quarter.

    Args:
        share: from 0 to 1.
    """
    for word, least in WORDS.items():
        if share >= least:
            return word
    return CHOICES[-1]


def share_kept(own: Sequence[float], base: Sequence[float], start: float | None) -> float | None:
    """How far a model is on the way from a start to a second Base.

    Args:
        own: a share of each run of the model, from 0 to 1.
        base: the same of other Bases.
        start: where the way begins.

    Returns:
        At most 1; None where it cannot be said.
    """
    if start is None or not len(own) or not len(base) or np.mean(base) <= start:
        return None
    return min(1.0, float((np.mean(own) - start) / (np.mean(base) - start)))


def taught_questions() -> list[str]:
    """The six questions of notebook 5."""
    return [
        f"{student} {question}" for student in TAUGHT.values() for question in QUESTIONS.values()
    ]


def taught_rows(results: SeriesResults) -> list[dict[str, str]]:
    """What each taught student has in common with Base, beside the bets of notebook 5.

    Args:
        results: of ``shipped_results.series_results``.
    """
    bets = read_bets("taught")
    rows = []
    for name, student in TAUGHT.items():
        for what, question in QUESTIONS.items():
            own, base = _shares(results, what, name)
            row = {
                "question": f"{student} {question}",
                "your bet": bets.get(f"{student} {question}", OPEN),
                "it has": _percent(own),
                "second Base has": _percent(base),
            }
            rows.append(row)
    return rows


def _shares(
    results: SeriesResults, what: str, name: str = "vit_tiny"
) -> tuple[Sequence[float], Sequence[float]]:
    """A share of each run of a model, and of other Bases, from 0 to 1."""
    if what == "same":
        same = results.same_answers
        return same.get(name, []), same.get("vit_base", [])
    measured = results.agreement.get(what, {})
    pairs = [measured.get(name, []), measured.get("vit_base", [])]
    own, base = (list(beyond_chance(some) / 100) for some in pairs)
    return own, base


def _judged(bet: str, share: float | None) -> str:
    """A bet, and whether it was right."""
    if bet == OPEN or share is None:
        return bet
    return f"{bet}: {'right' if bet == word_for(share) else 'wrong'}"


def _percent(shares: Sequence[float], form: str = ".0%") -> str:
    return f"{np.mean(shares):{form}}" if len(shares) else ""
