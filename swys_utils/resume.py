"""What a training run needs to go on after a kill."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .config import SwysError

SAVE_SECONDS = 60  # how much work a kill may cost


class UnfinishedRun:
    """What a run needs to go on after a kill, in one safetensors file (no pickle)."""

    def __init__(
        self, path: str | Path | None, model: nn.Module, objective: nn.Module, optimizer, facts: dict
    ):
        """Goes on from ``path`` when it is there; None keeps nothing. ``facts`` (JSON) tell runs apart."""
        self.path, self.facts = Path(path) if path else None, json.dumps(facts, sort_keys=True)
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.history: list[dict] = []
        self.best: dict[str, Tensor] = {}
        self.saved = time.monotonic()
        if self.path and self.path.is_file():
            self.load()
        elif self.path:
            self.save(now=True)  # an unwritable path shows before the training, not after it

    def save(self, now: bool = False) -> None:
        """Write the state in one step, at most once a minute unless ``now``."""
        if not self.path or not (now or time.monotonic() - self.saved > SAVE_SECONDS):
            return
        optimizer = self.optimizer.state_dict()["state"]
        parts = {"model": self.model.state_dict(), "best": self.best}
        parts |= {"objective": learnt(self.objective)} | {
            f"optimizer.{i}": values for i, values in optimizer.items()
        }
        tensors = {
            f"{part}/{key}": torch.as_tensor(value).detach().cpu().contiguous().clone()
            for part, values in parts.items()
            for key, value in values.items()
        }
        part = self.path.with_name(self.path.name + ".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, part, metadata={"facts": self.facts, "history": json.dumps(self.history)})
            part.replace(self.path)
        except (OSError, SafetensorError) as error:
            raise SwysError(
                f"cannot write '{self.path}' ({error}); free space or choose another folder"
            ) from None
        self.saved = time.monotonic()

    def load(self) -> None:
        """Bring model, objective, optimizer and history to where the run stopped."""
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise SwysError(f"'{self.path}' cannot be read ({error}); remove it to start again") from None
        if facts.get("facts") != self.facts:
            raise SwysError(f"'{self.path}' is a run of another recipe or seed; remove it to start again")
        parts: dict[str, dict] = {}
        for key, value in tensors.items():
            part, name = key.split("/", 1)
            parts.setdefault(part, {})[name] = value
        try:
            self.model.load_state_dict(parts["model"])
        except RuntimeError:
            raise SwysError(f"'{self.path}' is a run of another model; remove it to start again") from None
        self.objective.load_state_dict(parts.get("objective", {}), strict=False)
        state = self.optimizer.state_dict()
        state["state"] = {int(k.split(".")[1]): v for k, v in parts.items() if k.startswith("optimizer.")}
        self.optimizer.load_state_dict(state)
        self.history, self.best = json.loads(facts["history"]), parts.get("best", {})


def learnt(objective: nn.Module) -> dict[str, Tensor]:
    """The objective's own trained weights (a projector), not the frozen teacher's."""
    return {name: p for name, p in objective.named_parameters() if p.requires_grad}
