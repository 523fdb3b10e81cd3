"""What a student is taught: the losses against closed forms, and what is refused."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_array_equal
from small import objective, some, vit
from torch import nn
from torch.testing import assert_close

from swys.features import FeatureDistiller
from swys_utils.config import SwysError
from swys_utils.data import Split, load_dataset, to_model_input
from swys_utils.distillation import (
    MapDistiller,
    SoftTargets,
    Teacher,
    as_two_classes,
    correlation,
    hide_labels,
    soft_target_loss,
)
from swys_utils.gradcam import grad_cam
from swys_utils.models import weights_digest
from swys_utils.recipe import Batch, Recipe, SupervisedObjective
from swys_utils.training import fit

LABELS = SupervisedObjective()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    shape = (6, 28, 28)
    return rng.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def batch(images):
    labels = [0, 1, 0, 1, 1, 0]
    return Batch(
        inputs=to_model_input(images, 28),
        targets=torch.eye(2)[labels],
        indices=torch.arange(6),
        view=0,
    )


@pytest.fixture
def student():
    return vit()


def teacher_of(**geometry):
    return Teacher(vit(**geometry))


@pytest.fixture
def teacher():
    """It is wider than the student."""
    return teacher_of(seed=1, embed_dim=96)


# The losses


@pytest.fixture
def student_logits():
    """Bfloat16 as in training: the loss is computed in float32."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 4, generator=generator)
    return logits.bfloat16().requires_grad_()


@pytest.fixture
def teacher_logits():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(5, 4, generator=generator)
    return logits.bfloat16()


@pytest.fixture(params=[0.5, 4.0])
def temperature(request):
    return request.param


def softened(logits, temperature):
    values = logits.detach().double()
    return torch.softmax(values / temperature, dim=1)


@pytest.fixture
def p(teacher_logits, temperature):
    """The teacher's probabilities."""
    return softened(teacher_logits, temperature)


@pytest.fixture
def q(student_logits, temperature):
    """The student's probabilities."""
    return softened(student_logits, temperature)


def test_soft_target_loss_is_the_closed_form(student_logits, teacher_logits, temperature, p, q):
    loss = soft_target_loss(student_logits, teacher_logits, temperature)
    divergences = p * (p / q).log()
    divergence = divergences.sum(dim=1).mean()
    expected = temperature**2 * divergence
    assert_close(loss, expected.float())


def test_its_gradient_is_the_closed_form(student_logits, teacher_logits, temperature, p, q):
    loss = soft_target_loss(student_logits, teacher_logits, temperature)
    loss.backward()
    expected = temperature * (q - p) / 5
    assert_close(student_logits.grad, expected.bfloat16(), rtol=0.01, atol=1e-4)


def test_a_temperature_of_0_is_refused():
    logits = torch.zeros(1, 2)
    with pytest.raises(SwysError, match="temperature is 0"):
        soft_target_loss(logits, logits, 0)


@pytest.fixture
def soft(batch, student, teacher):
    """The loss on the teacher's answers alone."""
    logits = student(batch.inputs)
    return soft_target_loss(logits, teacher(batch), temperature=3)


@pytest.mark.parametrize("alpha", [0, 0.25, 1])
def test_alpha_mixes_the_two_losses(batch, student, teacher, soft, alpha):
    hard = LABELS(student, batch)
    loss = SoftTargets(teacher, LABELS, alpha, temperature=3)
    expected = (1 - alpha) * hard + alpha * soft
    assert_close(loss(student, batch), expected)


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_a_temperature_is_refused_where_it_is_given(teacher, temperature):
    with pytest.raises(SwysError, match="temperature is"):
        SoftTargets(teacher, SupervisedObjective(), temperature=temperature)


@pytest.mark.parametrize("gamma", [-1, float("nan")])
def test_a_gamma_below_0_is_refused(teacher, gamma):
    with pytest.raises(SwysError, match="gamma is"):
        MapDistiller(teacher, SupervisedObjective(), gamma=gamma)


