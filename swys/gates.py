"""Gates: what a comparison tells a continuous integration, one line each and an exit code."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from .comparison import Measured
from .measure_rows import Row
from .verdicts import CANNOT_TELL, KEPT, LOST, enough_unseen, unseen_share
from .wording import row_text

PASSED = 0
FAILED = 1
NOT_MADE = 2
CODES = {KEPT: PASSED, LOST: FAILED, CANNOT_TELL: NOT_MADE}
HOPELESS = 50  # times as many images
SPANS = {"points": 100, "correlation": 2}  # unit -> from one end of its scale to the other
OF_A_SAMPLE = {"map": "maps", "occlusion": "occlusions"}  # row -> option with its number of images
# the option, and the measure that it looks at
GATES = {
    "max_drop": "accuracy",
    "min_agreement": "agreement",
    "min_map": "map",
    "min_occlusion": "occlusion",
}
# the same, but only where the reader names the option: they need many images of each class, many
# images, or a machine that does nothing else
ASKED_GATES = {
    "max_class_drop": "class",
    "max_ece_rise": "calibration",
    "max_time": "speed",
}
NEED_LABELS = ("max_drop", "max_class_drop", "max_ece_rise")


@dataclass(frozen=True)
class Gate:
    """What one gate says.

    Attributes:
        option: its name, such as ``max_drop``.
        code: 0 kept, 1 lost, 2 the comparison could not be made; None where nobody asked for it
            and these models or images do not have it.
        line: what is printed.
    """

    option: str
    code: int | None
    line: str


def gates_of(measured: Measured) -> list[Gate]:
    """The four gates, and those that the reader asked for.

    One that the reader asked for and that was not measured is a failure.

    Args:
        measured: the comparison.

    Returns:
        A gate each.
    """
    gates = []
    for option, row_id in (GATES | ASKED_GATES).items():
        asked = option in measured.asked
        if asked or option in GATES:
            gates.append(_gate(option, measured.row(row_id), asked))
    return gates


def exit_code(gates: Collection[Gate]) -> int:
    """The exit code of a command with these gates.

    Args:
        gates: of ``gates_of``.

    Returns:
        1 where something is lost; else 2 where a comparison could not be made; else 0.
    """
    codes = {gate.code for gate in gates}
    for code in (FAILED, NOT_MADE):
        if code in codes:
            return code
    return PASSED


def _advice(row: Row) -> str:
    """What would make a row tell: the number of images at which its interval is narrow enough."""
    if row.remedy:
        return row.remedy
    value = row.estimate.value
    reach = max(row.estimate.high - value, value - row.estimate.low)
    margin = abs(value - row.bound)
    text = "the interval reaches over the bound: compare more images"
    if not margin or not row.images or math.isnan(reach):
        return text
    span = SPANS.get(row.unit, 1)
    wanted = enough_unseen(margin / span)
    if not math.isclose(reach, span * unseen_share(row.images), rel_tol=0.05):
        wanted = max(wanted, row.images * (reach / margin) ** 2)
    if wanted > HOPELESS * row.images:
        return f"the figure lies near the bound: it would take over {HOPELESS} times as many images"
    option = f", see --{OF_A_SAMPLE[row.id]}" if row.id in OF_A_SAMPLE else ""
    wanted = 10 * math.ceil(wanted / 10)  # fewer would not do
    return f"{text} (about {wanted:,} would do if the figure stays{option})"


def _left_out(option: str) -> str:
    """Why a measure is not there at all."""
    if option == "max_time":
        return "not timed, --seconds is 0"
    return "no labels" if option in NEED_LABELS else "not measured, its number of images is 0"


def _gate(option: str, row: Row | None, asked: bool) -> Gate:
    """One gate."""
    name = f"--{option.replace('_', '-')}"
    if row is None or not row.measured:
        why = row.note if row is not None else _left_out(option)
        absent = row is None or row.absent
        if asked or not absent:
            return Gate(option, NOT_MADE, f"{CANNOT_TELL:<11}  {name}: {why}")
        return Gate(option, None, f"{'no gate':<11}  {name}: {why}")
    figure = f"{row.title.lower()} {row_text(row)}"
    advice = f"; {_advice(row)}" if row.verdict == CANNOT_TELL else ""
    return Gate(option, CODES[row.verdict], f"{row.verdict:<11}  {name}: {figure}{advice}")
