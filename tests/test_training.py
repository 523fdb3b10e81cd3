"""One training loop: it learns, it stops in time, it goes on after a kill in no other run."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from small import RECIPE, SMALL, objective, some, vit
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from swys_studies.teacher_cache import cached_teacher
from swys_utils import training
from swys_utils.config import SwysError, fast_bf16
from swys_utils.data import Dataset, load_dataset, to_model_input
from swys_utils.distillation import SoftTargets, Teacher
from swys_utils.models import weights_digest
from swys_utils.recipe import Recipe, SupervisedObjective, batches
from swys_utils.resume import TrainingState, objective_settings
from swys_utils.training import (
    ModelAndObjective,
    Prepared,
    fit,
    predict,
    train_epoch,
)
from swys_utils.views import Augmentation

CPU = torch.device("cpu")


def tiny(data: Dataset, seed: int = 0, **geometry: int) -> VisionTransformer:
    return training.build("vit_tiny", data, RECIPE, seed, **(SMALL | geometry))


@pytest.fixture(scope="module")
def data(drawn_data_dir) -> Dataset:
    return some(load_dataset(root=drawn_data_dir))


@pytest.fixture
def model(data) -> VisionTransformer:
    return tiny(data)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "state.pt"


def refused(text: str):
    """The test goes on where a SwysError says ``text``."""
    return pytest.raises(SwysError, match=text)


def test_a_seed_gives_the_same_initial_weights(data):
    first = tiny(data, seed=4)
    again = tiny(data, seed=4)
    assert weights_digest(first) == weights_digest(again)


def test_another_seed_gives_other_initial_weights(data):
    first = tiny(data, seed=4)
    other = tiny(data, seed=5)
    assert weights_digest(first) != weights_digest(other)


def test_a_prediction_is_what_the_model_gives_in_eval_mode(model, data):
    model.train()
    logits = predict(model, data.test.images, batch_size=5)
    inputs = to_model_input(data.test.images, 28)
    model.eval()
    with torch.inference_mode():
        expected = model(inputs)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_no_images_are_refused(model, data):
    with pytest.raises(SwysError, match="no images to predict"):
        predict(model, data.test.images[:0])


def test_predictions_are_float32(model, data):
    logits = predict(model, data.test.images, bf16=True)
    assert logits.dtype == np.float32


def test_a_prediction_leaves_the_model_in_training(model, data):
    model.train()
    predict(model, data.test.images)
    assert model.training


def test_model_and_objective_are_one_module(model, data):
    model.eval()
    loss = SupervisedObjective()
    batch = next(batches(data, 0, RECIPE))
    together = ModelAndObjective(model, loss)
    assert torch.equal(together(batch), loss(model, batch))


@pytest.fixture(scope="module")
def calls() -> list[tuple[float, int]]:
    """Seconds and step of each callback of the run ``learnt``."""
    return []


@pytest.fixture(scope="module")
def learnt(drawn_data_dir, calls) -> TrainingState:
    """Ten epochs of 16 steps on images that a small model can tell apart."""
    data = some(load_dataset(root=drawn_data_dir), train=128)
    gentle = Augmentation(jitter=0.1)
    recipe = Recipe(epochs=10, batch_size=8, augmentation=gentle, drop_path=0)

    def callback(model: nn.Module, seconds: float, step: int) -> None:
        calls.append((seconds, step))

    model = tiny(data, patch_size=7)
    return fit(model, data, recipe, callback=callback)


def test_it_learns_what_can_be_learnt(learnt, data):
    logits = predict(learnt.model, data.test.images)
    predictions = logits.argmax(axis=1)
    correct = predictions == data.test.labels
    assert correct.mean() > 0.9


def test_the_history_counts_steps(learnt):
    steps = [row["steps"] for row in learnt.history]
    assert steps == list(range(16, 161, 16))


def test_each_tenth_of_an_epoch_calls_back(learnt, calls):
    steps = [step for _, step in calls]
    assert len(steps) == 100  # ten in each of ten epochs of 16 steps
    assert steps[9::10] == list(range(16, 161, 16))


def test_the_seconds_of_callbacks_grow(learnt, calls):
    seconds = [at for at, _ in calls]
    assert seconds == sorted(seconds)


def test_a_trained_model_is_in_eval_mode(learnt):
    assert not learnt.model.training


def test_validation_chooses_the_most_accurate_epoch(learnt):
    best = training.best_epoch(learnt.history)
    accuracies = [row["val_accuracy"] for row in learnt.history]
    assert best["val_accuracy"] == max(accuracies)


def test_of_equal_epochs_validation_chooses_the_earliest():
    first = {"epoch": 1, "val_accuracy": 0.5, "val_auc": 0.5}
    second = first | {"epoch": 2}
    best = training.best_epoch([first, second])
    assert best is first


def test_the_chosen_model_has_the_weights_of_the_best_epoch(model, data, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.6])
    digests = []

    def validate(model, data):
        digests.append(weights_digest(model))
        return {"val_accuracy": next(accuracies), "val_auc": 0.5}

    monkeypatch.setattr(training, "validate", validate)
    state = fit(model, data, replace(RECIPE, epochs=3))
    assert digests[1] != digests[2]
    assert weights_digest(state.chosen()) == digests[1]


@pytest.fixture(scope="module")
def timed(data) -> TrainingState:
    recipe = replace(RECIPE, seconds=0.5, full_tokens=0.5)
    return fit(tiny(data), data, recipe)


def test_training_by_the_clock_ends_in_time(timed):
    last = timed.history[-1]
    assert 0.5 <= last["seconds"] < 5


def test_the_rate_falls_by_the_clock(timed):
    last = timed.history[-1]
    assert last["lr"] < RECIPE.lr


def test_the_last_part_of_the_schedule_has_all_tokens(timed):
    assert timed.model.patch_drop.prob == 0


def test_a_model_of_other_classes_is_refused(data):
    with pytest.raises(SwysError, match="the model has 5 classes, the data 2"):
        fit(vit(5), data, RECIPE)


def test_a_schedule_of_seconds_ends_after_them():
    recipe = replace(RECIPE, seconds=60.0)
    assert training.finished([{"seconds": 61.0}], recipe)


def test_a_schedule_of_epochs_ends_after_them():
    assert not training.finished([{"seconds": 61.0}], RECIPE)


@pytest.fixture
def new_process() -> Iterator[None]:
    """As if this process had not trained yet: Accelerate keeps the first device and precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def prepared(model, new_process) -> Prepared:
    accelerator = Accelerator()
    module = ModelAndObjective(model, SupervisedObjective())
    module.to(accelerator.device)
    optimizer = torch.optim.AdamW(module.parameters())
    return Prepared(module, optimizer, accelerator)