def test_an_alpha_above_1_is_refused(teacher):
    with pytest.raises(SwysError, match="alpha is 2; a share"):
        SoftTargets(teacher, LABELS, alpha=2)


def test_an_image_without_a_label_is_taught_by_the_teacher_alone(batch, student, teacher, soft):
    no_labels = torch.zeros(6, 2)
    unlabelled = batch._replace(targets=no_labels)
    loss = SoftTargets(teacher, LABELS, alpha=0.25, temperature=3)
    assert_close(loss(student, unlabelled), 0.25 * soft)


def test_each_of_several_labels_is_a_problem_of_two_classes(teacher):
    logits = torch.tensor([[0.3, -1.0]])
    teacher_logits = torch.tensor([[1.0, 0.0]])
    targets = torch.zeros(1, 2)
    p = torch.sigmoid(teacher_logits)
    q = torch.sigmoid(logits)
    of_true = p * (p / q).log()
    of_false = (1 - p) * ((1 - p) / (1 - q)).log()
    divergence = (of_true + of_false).mean()
    labels = SupervisedObjective(multi_label=True)
    loss = SoftTargets(teacher, labels, alpha=1, temperature=1)
    assert_close(loss.mixed(logits, targets, teacher_logits), divergence)


def test_two_classes_are_as_likely_as_the_label_says():
    logits = torch.tensor([[0.3, -1.0]])
    probabilities = torch.softmax(as_two_classes(logits), dim=1)
    assert_close(probabilities[:, 0], torch.sigmoid(logits[0]))


def test_a_plain_function_can_be_the_teacher(batch, student, teacher):
    answers = teacher(batch)
    loss = SoftTargets(lambda batch: answers[batch.indices], LABELS)
    expected = SoftTargets(teacher, LABELS)
    assert_close(loss(student, batch), expected(student, batch))


def test_a_plain_function_can_teach_any_number_of_classes():
    loss = SoftTargets(lambda batch: batch.targets, LABELS)
    loss.check(vit(classes=5))


def test_features_cost_nothing_when_the_projector_can_copy(batch, teacher):
    student = teacher.model
    loss = FeatureDistiller(teacher, LABELS, student)
    nn.init.eye_(loss.projector.weight)
    nn.init.zeros_(loss.projector.bias)
    assert_close(loss(student, batch), LABELS(student, batch))


@pytest.mark.parametrize("patch_drop", [0.0, 0.5])
def test_teaching_the_map_brings_the_maps_together(batch, patch_drop):
    teacher = teacher_of(seed=1, embed_dim=96, patch_size=7)
    student = vit(patch_size=7, patch_drop_rate=patch_drop)
    loss = MapDistiller(teacher, LABELS, alpha=0, gamma=10)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    before = loss(student, batch).item()
    student.train()
    for _ in range(40):
        optimizer.zero_grad()
        loss(student, batch).backward()
        optimizer.step()
    after = loss(student.eval(), batch).item()
    assert after < before - 3  # more than the labels' part of the loss can fall


def test_a_coarser_student_is_taught_the_means_of_the_teachers_map(images, batch, student):
    """The teacher reads 56 px on a 4 x 4 grid, the student 28 px on 2 x 2."""
    teacher = teacher_of(img_size=56, seed=1)
    enlarged = to_model_input(images, 56)
    classes = teacher.model(enlarged).argmax(dim=1)
    fine = grad_cam(teacher.model, enlarged, classes, signed=True)
    means = F.avg_pool2d(fine, 2)
    coarse = grad_cam(student, batch.inputs, classes, signed=True)
    likeness = correlation(coarse.flatten(1), means.flatten(1))
    expected = LABELS(student, batch) + 1 - likeness.mean()
    loss = MapDistiller(teacher, LABELS, alpha=0, gamma=1)
    assert_close(loss(student, batch), expected)


def test_correlation_is_pearsons():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(1, 8, generator=generator)
    b = torch.rand(1, 8, generator=generator)
    rows = torch.cat([a, b])
    expected = torch.corrcoef(rows)[0, 1:]
    assert_close(correlation(a, b), expected)


# What a training changes


