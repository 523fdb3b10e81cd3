"""A training run that can be killed at any moment and goes on from where it was."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor, nn

from .config import SwysError, replacing

SAVE_SECONDS = 60  # how much work, besides the epoch, a kill may cost


class TrainingState:
    """A training run: ``model`` as it is now, ``history``, and how to go on after a kill.

    ``history``: of each epoch its number, lr, train_loss, val_accuracy, val_auc, val_ece, and the steps and
    seconds of training so far (validation and watching do not count). The state between epochs lies in one
    file (if path), read with ``weights_only=True``: nothing in it can run. Other ``facts`` are refused.
    """

    def __init__(self, path, model: nn.Module, objective: nn.Module, optimizer, facts: dict):
        self.path, self.facts = Path(path) if path else None, json.dumps(facts, sort_keys=True)
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.history: list[dict] = []
        self.best: dict[str, Tensor] = {}
        self.saved = time.monotonic()
        if self.path and self.path.is_file():
            self.load()
        elif self.path and PartialState().is_main_process:
            self.save(now=True)  # an unwritable path shows before the training, not after it

    def chosen(self) -> nn.Module:
        """A copy of the model with the weights of the epoch that validation chooses."""
        model = deepcopy(self.model)
        model.load_state_dict(self.best)
        return model.eval()

    def save(self, now: bool = False) -> None:
        """Write the state in one step, at most once a minute unless ``now``."""
        if not self.path or not (now or time.monotonic() - self.saved > SAVE_SECONDS):
            return
        learnt = {
            name: p.detach() for name, p in self.objective.named_parameters() if p.requires_grad
        }
        state = {"model": self.model.state_dict(), "objective": learnt, "best": self.best}
        state |= {
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "facts": self.facts,
        }
        with replacing(self.path) as part:
            torch.save(state, part)
        self.saved = time.monotonic()

    def load(self) -> None:
        """Bring model, objective, optimizer and history to where the run stopped."""
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            foreign = state["facts"] != self.facts
        except Exception as error:  # a damaged file raises a dozen kinds
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise SwysError(
                f"'{self.path}' cannot be read ({reason}); remove it to start again"
            ) from None
        if foreign:
            raise SwysError(
                f"'{self.path}' is a run of another recipe or seed; remove it to start again"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.objective.load_state_dict(state["objective"], strict=False)
            self.optimizer.load_state_dict(state["optimizer"])
            self.history, self.best = state["history"], state["best"]
        except (RuntimeError, KeyError, ValueError, TypeError):
            raise SwysError(
                f"'{self.path}' is a run of another model; remove it to start again"
            ) from None