def test_an_epoch_goes_on_counting(prepared, data):
    earlier = {"steps": 3, "seconds": 100.0}
    row = train_epoch(prepared, data, RECIPE, 0, [earlier])
    assert row["epoch"] == 2
    assert row["steps"] == 6
    assert row["seconds"] > 100


def test_a_card_says_what_the_run_was(data):
    history = [{"epoch": 1}]
    card = training.run_card(data, asdict(RECIPE), 0, history)
    assert card["dataset"] == "pneumoniamnist"
    assert card["splits"] == {"train": 48, "val": 16, "test": 32}
    assert card["history"] == history


def no_training(*_) -> None:
    pytest.fail("an epoch was trained")


def soft(teacher: int = 1, temperature: float = 2.0) -> nn.Module:
    """Soft targets of a teacher with the weights of that seed."""
    loss = objective("answers", None, vit(seed=teacher))
    loss.temperature = temperature
    return loss


@pytest.fixture(scope="module")
def ended(data, tmp_path_factory) -> TrainingState:
    """A run that is at its end, and its file."""
    path = tmp_path_factory.mktemp("ended") / "state.pt"
    return fit(tiny(data), data, RECIPE, soft(), state_path=path)


@pytest.fixture
def resumed(ended, data) -> TrainingState:
    """Other initial weights, and the file of ``ended``."""
    other = tiny(data, seed=9)
    return fit(other, data, RECIPE, soft(), state_path=ended.path, callback=no_training)


def test_a_resumed_run_has_the_history(resumed, ended):
    assert resumed.history == ended.history


def test_a_resumed_run_has_the_weights(resumed, ended):
    assert weights_digest(resumed.model) == weights_digest(ended.model)