@pytest.fixture(scope="module", params=["answers", "maps", "features"])
def trained(request, drawn_data_dir):
    """An objective and a student, as they were and after an epoch."""
    data = some(load_dataset(root=drawn_data_dir), train=32)
    recipe = Recipe(epochs=1, batch_size=8)
    student = vit()
    model = vit(seed=1, embed_dim=96)
    loss = objective(request.param, student, model)
    now = SimpleNamespace(loss=loss, student=student)
    now.before = deepcopy(now)
    fit(student, data, recipe, loss, device="cpu")
    return now


def test_the_teacher_keeps_its_weights(trained):
    before = trained.before.loss.teacher.digest
    assert trained.loss.teacher.digest == before


def test_the_teacher_gets_no_gradient(trained):
    for weight in trained.loss.teacher.parameters():
        assert weight.grad is None


def test_the_student_learns(trained):
    before = weights_digest(trained.before.student)
    assert weights_digest(trained.student) != before


@pytest.mark.parametrize("trained", ["features"], indirect=True)
def test_the_projector_learns(trained):
    before = weights_digest(trained.before.loss.projector)
    assert weights_digest(trained.loss.projector) != before


def test_the_teacher_stays_in_eval_mode(teacher):
    SoftTargets(teacher, LABELS).train()
    assert not teacher.model.training


# Students that are refused


def test_a_teacher_of_other_classes_is_refused(student):
    loss = SoftTargets(teacher_of(classes=3), LABELS)
    with pytest.raises(SwysError, match="the teacher has 3 classes, the student 2"):
        loss.check(student)


def test_features_of_another_grid_are_refused(student):
    loss = FeatureDistiller(teacher_of(img_size=56), LABELS, student)
    with pytest.raises(SwysError, match="features are compared by token"):
        loss.check(student)


def test_features_of_dropped_patches_are_refused(teacher):
    student = vit(patch_drop_rate=0.5)
    loss = FeatureDistiller(teacher, LABELS, student)
    with pytest.raises(SwysError, match="features are compared by token"):
        loss.check(student)


def test_a_student_with_a_finer_map_is_refused(teacher):
    loss = MapDistiller(teacher, LABELS)
    message = r"the teacher's map is \(2, 2\), the student's \(4, 4\)"
    with pytest.raises(SwysError, match=message):
        loss.check(vit(patch_size=7))


def test_a_student_with_a_coarser_map_is_not_refused(student):
    MapDistiller(teacher_of(img_size=56), LABELS).check(student)


# Hidden labels


@pytest.fixture(scope="module")
def split(drawn_data_dir):
    return load_dataset("bloodmnist", root=drawn_data_dir).train


@pytest.fixture(scope="module")
def few(split):
    return hide_labels(split, 0.1, seed=1)


def test_a_share_of_each_class_keeps_its_label(split, few):
    kept = few.labels[few.labels >= 0]
    expected = np.bincount(split.labels) * 0.1
    assert_array_equal(np.bincount(kept), expected.round())


def test_labels_that_stay_are_right(split, few):
    known = few.labels >= 0
    assert_array_equal(few.labels[known], split.labels[known])


def test_images_stay(split, few):
    assert few.images is split.images


def test_two_images_of_a_class_keep_their_label_at_least():
    images = np.zeros((20, 2, 2), np.uint8)
    labels = np.repeat([0, 1], 10)
    split = Split(images, labels)
    few = hide_labels(split, 0.01)
    kept = few.labels[few.labels >= 0]
    assert kept.tolist() == [0, 0, 1, 1]


def test_the_same_seed_hides_the_same_labels(split, few):
    same = hide_labels(split, 0.1, seed=1)
    assert_array_equal(same.labels, few.labels)


def test_another_seed_hides_other_labels(split, few):
    other = hide_labels(split, 0.1, seed=2)
    assert (other.labels != few.labels).any()


def test_several_labels_of_an_image_are_not_hidden():
    split = Split(np.zeros((4, 2, 2), np.uint8), np.zeros((4, 3), int))
    with pytest.raises(SwysError, match="several labels"):
        hide_labels(split, 0.5)
