from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small import RECIPE, SMALL, objective, some, vit

from swys_utils import saved_models, training
from swys_utils.config import PROFILES, SwysError
from swys_utils.data import load_dataset, to_model_input, to_planes
from swys_utils.models import weights_digest
from swys_utils.processes import ProcessShare
from swys_utils.recipe import (
    Augmentation,
    Recipe,
    augment,
    batches,
    learning_rate,
    one_hot,
    reference_recipe,
)
from swys_utils.saved_models import load_or_train
from swys_utils.training import fit, predict


def tiny(data, seed: int = 0, **size):
    return training.build("vit_tiny", data, RECIPE, seed, **SMALL | size)


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir))


def test_one_start_for_each_seed_and_predict_is_the_model_in_eval_mode(data):
    assert (
        weights_digest(tiny(data, 4))
        == weights_digest(tiny(data, 4))
        != weights_digest(tiny(data, 5))
    )
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
    plain, how, planes = (
        Augmentation(),
        replace(Recipe().augmentation, turns=True),
        to_planes(images),
    )
    draws = how.draw(6, torch.Generator().manual_seed(5))
    for size in (56, 14):
        view = augment(planes, size, plain, draws)
        torch.testing.assert_close(view, to_model_input(images, size), atol=2e-3, rtol=0)
    one, two = (augment(planes[:1].expand(6, -1, -1, -1), 56, how, draws) for _ in range(2))
    assert one.shape == (6, 3, 56, 56) and one.abs().max() <= 1
    assert torch.equal(one, two) and not torch.equal(one[0], one[1])
    planes, flip = torch.rand(32, 1, 28, 28) * 2 - 1, Augmentation(flip=True)
    views = augment(planes, 28, flip, flip.draw(32, torch.Generator().manual_seed(0)))
    same = (views - planes).abs().amax(dim=(1, 2, 3)) < 1e-3
    mirrored = (views - planes.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert (same ^ mirrored).all() and same.any() and mirrored.any()


def test_batches_show_each_image_once_in_views_that_repeat(data):
    def shown(epoch, seed):
        found = list(batches(data, epoch, RECIPE, 28, seed))
        rows = torch.cat([batch.indices for batch in found])
        assert sorted(rows.tolist()) == list(range(48)) and found[0].view == epoch % 2
        return rows.tolist(), torch.cat([batch.inputs for batch in found])[rows.argsort()]

    (order, first), (other_order, other_seed), (_, second_view) = (
        shown(0, 0),
        shown(2, 5),
        shown(1, 0),
    )
    assert (
        torch.equal(first, other_seed) and order != other_order
    )  # epoch 2 of any seed shows view 0 again
    assert not torch.equal(first, second_view)
    model, loss, batch = vit(), training.SupervisedObjective(), next(batches(data, 0, RECIPE))
    assert torch.equal(training.ModelAndObjective(model, loss)(batch), loss(model, batch))
    assert torch.equal(one_hot(torch.tensor([1, -1]), 2), torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    shares = [
        ProcessShare(process, 3, 16) for process in range(3)
    ]  # of three processes: all of it, once
    assert [row for share in shares for row in range(16)[share.rows]] == list(range(16))
    assert sum(share.weight for share in shares) == pytest.approx(3)


def test_the_rate_rises_then_falls_to_zero_by_steps_or_by_seconds():
    recipe = Recipe(epochs=10, lr=1.0, warmup_epochs=1)
    rates = [learning_rate(recipe, step, 10) for step in (0, 9, 10, 55, 100)]
    np.testing.assert_allclose(rates, [1 / 11, 10 / 11, 1, 0.5, 0], atol=1e-9)
    timed = replace(recipe, seconds=60.0)
    assert learning_rate(timed, 3, 10, seconds=33.0) == pytest.approx(0.5)
    assert training.finished([{"seconds": 61.0}], timed)
    assert not training.finished([{"seconds": 61.0}], recipe)


def test_it_learns_what_can_be_learnt(drawn_data_dir):
    data = some(load_dataset(root=drawn_data_dir), train=128)
    recipe = Recipe(
        epochs=10, batch_size=8, lr=1e-3, augmentation=Augmentation(jitter=0.1), drop_path=0
    )
    watched = []
    result = fit(
        tiny(data, patch_size=7), data, recipe, callback=lambda *call: watched.append(call[1:])
    )
    assert (predict(result.model, data.test.images).argmax(axis=1) == data.test.labels).mean() > 0.9
    assert [row["steps"] for row in result.history] == [16 * (i + 1) for i in range(10)]
    assert watched[-1][1] == 160 and watched == sorted(watched) and len(watched) == 10 * 16


def test_last_and_chosen_epoch_are_kept_and_live_training_ends_in_time(data):
    result = fit(tiny(data), data, replace(RECIPE, epochs=3))
    live = fit(tiny(data), data, replace(RECIPE, seconds=0.5, full_tokens=0.5))
    timed = live.history[-1]  # ends in time, the rate with it, and with all tokens
    assert timed["seconds"] >= 0.5 and timed["lr"] < RECIPE.lr and live.model.patch_drop.prob == 0
    chosen, best = training.validate(result.chosen(), data), training.best_epoch(result.history)
    assert best["val_accuracy"] == max(row["val_accuracy"] for row in result.history)
    assert chosen["val_accuracy"] == pytest.approx(best["val_accuracy"])
    card = training.run_card(data, asdict(RECIPE), 0, result.history)
    assert (
        card["dataset"] == "pneumoniamnist"
        and len(card["history"]) == 3
        and card["splits"]["train"] == 48
    )


def test_a_state_goes_on_in_the_run_it_is_of_and_in_no_other(data, tmp_path, monkeypatch):
    def go(teacher=1, temperature=2.0, model=(), **changed):
        loss = objective("soft", None, vit(seed=teacher))
        loss.temperature = temperature
        recipe = replace(RECIPE, **changed)
        return fit(tiny(data, **dict(model)), data, recipe, loss, state_path=tmp_path / "state.pt")

    first = go()
    monkeypatch.setattr(training, "train_epoch", pytest.fail)  # nothing is left to train
    again = go(model={"seed": 9})
    assert again.history == first.history and weights_digest(again.model) == weights_digest(
        first.model
    )
    assert weights_digest(again.chosen()) == weights_digest(first.chosen())
    for other in ({"lr": 0.1}, {"epochs": 3}, {"teacher": 2}, {"temperature": 4.0}):
        with pytest.raises(SwysError, match="another recipe or seed"):
            go(**other)
    with pytest.raises(SwysError, match="another model"):
        go(model={"patch_size": 7})


def test_an_exploding_loss_keeps_the_good_state_and_two_clocks_are_one_line(
    data, monkeypatch, tmp_path
):
    wild = replace(RECIPE, lr=1e12, warmup_epochs=0, epochs=3)
    with pytest.raises(
        SwysError, match=r"step \d of epoch \d, training images \[\d.*a saved state is older"
    ):
        fit(tiny(data), data, wild, state_path=tmp_path / "x.pt")
    assert all(v.isfinite().all() for v in torch.load(tmp_path / "x.pt")["model"].values())
    two = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    monkeypatch.setattr(training, "Accelerator", lambda **_: two)
    with pytest.raises(SwysError, match="2 processes have 2 clocks"):
        fit(tiny(data), data, replace(RECIPE, seconds=1.0))


def test_what_is_shipped_is_loaded_and_the_rest_trained_once(
    data, tmp_path, monkeypatch, drawn_data_dir
):
    monkeypatch.setattr(saved_models, "BUILD", tmp_path)
    monkeypatch.setattr(
        training, "build", lambda _, data, recipe, **size: vit(data.info.num_classes, **size)
    )
    other, smoke = some(load_dataset("retinamnist", root=drawn_data_dir)), PROFILES["smoke"]
    first, again = (load_or_train("vit_tiny_answers", other, smoke, "cpu") for _ in range(2))
    assert (
        isinstance(first, saved_models.SavedModel)
        and "trained here, retinamnist, labels" in first.how
    )
    assert weights_digest(first.model) == weights_digest(again.model)
    assert predict(first.model, other.test.images).shape == (32, 5) and not list(
        tmp_path.rglob("state.pt")
    )
    finer = load_or_train("vit_tiny_p7", other, smoke, "cpu")
    assert finer.card["patch_size"] == 7 and first.card["patch_size"] == 14
    live = load_or_train("vit_tiny", other, smoke, "cpu", live=(finer.model, RECIPE, []))
    assert live.model is finer.model and not live.model.training
    assert load_or_train("vit_tiny", other, smoke, "cpu").card["patch_size"] == 7
    other = replace(
        other, train=other.train.take(np.arange(40, 8, -1))
    )  # another file of that name
    third = load_or_train("vit_tiny_answers", other, smoke, "cpu")
    assert weights_digest(third.model) != weights_digest(first.model)
    assert "loaded checkpoints/" in load_or_train("vit_tiny_patch16_224", data, smoke, "cpu").how
