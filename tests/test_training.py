from dataclasses import replace

import numpy as np
import pytest
import torch
from medmnist import Evaluator
from scipy.special import softmax

from swys_utils import training
from swys_utils.config import SwysError
from swys_utils.data import Dataset, load_dataset, to_model_input
from swys_utils.models import create_model, load_checkpoint, weights_digest
from swys_utils.training import (
    ORIGINAL,
    Recipe,
    SupervisedObjective,
    augment,
    calibration_error,
    evaluate,
    fit,
    predict,
    reference_recipe,
)

RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, warmup_epochs=0.5)


def small(data: Dataset, n: int = 48) -> Dataset:
    return Dataset(data.train.head(n), data.val.head(16), data.test.head(32), data.info)


def tiny(data: Dataset, seed: int = 0):
    torch.manual_seed(seed)
    return create_model("vit_tiny", data.info.num_classes, 28, patch_size=14, depth=2)


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return small(load_dataset(root=drawn_data_dir))


# --- scores ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pneumoniamnist", "bloodmnist", "retinamnist", "chestmnist"])
def test_scores_are_those_of_medmnist(drawn_data_dir, name):
    data = load_dataset(name, root=drawn_data_dir)
    logits = np.random.default_rng(0).normal(size=(len(data.test), data.info.num_classes))
    logits += 1.5 * (data.test.labels if data.info.multi_label else np.eye(data.info.num_classes)[data.test.labels])
    ours = evaluate(logits, data.test.labels, data.info.task, n_resamples=20)
    scores = training.probabilities(logits, data.info.task)
    theirs = Evaluator(name, "test", root=drawn_data_dir).evaluate(scores)
    assert ours.accuracy == pytest.approx(theirs.ACC) and ours.auc == pytest.approx(theirs.AUC)
    assert ours.accuracy_interval[0] < ours.accuracy < ours.accuracy_interval[1]
    assert ours.auc_interval[0] <= ours.auc <= ours.auc_interval[1]


def test_calibration_error_closed_form():
    scores = np.array([[0.1, 0.9]] * 10)
    labels = np.array([1] * 6 + [0] * 4)  # 90 % sure, 60 % right
    assert calibration_error(scores, labels) == pytest.approx(0.3, abs=1e-6)


def test_scores_of_other_images_are_refused(data):
    with pytest.raises(SwysError, match="3 predictions for 32 labels"):
        evaluate(np.zeros((3, 2)), data.test.labels, data.info.task)


