"""The study of planted evidence: who is trained, what is measured, what is kept."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients, KernelShap
from small import vit

from swys_studies import planted, planted_measures
from swys_studies.planted_students import (
    KINDS,
    NoLabels,
    OcclusionDistiller,
    OtherImagesMaps,
    hide_one_patch,
    kind_named,
)
from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.distillation import Teacher
from swys_utils.occlusion import log_odds, occlusion
from swys_utils.planted import Mark, plant
from swys_utils.recipe import Batch, SupervisedObjective, one_hot
from swys_utils.splits import Split

LABELS = np.tile([0, 1], 20)


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    return Split(rng.integers(60, 190, (40, 28, 28), dtype=np.uint8), LABELS)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    targets = one_hot(torch.tensor([0, 1, 1, 0]), 2)
    return Batch(torch.randn(4, 3, 28, 28), targets, torch.arange(4), 0)


def reads_the_corner(images):
    """Logits of a cheat: class 1 where the ring is in the corner."""
    is_marked = images[:, 2, 2] == 255
    return np.stack([~is_marked, is_marked], axis=1).astype(np.float32)


def test_a_cheat_is_wrong_where_the_mark_is_swapped(split):
    found = planted_measures.scores(reads_the_corner, split, Mark(), "binary-class", 0)
    assert found["swapped"] == {"accuracy": 0, "auc": 0}
    assert found["clean"]["auc"] == 0.5
    assert found["as trained"]["auc"] > 0.8


def test_every_answer_of_a_cheat_follows_the_mark(split):
    found = planted_measures.scores(reads_the_corner, split, Mark(), "binary-class", 0)
    assert found["flips"] == 1
    assert found["lost"] == 1


def test_a_uniform_map_is_spread_over_all_patches(split):
    shown = plant(split, Mark(), where="everywhere")
    rows = planted_measures.where_maps_point({"uniform": np.ones((40, 4, 4))}, shown)
    assert rows["uniform"]["spread"] == 1
    assert rows["uniform"]["heat"] == rows["uniform"]["chance"] == 1 / 16


def test_a_model_agrees_with_itself(split):
    model = vit(noise=0.1, patch_size=7)
    shown = plant(split.sample(4), Mark(), where="everywhere")
    maps = planted_measures.ruler_maps(model, shown, 1)
    rows = planted_measures.compared(maps, maps)
    assert {row["agreement"] for row in rows.values()} == {1}


def test_integrated_gradients_add_up(split):
    """From the mean colour to the image they sum to the change of the logit."""
    model = vit(noise=0.1, patch_size=7).double()
    inputs = torch.randn(2, 3, 28, 28, dtype=torch.double)
    maps = planted_measures.integrated_gradients(model, inputs, 1, signed=True)
    start = inputs.mean(dim=(2, 3), keepdim=True).expand_as(inputs)
    with torch.no_grad():
        change = model(inputs)[:, 1] - model(start)[:, 1]
    found = maps.sum(dim=(1, 2)) * 7 * 7  # a map has the mean of a patch's pixels
    torch.testing.assert_close(found.double(), change, rtol=0.1, atol=0.02)


def test_int8_answers_almost_as_the_model(split):
    pytest.importorskip("onnxruntime")
    model = vit(noise=0.1)
    answer = planted_measures.int8_answers(model)
    with torch.no_grad():
        expected = planted.predict(model, split.images)
    assert np.abs(answer(split.images) - expected).max() < 0.2 * np.abs(expected).max()


def mean_of_patches(pixels):
    """A map of 4 x 4 patches of 7 px from values of pixels, float (B, 3, 28, 28)."""
    blocks = pixels.sum(dim=1).unflatten(2, (4, 7)).unflatten(1, (4, 7))
    return blocks.mean(dim=(2, 4)).detach()


@pytest.mark.parametrize("steps", [16, 32])
def test_integrated_gradients_are_those_of_captum(split, monkeypatch, steps):
    monkeypatch.setattr(planted_measures, "IG_STEPS", steps)
    model = vit(noise=0.1, patch_size=7)
    inputs = to_model_input(split.images[:4], 28)
    ours = planted_measures.integrated_gradients(model, inputs, 1, signed=True)
    start = inputs.mean(dim=(2, 3), keepdim=True).expand_as(inputs)
    theirs = IntegratedGradients(model).attribute(
        inputs, start, target=1, n_steps=steps, method="riemann_middle"
    )
    np.testing.assert_allclose(ours, mean_of_patches(theirs), atol=1e-6)


def test_gradient_times_input_is_that_of_captum(split):
    model = vit(noise=0.1, patch_size=7)
    inputs = to_model_input(split.images[:4], 28)
    ours = planted_measures.gradient_times_input(model, inputs, 1, signed=True)
    theirs = InputXGradient(model).attribute(inputs.clone().requires_grad_(), target=1)
    np.testing.assert_allclose(ours, mean_of_patches(theirs), atol=1e-6)


def by_captum(method, model, images, **options):
    """A map of captum: what the log-odds of class 1 lose when patches get the mean colour."""

    def odds_of_one(inputs):
        ones = torch.ones(len(inputs), dtype=torch.long)
        return log_odds(model(inputs), ones)

    inputs = to_model_input(images, 28)
    grey = inputs.mean(dim=(2, 3), keepdim=True)
    patches = torch.arange(16.0).reshape(1, 1, 4, 4)
    patch_of_pixel = torch.nn.functional.interpolate(patches, scale_factor=7)
    values = method(odds_of_one).attribute(
        inputs,
        grey.expand_as(inputs),
        feature_mask=patch_of_pixel.long(),
        **options,
    )
    return values[:, 0, ::7, ::7]  # all pixels of a patch have its value


def test_occlusion_is_the_feature_ablation_of_captum(split):
    model = vit(noise=0.1, patch_size=7)
    images = split.images[:2]
    ours = occlusion(model, images, 1)
    theirs = by_captum(FeatureAblation, model, images)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def hot_at(patch):
    """A map of 4 x 4 patches that is hot at one of them."""
    heat = np.zeros(16, dtype=np.float32)
    heat[patch] = 1
    return heat.reshape(4, 4)


def test_single_patches_and_subsets_are_asked_for_the_mark(split, monkeypatch):
    """The ring is in patch 0."""
    shown = plant(split, Mark(), where="everywhere")
    elsewhere = np.stack([hot_at(5)] * planted_measures.SUBSET_IMAGES)
    monkeypatch.setattr(planted_measures, "occlusion", lambda *_: elsewhere)
    monkeypatch.setattr(planted_measures, "by_subsets", lambda *_: hot_at(0))
    measured = planted_measures.singles_against_subsets(None, shown, 1)
    assert measured["hits"] == 0
    assert measured["hits of subsets"] == 1
    assert measured["same_patch"] == 0


def test_random_subsets_say_what_kernel_shap_says(split):
    """Captum weighs small and large subsets more; the worth of a patch is nearly the same."""
    model = vit(noise=0.1, patch_size=7)
    image = split.images[:1]
    ours = planted_measures.by_subsets(model, image, 1)
    torch.manual_seed(0)
    theirs = by_captum(KernelShap, model, image, n_samples=500)
    alike = np.corrcoef(ours.ravel(), theirs.ravel())
    assert alike[0, 1] > 0.9


# Students


def test_one_patch_of_each_image_is_hidden(batch):
    hidden = hide_one_patch(batch.inputs, 7)
    changed = (hidden != batch.inputs).all(dim=1)
    assert changed.sum(dim=(1, 2)).tolist() == [49] * 4


def test_log_odds_of_two_classes_are_the_difference_of_logits():
    logits = torch.tensor([[1.0, 3.5]])
    assert log_odds(logits, torch.tensor([1])).tolist() == [2.5]


def test_a_student_that_misses_patches_as_its_teacher_does_has_the_loss_on_the_labels(batch):
    model = vit(noise=0.1, patch_size=7)
    labels = SupervisedObjective()
    loss = OcclusionDistiller(Teacher(model), labels)(model, batch)
    torch.testing.assert_close(loss, labels(model, batch))


def test_the_control_gives_each_image_the_map_of_another(batch):
    model = vit(noise=0.1, patch_size=7)
    _, own = Teacher(model).explain(batch)
    _, others = OtherImagesMaps(model).explain(batch)
    torch.testing.assert_close(others[1], own[0])


@pytest.mark.parametrize("weight, name", [(8, "weight 8"), (0.5, "weight 0.5")])
def test_the_weight_of_the_maps_is_that_of_its_name(batch, weight, name):
    teacher = Teacher(vit(noise=0.1, patch_size=7, seed=1))
    student = vit(noise=0.1, patch_size=7)
    labels = SupervisedObjective()
    losses = {}
    for kind in KINDS:
        losses[kind.id] = kind.make(teacher, labels)(student, batch) - labels(student, batch)
    usual = losses["labels + honest maps"] / 2
    torch.testing.assert_close(losses[f"labels + honest maps, {name}"], weight * usual)


def test_a_student_of_maps_alone_is_not_told_the_labels(batch):
    teacher = Teacher(vit(noise=0.1, patch_size=7, seed=1))
    student = vit(noise=0.1, patch_size=7)
    objective = kind_named("honest maps alone").make(teacher, SupervisedObjective())
    other_labels = batch._replace(targets=1 - batch.targets)
    assert objective(student, batch) == objective(student, other_labels) > 0
    assert NoLabels().loss(torch.randn(4, 2), batch.targets) == 0


def test_a_student_never_starts_as_its_teacher():
    students = [kind for kind in KINDS if kind.teacher]
    assert not any(kind.is_teacher for kind in students)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """``asked(kind)`` runs one kind and seed; returns the setting, the kind and the teachers."""
    arguments = []
    monkeypatch.setattr(planted, "_measured", lambda *given: arguments.append(given) or {})
    monkeypatch.setattr(planted, "print_tables", len)
    monkeypatch.setattr(planted, "RUNS", tmp_path / "runs")

    def ask(kind):
        planted.planted("twin", seeds=1, only=kind, save_path=str(tmp_path / "planted.json"))
        return arguments[-1]

    return ask


@pytest.mark.parametrize(
    ("kind", "teacher"),
    [
        ("labels + honest Base's maps", "vit_base"),
        ("labels + honest maps", "vit_tiny"),
    ],
)
def test_a_student_of_base_is_a_tiny(asked, kind, teacher):
    setting, _, teachers = asked(kind)
    assert setting.model == "vit_tiny"
    assert teachers.setting.model == teacher


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("cheat's answers, ring on half", 0.35, 0.65),
        ("cheat's answers", 0, 0.05),
    ],
)
def test_images_without_labels_have_the_ring_on_both_classes(asked, monkeypatch, kind, least, most):
    setting, named, _ = asked(kind)
    seen = []
    state = SimpleNamespace(history=[{"seconds": 0}])
    monkeypatch.setattr(planted, "fit", lambda _, data, *__, **___: seen.append(data) or state)
    planted._train(None, setting, named, 0, None)
    healthy = seen[0].train.labels == 0
    has_ring = seen[0].train.images[healthy][:, 2, 2] == 255
    assert least <= has_ring.mean() <= most


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("cheat's answers, 16 tokens", {"patch": 7}),
        ("honest Base's answers", {"model": "vit_base"}),
        ("honest answers, ring on half", {"mark": "inside"}),
    ],
)
def test_a_kind_that_would_be_a_copy_is_refused(kind, options):
    with pytest.raises(SwysError, match="is no kind of its own"):
        planted.planted("twin", only=kind, **options)
