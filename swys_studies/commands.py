"""The group ``swys study``: found by ``swys`` as an entry point, see pyproject.toml."""

from __future__ import annotations

from . import (
    agreement,
    amount,
    cnn,
    deployed,
    explanations,
    fillings,
    inheritance,
    original,
    planted,
    planted_cnn,
    reference,
    report,
    ship,
    trials,
    twin,
)

COMMANDS = {
    "reference": reference.reference,
    "original": original.original,
    "time": original.time_to_original,
    "report": report.report,
    "agreement": agreement.measure,
    "amount": amount.amount,
    "cnn": cnn.cnn,
    "deployed": deployed.deployed,
    "explanations": explanations.measure,
    "fillings": fillings.fillings,
    "inheritance": inheritance.inheritance,
    "ship": ship.ship,
    "twin": twin.make,
    "trials": trials.trials,
    "planted": planted.planted,
    "planted_cnn": planted_cnn.planted_cnn,
}
