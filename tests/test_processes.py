"""Two processes train what one trains: same global batches, views, dropped patches, so the same weights."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from swys_utils.training import Share

SCRIPT = """
import sys
import torch
from dataclasses import replace
from swys_utils.data import load_dataset
from swys_utils.distillation import ExplanationDistiller, FeatureDistiller, SoftTargets, Teacher
from swys_utils.recipe import SupervisedObjective, reference_recipe
from swys_utils import training
from swys_utils.training import build, fit, predict

kind, path, batch_size, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "stop"
torch.set_num_threads(1)
training.fast_bf16 = lambda device: False  # sums of bfloat16 depend on how they are split
data = load_dataset("pneumoniamnist")
data = replace(data, train=data.train.head(100))
recipe = replace(reference_recipe("vit_tiny"), epochs=2, batch_size=batch_size, lr=1e-4, drop_path=0.2)
small = {"embed_dim": 48, "depth": 3, "num_heads": 3}
labels, teacher = SupervisedObjective(), Teacher(build("vit_tiny", data, recipe, 5, **small))
if kind == "features":
    recipe = replace(recipe, patch_drop=0.0)
student = build("vit_tiny", data, recipe, 0, **small)
objectives = {
    "labels": lambda: labels,
    "soft": lambda: SoftTargets(teacher, labels),
    "features": lambda: FeatureDistiller(teacher, labels, student),
    "explain": lambda: ExplanationDistiller(teacher, labels),
}

def watch(model, seconds, step):
    if stop and step > 100 // batch_size:
        raise KeyboardInterrupt

run = fit(student, data, recipe, objectives[kind](), device="cpu", state_path=path + ".state", watch=watch)
losses = [row["train_loss"] for row in run.history]
torch.save({"logits": predict(run.model, data.test.images), "losses": losses}, path)
"""


def train(processes: int, kind: str, data, path, batch_size=16, stop=False) -> dict:
    script = path.with_suffix(".py")
    script.write_text(SCRIPT)
    many = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, *many, script, kind, path, batch_size, "stop" if stop else "go"]
    env = os.environ | {"SWYS_DATA_DIR": str(data), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], env=env, capture_output=True, text=True)
    assert stop or done.returncode == 0, done.stderr[-3000:]
    return {} if stop else torch.load(path, weights_only=False)


def difference(a: dict, b: dict) -> float:
    return max(
        abs(a["logits"] - b["logits"]).max(), max(abs(x - y) for x, y in zip(a["losses"], b["losses"]))
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "soft", "features", "explain"])
def test_two_processes_train_what_one_trains(drawn_data_dir, tmp_path, kind):
    one = train(1, kind, drawn_data_dir, tmp_path / "one")
    two = train(2, kind, drawn_data_dir, tmp_path / "two")
    assert difference(one, two) < 1e-4, difference(one, two)


@pytest.mark.slow
def test_uneven_shares_and_a_resume_in_another_number_of_processes(drawn_data_dir, tmp_path):
    one = train(1, "labels", drawn_data_dir, tmp_path / "one", batch_size=15)
    train(2, "labels", drawn_data_dir, tmp_path / "two", batch_size=15, stop=True)
    assert (tmp_path / "two.state").is_file()
    two = train(1, "labels", drawn_data_dir, tmp_path / "two", batch_size=15)
    assert difference(one, two) < 1e-4, difference(one, two)


def test_shares_of_an_uneven_batch_cover_it_once_and_weigh_by_their_images():
    shares = [Share(process, 3, 16) for process in range(3)]
    assert [i for share in shares for i in range(16)[share.rows]] == list(range(16))
    assert sum(share.weight for share in shares) == pytest.approx(3)