def test_a_resumed_run_has_the_chosen_weights(resumed, ended):
    chosen = weights_digest(resumed.chosen())
    assert chosen == weights_digest(ended.chosen())


@pytest.mark.parametrize("change", [{"lr": 0.1}, {"epochs": 3}])
def test_another_recipe_does_not_go_on(model, data, ended, change):
    recipe = replace(RECIPE, **change)
    with refused("another recipe"):
        fit(model, data, recipe, soft(), state_path=ended.path)


@pytest.mark.parametrize("change", [{"teacher": 2}, {"temperature": 4.0}])
def test_another_objective_does_not_go_on(model, data, ended, change):
    other = soft(**change)
    with refused("another recipe, objective"):
        fit(model, data, RECIPE, other, state_path=ended.path)


def test_another_model_does_not_go_on(data, ended):
    other = tiny(data, patch_size=7)
    with refused("another model"):
        fit(other, data, RECIPE, soft(), state_path=ended.path)


def test_a_damaged_state_is_one_line(model, data, path):
    path.write_bytes(b"no state")
    with refused("cannot be read .*; remove it"):
        fit(model, data, RECIPE, state_path=path)


def cached(data: Dataset, seed: int, folder: Path) -> nn.Module:
    """Soft targets of a teacher whose answers lie in a folder."""
    teacher = cached_teacher(Teacher(vit(seed=seed)), data, RECIPE, folder, CPU)
    return SoftTargets(teacher, SupervisedObjective())


def test_another_cached_teacher_does_not_go_on(model, data, path):
    first = cached(data, 1, path.parent)
    other = cached(data, 2, path.parent)
    fit(model, data, RECIPE, first, state_path=path)
    with refused("another recipe, objective"):
        fit(model, data, RECIPE, other, state_path=path)


class Weighted(nn.Module):
    """A reader's own objective, which says nothing of itself."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight


def test_an_objective_without_settings_is_told_apart_by_its_numbers():
    settings = objective_settings(Weighted(0.3))
    assert settings == {"objective": "Weighted", "weight": 0.3}


def test_a_late_process_leaves_the_state_of_another(model, data, path, monkeypatch):
    def save_while_another_saves(state: dict, part: Path) -> None:
        part.write_bytes(b"of the late process")
        path.write_bytes(b"of another process")

    monkeypatch.setattr(torch, "save", save_while_another_saves)
    with refused("another process trains"):
        fit(model, data, RECIPE, state_path=path)
    assert path.read_bytes() == b"of another process"


@pytest.fixture
def wild() -> Recipe:
    return replace(RECIPE, lr=1e12, warmup_epochs=0, epochs=3)


def test_a_loss_that_explodes_names_step_and_images(model, data, wild):
    with refused(r"step \d of epoch \d, training images \[\d"):
        fit(model, data, wild)


def test_a_loss_that_explodes_keeps_the_good_state(model, data, wild, path):
    with refused("a saved state is older"):
        fit(model, data, wild, state_path=path)
    state = torch.load(path)
    for weights in state["model"].values():
        assert weights.isfinite().all()


@pytest.fixture
def two_processes(monkeypatch) -> None:
    accelerator = SimpleNamespace(num_processes=2, device=CPU)
    monkeypatch.setattr(training, "Accelerator", lambda **_: accelerator)


def test_several_processes_have_no_common_clock(model, data, two_processes):
    recipe = replace(RECIPE, seconds=1.0)
    with refused("2 processes have 2 clocks"):
        fit(model, data, recipe)


def test_several_processes_need_an_image_each(model, data, two_processes):
    recipe = replace(RECIPE, batch_size=1)
    with refused("2 processes share batches of 1"):
        fit(model, data, recipe)


def test_another_precision_is_one_line(model, data, new_process):
    precision = "no" if fast_bf16(CPU) else "bf16"
    Accelerator(mixed_precision=precision, cpu=True)
    with refused("in another precision already; restart it to use cpu"):
        fit(model, data, RECIPE, device="cpu")


def test_another_device_is_one_line(model, data, new_process):
    Accelerator(cpu=True)
    with refused("this process trains on cpu; restart it to use meta"):
        fit(model, data, RECIPE, device="meta")