def test_predict_is_the_model_in_eval_mode_whatever_the_batch(data):
    model = tiny(data).train()
    logits = predict(model, data.test.images, batch_size=5)
    assert model.training and logits.dtype == np.float32
    with torch.inference_mode():
        expected = model.eval()(to_model_input(data.test.images, 28)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


# --- augmentation ----------------------------------------------------------------------------------------------


def test_augmentation_without_any_amount_is_the_plain_resize():
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    still = replace(Recipe(), flip=False, rotate=0, scale=0, shift=0, jitter=0)
    assert not still.augments
    views = augment(to_model_input(images, 28)[:, :1], 56, still, torch.Generator().manual_seed(0))
    torch.testing.assert_close(views.expand(-1, 3, -1, -1), to_model_input(images, 56), atol=2e-3, rtol=0)


def test_augmentation_stays_in_range_differs_by_image_and_repeats_by_seed():
    planes = to_model_input(np.random.default_rng(0).integers(0, 256, (1, 28, 28, 3), dtype=np.uint8), 28)
    planes = planes.expand(6, -1, -1, -1)
    recipe = replace(Recipe(), turns=True)
    one, two = (augment(planes, 56, recipe, torch.Generator().manual_seed(5)) for _ in range(2))
    assert one.shape == (6, 3, 56, 56) and one.abs().max() <= 1
    assert torch.equal(one, two) and not torch.equal(one[0], one[1])


def test_a_mirror_is_a_mirror():
    planes = torch.rand(32, 1, 28, 28) * 2 - 1
    mirror = replace(Recipe(), rotate=0, scale=0, shift=0, jitter=0)
    views = augment(planes, 28, mirror, torch.Generator().manual_seed(0))
    same = (views - planes).abs().amax(dim=(1, 2, 3)) < 1e-3
    mirrored = (views - planes.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert (same ^ mirrored).all() and same.any() and mirrored.any()


# --- the loop --------------------------------------------------------------------------------------------------


def test_it_learns_what_can_be_learnt(drawn_data_dir):
    data = small(load_dataset(root=drawn_data_dir), n=256)
    torch.manual_seed(0)
    model = create_model("vit_tiny", 2, 28, patch_size=7, depth=2)
    recipe = replace(RECIPE, epochs=8, mixup=0, rotate=0, scale=0, shift=0, flip=False, jitter=0.1, lr=5e-4)
    result = fit(model, data, recipe, progress=False)
    after = evaluate(predict(result.model, data.test.images), data.test.labels, data.info.task, n_resamples=2)
    assert after.accuracy > 0.9
    assert len(result.history) == 8 and len(result.step_losses) == 8 * 16


@pytest.mark.parametrize("name", ["bloodmnist", "chestmnist"])
def test_colour_and_multi_label_train(drawn_data_dir, name):
    data = small(load_dataset(name, root=drawn_data_dir))
    result = fit(tiny(data), data, replace(RECIPE, epochs=1, turns=True, balanced=True), progress=False)
    assert np.isfinite(result.history[0]["val_loss"])


def test_last_epoch_and_chosen_epoch_are_both_kept(data, tmp_path):
    recipe = replace(RECIPE, epochs=3)
    result = fit(tiny(data), data, recipe, save_path=tmp_path / "m.safetensors", card={"model": "x"}, progress=False)
    best = max(result.history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert result.best_epoch == best
    chosen = result.val_chosen_model()
    row = training._quick_scores(predict(chosen, data.val.images), data.val.labels, data.info)
    assert row["val_accuracy"] == pytest.approx(best["val_accuracy"]) and row["val_loss"] == pytest.approx(
        best["val_loss"], abs=1e-4
    )
    assert {p.name for p in tmp_path.glob("*.safetensors")} == {
        "m.safetensors", "m.val_chosen.safetensors", "m.state.safetensors"}  # fmt: skip


def test_resumed_equals_uninterrupted(data, tmp_path):
    recipe = replace(RECIPE, epochs=3, average_epochs=2)
    straight = fit(tiny(data), data, recipe, progress=False).model
    path = tmp_path / "m.safetensors"
    stopped = fit(tiny(data), data, recipe, save_path=path, budget_s=1e-6, progress=False)
    assert not stopped.finished and len(stopped.history) == 1 and not path.exists()
    resumed = fit(tiny(data, seed=9), data, recipe, save_path=path, resume=True, card={"model": "x"}, progress=False)
    assert resumed.finished and len(resumed.history) == 3
    for (key, a), b in zip(straight.state_dict().items(), resumed.model.state_dict().values()):
        torch.testing.assert_close(a, b, msg=key)


def test_resume_refuses_another_recipe_model_or_nothing(data, tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(SwysError, match="nothing to resume"):
        fit(tiny(data), data, RECIPE, save_path=path, resume=True, progress=False)
    fit(tiny(data), data, RECIPE, save_path=path, card={"model": "x"}, progress=False)
    with pytest.raises(SwysError, match="another recipe .lr 0.001 -> 0.1"):
        fit(tiny(data), data, replace(RECIPE, lr=0.1), save_path=path, resume=True, progress=False)
    other = create_model("vit_tiny", 2, 28, patch_size=7, depth=2)
    with pytest.raises(SwysError, match="another model"):
        fit(other, data, RECIPE, save_path=path, resume=True, progress=False)
    (tmp_path / "m.state.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(SwysError, match="cannot be read"):
        fit(tiny(data), data, RECIPE, save_path=path, resume=True, progress=False)


def test_unwritable_path_is_found_before_training(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SwysError, match="choose another --save_path"):
        fit(tiny(data), data, RECIPE, save_path=tmp_path / "file" / "m.safetensors", progress=False)


def test_a_loss_that_explodes_is_said_so(data):
    with pytest.raises(SwysError, match="lower the learning rate"):
        fit(tiny(data), data, replace(RECIPE, lr=1e12, warmup_epochs=0, epochs=3), progress=False)


def test_live_training_ends_in_time_and_the_schedule_with_it(data):
    result = fit(tiny(data), data, replace(RECIPE, epochs=1000), max_steps=4, progress=False)
    assert len(result.step_losses) == 4 and result.history[-1]["lr"] < RECIPE.lr


def test_patience_stops_the_original_recipe():
    flat = [{"val_accuracy": v} for v in (0.7, 0.8, 0.8, 0.8, 0.8)]
    assert training._stopped_early(flat, ORIGINAL) and not training._stopped_early(flat[:4], ORIGINAL)


def test_the_step_schedule_halves():
    rates = [training._learning_rate(ORIGINAL, step, 10, 300, 0.0, 0) for step in (0, 49, 50, 100)]
    np.testing.assert_allclose(rates, [1e-5, 1e-5, 5e-6, 2.5e-6])


def test_class_weights_balance():
    logits, targets = torch.zeros(4, 2), torch.eye(2)[[0, 1, 1, 1]]
    plain = SupervisedObjective().loss(logits, targets)
    assert plain.item() == pytest.approx(np.log(2), abs=1e-6)
    weighted = SupervisedObjective(class_weights=[2.0, 2 / 3]).loss(torch.tensor([[1.0, 0.0]] * 4), targets)
    p = softmax([1.0, 0.0])
    assert weighted.item() == pytest.approx(-(2 * np.log(p[0]) + 2 * np.log(p[1])) / 4, abs=1e-5)


def test_same_seed_same_start(data):
    one, two = (training.build("vit_tiny", data, RECIPE, seed=4, img_size=28, patch_size=7) for _ in range(2))
    other = training.build("vit_tiny", data, RECIPE, seed=5, img_size=28, patch_size=7)
    assert weights_digest(one) == weights_digest(two) != weights_digest(other)


def test_reference_recipe_turns_cells_but_not_chests():
    assert reference_recipe("vit_tiny", "bloodmnist").turns and not reference_recipe("vit_tiny").turns


def test_saved_model_is_the_trained_one(data, tmp_path):
    card = {"model": "vit_tiny_patch16_224", "model_kwargs": {"patch_size": 14, "depth": 2}}
    result = fit(tiny(data), data, RECIPE, save_path=tmp_path / "m", card=card, progress=False)
    loaded, read = load_checkpoint(tmp_path / "m", num_classes=2)
    assert weights_digest(loaded) == weights_digest(result.model)
    assert read["dataset"] == "pneumoniamnist" and len(read["history"]) == 2 and read["training_hashes"]
