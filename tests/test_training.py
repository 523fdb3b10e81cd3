from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from swys_utils import resume, training
from swys_utils.config import PROFILES, SwysError
from swys_utils.data import Dataset, load_dataset, to_model_input, to_planes
from swys_utils.distillation import SoftTargets, Teacher
from swys_utils.models import create_model, weights_digest
from swys_utils.recipe import Augmentation, Recipe, augment, batches, learning_rate, one_hot, reference_recipe
from swys_utils.training import fit, load_or_train, predict

RECIPE = Recipe(epochs=2, batch_size=16, warmup_epochs=0.5, patch_drop=0.5, views=2)
SMALL = {"patch_size": 14, "depth": 2, "embed_dim": 48, "num_heads": 3}


def small(data: Dataset, n: int = 48) -> Dataset:
    return Dataset(data.train.head(n), data.val.head(16), data.test.head(32), data.info)


def tiny(data: Dataset, seed: int = 0, **kwargs):
    return training.build("vit_tiny", data, RECIPE, seed, **{**SMALL, **kwargs})


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return small(load_dataset(root=drawn_data_dir))


def test_one_start_for_each_seed_and_predict_is_the_model_in_eval_mode(data):
    assert weights_digest(tiny(data, 4)) == weights_digest(tiny(data, 4)) != weights_digest(tiny(data, 5))
    assert reference_recipe("vit_tiny", "bloodmnist").augmentation.turns
    assert not reference_recipe("vit_tiny").augmentation.turns
    model = tiny(data).train()
    logits = predict(model, data.test.images, batch_size=5)
    assert model.training and logits.dtype == np.float32
    with torch.inference_mode():
        expected = model.eval()(to_model_input(data.test.images, 28)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_views_repeat_with_their_numbers_and_without_any_amount_are_the_plain_resize():
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8)
    plain, how, planes = Augmentation(), replace(Recipe().augmentation, turns=True), to_planes(images)
    draws = how.draw(6, torch.Generator().manual_seed(5))
    views = augment(planes, 56, plain, draws)
    torch.testing.assert_close(views, to_model_input(images, 56), atol=2e-3, rtol=0)
    torch.testing.assert_close(
        augment(planes, 14, plain, draws), to_model_input(images, 14), atol=2e-3, rtol=0
    )
    one, two = (augment(planes[:1].expand(6, -1, -1, -1), 56, how, draws) for _ in range(2))
    assert one.shape == (6, 3, 56, 56) and one.abs().max() <= 1
    assert torch.equal(one, two) and not torch.equal(one[0], one[1])
    planes, flip = torch.rand(32, 1, 28, 28) * 2 - 1, Augmentation(flip=True)
    views = augment(planes, 28, flip, flip.draw(32, torch.Generator().manual_seed(0)))
    same = (views - planes).abs().amax(dim=(1, 2, 3)) < 1e-3
    mirrored = (views - planes.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert (same ^ mirrored).all() and same.any() and mirrored.any()


def test_batches_show_each_image_once_in_views_that_repeat(data):
    shown = (list(batches(data, epoch, RECIPE, 28, seed)) for epoch, seed in ((0, 0), (2, 5), (1, 0)))
    first, other_seed, second_view = shown
    rows = torch.cat([batch.rows for batch in first])
    assert sorted(rows.tolist()) == list(range(48)) and first[0].view == other_seed[0].view == 0
    image = int(rows[0])

    def view_of(shown):
        batch = next(batch for batch in shown if image in batch.rows)
        return batch.inputs[batch.rows.tolist().index(image)]

    model = tiny(data).eval()
    loss = training.SupervisedObjective()
    assert torch.equal(training.ModelAndObjective(model, loss)(first[0]), loss(model, first[0]))
    assert torch.equal(view_of(first), view_of(other_seed))  # epoch 2 of any seed shows view 0 again
    assert not torch.equal(view_of(first), view_of(second_view))
    assert torch.equal(one_hot(torch.tensor([1, -1]), 2), torch.tensor([[0.0, 1.0], [0.0, 0.0]]))


def test_the_rate_rises_then_falls_to_zero_by_steps_or_by_seconds():
    recipe = Recipe(epochs=10, lr=1.0, warmup_epochs=1)
    rates = [learning_rate(recipe, step, 10) for step in (0, 9, 10, 55, 100)]
    np.testing.assert_allclose(rates, [1 / 11, 10 / 11, 1, 0.5, 0], atol=1e-9)
    timed = replace(recipe, seconds=60.0)
    assert learning_rate(timed, 3, 10, seconds=33.0) == pytest.approx(0.5)
    assert training.finished([{"seconds": 61.0}], timed)
    assert not training.finished([{"seconds": 61.0}], recipe)


def test_it_learns_what_can_be_learnt(drawn_data_dir):
    data = small(load_dataset(root=drawn_data_dir), n=128)
    recipe = Recipe(epochs=10, batch_size=8, lr=1e-3, augmentation=Augmentation(jitter=0.1), drop_path=0)
    watched = []
    result = fit(tiny(data, patch_size=7), data, recipe, watch=lambda *call: watched.append(call[1:]))
    assert (predict(result.model, data.test.images).argmax(axis=1) == data.test.labels).mean() > 0.9
    assert [row["steps"] for row in result.history] == [16 * (i + 1) for i in range(10)]
    assert watched[-1][1] == 160 and watched == sorted(watched) and len(watched) == 10 * 16


@pytest.mark.parametrize("name", ["bloodmnist", "chestmnist"])
def test_colour_and_multi_label_train(drawn_data_dir, name):
    data = small(load_dataset(name, root=drawn_data_dir))
    result = fit(tiny(data), data, replace(RECIPE, epochs=1))
    assert np.isfinite(result.history[0]["train_loss"]) and 0 <= result.history[0]["val_accuracy"] <= 1


def test_last_and_chosen_epoch_are_kept_and_live_training_ends_in_time(data):
    result = fit(tiny(data), data, replace(RECIPE, epochs=3))
    live = fit(tiny(data), data, replace(RECIPE, seconds=0.5, full_tokens=0.5))
    timed = live.history[-1]  # ends in time, the rate with it, and with all tokens
    assert timed["seconds"] >= 0.5 and timed["lr"] < RECIPE.lr and live.model.patch_drop.prob == 0
    chosen, best = training.validate(result.chosen(), data), training.best_epoch(result.history)
    assert best["val_accuracy"] == max(row["val_accuracy"] for row in result.history)
    assert chosen["val_accuracy"] == pytest.approx(best["val_accuracy"])
    card = training.run_card(data, RECIPE, 0, result.history)
    assert card["dataset"] == "pneumoniamnist" and len(card["history"]) == 3 and card["splits"]["train"] == 48


def test_a_killed_run_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0)
    recipe, path = replace(RECIPE, epochs=3), tmp_path / "m.state.pt"
    straight = fit(tiny(data), data, recipe)

    def kill(model, seconds, step):
        if step == 5:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny(data), data, recipe, state_path=path, watch=kill)
    real, epochs = training.train_epoch, []
    count = lambda *args: epochs.append(len(args[6])) or real(*args)  # noqa: E731 (args[6]: the history)
    monkeypatch.setattr(training, "train_epoch", count)
    resumed = fit(tiny(data, seed=9), data, recipe, state_path=path)
    assert epochs == [1, 2], "the first epoch is not trained again"
    assert weights_digest(resumed.model) == weights_digest(straight.model)
    assert weights_digest(resumed.chosen()) == weights_digest(straight.chosen())
    for message, model, other in (
        ("another recipe or seed", tiny(data), replace(recipe, lr=0.1)),
        ("another model", tiny(data, patch_size=7), recipe),
    ):
        with pytest.raises(SwysError, match=message):
            fit(model, data, other, state_path=path)
    path.unlink()

    def taught(by, temperature):
        objective = SoftTargets(Teacher(tiny(data, by)), training.SupervisedObjective(), 0.5, temperature)
        return fit(tiny(data), data, recipe, objective, state_path=path)

    taught(1, 2)
    for other in ((2, 2), (1, 4)):  # teacher, temperature
        with pytest.raises(SwysError, match="another recipe"):
            taught(*other)
    path.write_bytes(b"x" * 100)
    with pytest.raises(SwysError, match="cannot be read"):
        fit(tiny(data), data, recipe, state_path=path)


