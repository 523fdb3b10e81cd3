"""A ResNet beside the ViTs: its size, its training, its answers, and as a teacher."""

from dataclasses import replace

import pytest
import torch
from small import some
from torch import nn

from swys_studies import resnet
from swys_studies.teacher_cache import cached_teacher, mean_teacher
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.recipe import Batch, Recipe
from swys_utils.views import Augmentation

RECIPE = Recipe(epochs=2, batch_size=16, warmup_epochs=1, views=2)
FIRST = "resnet18/labels/seed0"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir), train=32, test=12)


@pytest.fixture
def model():
    return resnet.small_resnet(2, seed=0).eval()


@pytest.fixture
def short(monkeypatch):
    """Two passes over few images in place of twelve."""
    monkeypatch.setattr(resnet, "resnet_recipe", lambda dataset: RECIPE)


def losses_of(data, path):
    """Train a new ResNet; its losses and one of its weights."""
    model = resnet.small_resnet(2, seed=0)
    losses = resnet.train_resnet(model, data, RECIPE, seed=0, state_path=path)
    return losses, model.fc.weight.detach()


def test_its_last_layer_has_four_positions_a_side(model, data):
    features = model.forward_features(to_model_input(data.test.images[:2]))
    assert features.shape == (2, 512, 4, 4)


def test_its_answers_are_those_of_the_model(model, data):
    logits = resnet.resnet_logits(model, data.test.images)
    with torch.no_grad():
        expected = model(to_model_input(data.test.images))
    torch.testing.assert_close(torch.as_tensor(logits), expected, atol=1e-4, rtol=1e-4)


def test_training_lowers_the_loss_on_its_images(data):
    model = resnet.small_resnet(2, seed=0)
    targets = torch.as_tensor(data.train.labels).long()

    def loss():
        logits = torch.as_tensor(resnet.resnet_logits(model, data.train.images))
        return torch.nn.functional.cross_entropy(logits, targets).item()

    before = loss()
    plain = replace(
        RECIPE,
        epochs=6,
        batch_size=4,
        lr=5e-4,
        augmentation=Augmentation(),
    )
    resnet.train_resnet(model, data, plain, seed=0)
    assert not model.training
    assert loss() < before


def test_a_killed_training_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    whole, weights = losses_of(data, tmp_path / "whole.pt")
    train_epoch = resnet._train_epoch

    def killed(*args):
        if args[-1] == 1:  # the second epoch
            raise KeyboardInterrupt
        return train_epoch(*args)

    monkeypatch.setattr(resnet, "_train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        losses_of(data, tmp_path / "killed.pt")
    monkeypatch.setattr(resnet, "_train_epoch", train_epoch)
    losses, resumed = losses_of(data, tmp_path / "killed.pt")
    assert losses == whole
    torch.testing.assert_close(resumed, weights, atol=0, rtol=0)


def test_what_is_trained_is_read_and_not_trained_again(data, tmp_path, short, monkeypatch):
    trained = resnet.trained_resnet(FIRST, data, tmp_path)
    entry = resnet.resnet_entry(FIRST, tmp_path)
    assert entry["seed"] == 0
    assert len(entry["predicted"]) == len(data.test)
    assert not (tmp_path / "resnet18/labels/seed0.state.pt").exists()
    monkeypatch.setattr(resnet, "train_resnet", None)
    again = resnet.trained_resnet(FIRST, data, tmp_path)
    torch.testing.assert_close(again.fc.weight, trained.fc.weight, atol=0, rtol=0)


def test_it_learns_as_long_as_base_with_all_of_the_image():
    recipe = resnet.resnet_recipe("pneumoniamnist")
    assert recipe.epochs == 12
    assert recipe.patch_drop == 0


def test_a_state_of_another_recipe_does_not_go_on(data, tmp_path):
    losses_of(data, tmp_path / "state.pt")
    model = resnet.small_resnet(2, seed=0)
    with pytest.raises(SwysError, match="another recipe"):
        longer = replace(RECIPE, epochs=3)
        resnet.train_resnet(model, data, longer, seed=0, state_path=tmp_path / "state.pt")


def test_one_of_another_data_set_is_refused(data, tmp_path, short):
    resnet.trained_resnet(FIRST, data, tmp_path)
    other = replace(data, info=replace(data.info, name="bloodmnist"))
    with pytest.raises(SwysError, match="learned pneumoniamnist, not bloodmnist"):
        resnet.trained_resnet(FIRST, other, tmp_path)


def test_as_a_teacher_it_gives_its_answers_and_no_maps(model, data, tmp_path):
    teacher = resnet.ResnetTeacher(model)
    cached = cached_teacher(teacher, data, RECIPE, tmp_path, CPU)
    assert cached.logits.shape == (2, 32, 2)
    assert cached.grid == (0, 0)
    both = mean_teacher([cached, cached])
    assert both.maps.shape == (2, 32, 0, 0)
    torch.testing.assert_close(both.logits, cached.logits.float().log_softmax(dim=-1))


def test_as_a_teacher_it_never_learns(model, data):
    teacher = resnet.ResnetTeacher(model)
    inputs = to_model_input(data.test.images)
    before = teacher.digest
    nn.ModuleList([teacher]).train()
    batch = Batch(
        inputs,
        torch.zeros(len(inputs), 2),
        torch.arange(len(inputs)),
        view=0,
    )
    torch.testing.assert_close(teacher(batch), teacher.logits_and_maps(inputs)[0])
    assert resnet.ResnetTeacher(model.to(memory_format=torch.contiguous_format)).digest == before
