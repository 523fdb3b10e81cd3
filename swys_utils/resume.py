"""A training run that can be killed at any moment and goes on from where it was."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor, nn

from .config import SwysError, reason_of, replacing
from .recipe import class_and_numbers

SAVE_SECONDS = 60  # how much work, besides the epoch, a kill may cost


class TrainingState:
    """A training run between two epochs, kept in one file, which a killed run goes on from.

    The file is read with ``weights_only=True``: nothing in it can run code. A file of a run with
    other settings is refused.

    Args:
        path: the file; None keeps nothing. When it exists, the run goes on from it.
        model: as it is now.
        objective: its loss; what it learns itself is kept, too.
        optimizer: of the parameters of both.
        settings: what a run has to share with the file to go on from it, as JSON values.

    Attributes:
        history: one row an epoch: its number, lr, train_loss, val_accuracy, val_auc, val_ece, and
            the steps and seconds of training so far, without validation and callbacks.
        best: the weights of the epoch that validation chooses.
    """

    def __init__(
        self,
        path: str | Path | None,
        model: nn.Module,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: dict,
    ):
        self.path = Path(path) if path else None
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.settings = json.dumps(settings, sort_keys=True)
        self.history: list[dict] = []
        self.best: dict[str, Tensor] = {}
        self.saved_at = time.monotonic()
        self.has_file = False
        if self.path and self.path.is_file():
            self.load()
        elif self.path and PartialState().is_main_process:
            self.save(now=True)  # an unwritable path shows before the training, not after it

    def keep_best(self) -> None:
        """Keep a copy of the weights as they are now as those that validation chooses."""
        weights = self.model.state_dict()
        self.best = {name: value.detach().clone() for name, value in weights.items()}

    def chosen(self) -> nn.Module:
        """A copy of the model with the weights of the epoch that validation chooses."""
        model = deepcopy(self.model)
        model.load_state_dict(self.best)
        return model.eval()

    def save(self, now: bool = False) -> None:
        """Write the state in one step, at most once a minute.

        Args:
            now: write it however short ago the last time was.

        Raises:
            SwysError: the file cannot be written, or another run has begun in it.
        """
        recent = time.monotonic() - self.saved_at <= SAVE_SECONDS
        if self.path is None or (recent and not now):
            return
        learnt = {}  # not the teacher, whose weights stay as they are
        for name, parameter in self.objective.named_parameters():
            if parameter.requires_grad:
                learnt[name] = parameter.detach()
        state = {
            "model": self.model.state_dict(),
            "objective": learnt,
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "history": self.history,
            "settings": self.settings,
        }
        with replacing(self.path) as part:
            torch.save(state, part)
            if self.path.is_file() and not self.has_file:
                raise SwysError(f"another process trains into '{self.path}'; choose another path")
        self.has_file = True
        self.saved_at = time.monotonic()

    def load(self) -> None:
        """Bring model, objective, optimizer and history to where the run stopped.

        Raises:
            SwysError: the file is damaged, or of another run or model.
        """
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            same_run = state["settings"] == self.settings
        except Exception as error:  # a damaged file raises a dozen kinds
            reason = reason_of(error, with_kind=True)
            raise SwysError(
                f"'{self.path}' cannot be read ({reason}); remove it to start again"
            ) from None
        if not same_run:
            what = "another recipe, objective, data set or seed"
            raise SwysError(f"'{self.path}' is a run of {what}; remove it to start again")
        try:
            self.model.load_state_dict(state["model"])
            self.objective.load_state_dict(state["objective"], strict=False)
            self.optimizer.load_state_dict(state["optimizer"])
            self.history = state["history"]
            self.best = state["best"]
        except (RuntimeError, KeyError, ValueError, TypeError):
            raise SwysError(
                f"'{self.path}' is a run of another model; remove it to start again"
            ) from None
        self.has_file = True


def objective_settings(objective: nn.Module) -> dict:
    """What tells an objective from others, as JSON values.

    Args:
        objective: if it has ``settings()``, as ours have, these are taken; of any other module, the
            name of its class and those of its attributes that are numbers.
    """
    if hasattr(objective, "settings"):
        return objective.settings()
    return class_and_numbers(objective)