def test_an_unwritable_path_an_exploding_loss_or_two_clocks_are_one_line(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(SwysError, match="choose another folder"):
        fit(tiny(data), data, RECIPE, state_path=tmp_path / "file" / "m.safetensors")
    with pytest.raises(SwysError, match="lower the rate"):
        fit(tiny(data), data, replace(RECIPE, lr=1e12, warmup_epochs=0, epochs=3))
    monkeypatch.setattr(training, "Accelerator", lambda **_: SimpleNamespace(num_processes=2))
    with pytest.raises(SwysError, match="2 processes have 2 clocks"):
        fit(tiny(data), data, replace(RECIPE, seconds=1.0))


def test_what_is_shipped_is_loaded_and_the_rest_trained_once(data, tmp_path, monkeypatch, drawn_data_dir):
    monkeypatch.setattr(training, "BUILD", tmp_path)
    small_build = lambda name, data, recipe: create_model(name, data.info.num_classes)  # noqa: E731
    monkeypatch.setattr(training, "build", small_build)
    other = small(load_dataset("retinamnist", root=drawn_data_dir))
    smoke = PROFILES["smoke"]
    first, again = (load_or_train("vit_tiny_soft", other, smoke, "cpu") for _ in range(2))
    assert isinstance(first, training.Trained) and "trained here" in first.how
    assert weights_digest(first.model) == weights_digest(again.model)
    assert predict(first.model, other.test.images).shape == (32, 5) and not list(tmp_path.rglob("*.state.*"))
    other = replace(other, train=other.train.take(np.arange(40, 8, -1)))  # another file of that name
    third = load_or_train("vit_tiny_soft", other, smoke, "cpu")
    assert weights_digest(third.model) != weights_digest(first.model)
    assert "loaded checkpoints/" in load_or_train("vit_tiny_patch16_224", data, smoke, "cpu").how
