import numpy as np
import pytest
import torch
from scipy.special import softmax
from small import OBJECTIVES, objective, some, vit
from torch import nn

from swys_utils import distillation as kd
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.distillation import FeatureDistiller, MapDistiller, SoftTargets, Teacher
from swys_utils.gradcam import grad_cam
from swys_utils.models import weights_digest
from swys_utils.recipe import Batch, Recipe, SupervisedObjective
from swys_utils.training import fit

LABELS = SupervisedObjective()
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)


@pytest.fixture
def batch():
    return Batch(to_model_input(IMAGES, 28), torch.eye(2)[[0, 1, 0, 1, 1, 0]], torch.arange(6), 0)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_soft_target_loss_and_its_gradient_are_the_closed_forms(temperature):
    s, t = torch.randn(
        2, 5, 4, generator=torch.Generator().manual_seed(1)
    ).bfloat16()  # a loss in float32
    p, q = (softmax(z.float().numpy() / temperature, axis=1) for z in (t, s))
    loss = kd.soft_target_loss(s.requires_grad_(), t, temperature)
    assert loss.item() == pytest.approx(
        temperature**2 * (p * np.log(p / q)).sum(axis=1).mean(), rel=1e-5
    )
    gradient = torch.autograd.grad(loss, s)[0].float()
    np.testing.assert_allclose(
        gradient, temperature * (q - p) / len(p), rtol=0.01
    )  # bfloat16 again


def test_alpha_mixes_the_two_losses_and_that_of_features_is_zero_when_the_projector_can_copy(batch):
    student, model = vit(), vit(seed=1, embed_dim=96)
    soft = kd.soft_target_loss(student(batch.inputs), model(batch.inputs), 3).item()
    hard = LABELS(student, batch).item()
    for alpha, expected in ((0, hard), (1, soft), (0.5, (hard + soft) / 2)):
        loss = SoftTargets(Teacher(model), LABELS, alpha, temperature=3)
        assert loss(student, batch).item() == pytest.approx(expected, rel=1e-5)
    s, t = torch.tensor([[0.3, -1.0]]), torch.tensor([[1.0, 0.0]])
    p, q = torch.sigmoid(t), torch.sigmoid(s)
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    loss = SoftTargets(
        Teacher(vit()), SupervisedObjective(multi_label=True), alpha=1, temperature=1
    )
    assert loss.mixed(s, t, t).item() == pytest.approx(expected.item(), rel=1e-4)
    loss = FeatureDistiller(Teacher(model), LABELS, model)
    nn.init.eye_(loss.projector.weight)
    nn.init.zeros_(loss.projector.bias)
    assert loss(model, batch).item() == pytest.approx(LABELS(model, batch).item(), abs=1e-5)


@pytest.mark.parametrize("kind", OBJECTIVES[1:])
def test_the_teacher_stays_as_it_is_and_student_and_projector_learn(drawn_data_dir, kind):
    data = some(load_dataset(root=drawn_data_dir), train=32)
    model, student = vit(seed=1, embed_dim=96, drop_path_rate=0.5), vit()
    loss, before = objective(kind, student, model), weights_digest(model)
    learners = [student, loss.projector] if kind == "features" else [student]
    start = [weights_digest(learner) for learner in learners]
    fit(student, data, Recipe(epochs=1, batch_size=8), loss)
    assert weights_digest(model) == before and not model.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(weights_digest(learner) == old for learner, old in zip(learners, start))


@pytest.mark.parametrize("patch_drop", [0.0, 0.5])
def test_teaching_the_map_brings_the_maps_together(batch, patch_drop):
    teacher, student = (
        vit(seed=1, embed_dim=96, patch_size=7),
        vit(patch_size=7, patch_drop_rate=patch_drop),
    )
    loss = MapDistiller(Teacher(teacher), LABELS, alpha=0, gamma=10)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    before = loss(student, batch).item()
    student.train()
    for _ in range(40):
        optimizer.zero_grad()
        loss(student, batch).backward()
        optimizer.step()
    assert loss(student.eval(), batch).item() < before - 3, (
        "the labels' part alone cannot fall by so much"
    )


def test_a_coarser_student_is_taught_the_means_of_the_teachers_map(batch):
    """The teacher reads 56 px, as images are stored for it, on a 4 x 4 grid, the student 28 px on 2 x 2."""
    model, student, enlarged = vit(img_size=56, seed=1), vit(), to_model_input(IMAGES, 56)
    classes = model(enlarged).argmax(1)
    theirs = grad_cam(model, enlarged, classes, signed=True)
    corners = [theirs[:, i : i + 2, j : j + 2].mean((1, 2)) for i in (0, 2) for j in (0, 2)]
    ours = grad_cam(student, batch.inputs, classes, signed=True).flatten(1)
    loss = MapDistiller(Teacher(model), LABELS, alpha=0, gamma=1)
    loss.check(student)
    expected = LABELS(student, batch) + 1 - kd.correlation(ours, torch.stack(corners, dim=1)).mean()
    assert loss(student, batch).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_teacher_that_cannot_be_compared_is_refused():
    with pytest.raises(SwysError, match="alpha is 2; a share"):
        SoftTargets(Teacher(vit()), LABELS, alpha=2)
    with pytest.raises(SwysError, match="the teacher has 3 classes, the student 2"):
        SoftTargets(Teacher(vit(classes=3)), LABELS).check(vit())
    with pytest.raises(SwysError, match="features are compared by token"):
        FeatureDistiller(Teacher(vit(img_size=56)), LABELS, vit()).check(vit())
    with pytest.raises(SwysError, match=r"the teacher's map is \(2, 2\), the student's \(4, 4\)"):
        MapDistiller(Teacher(vit()), LABELS).check(vit(patch_size=7))
    with pytest.raises(SwysError, match="temperature is 0"):
        kd.soft_target_loss(torch.zeros(1, 2), torch.zeros(1, 2), 0)


def test_hidden_labels_leave_a_share_of_each_class(drawn_data_dir):
    split = load_dataset("bloodmnist", root=drawn_data_dir).train
    few = kd.hide_labels(split, 0.1, seed=1)
    known = few.labels >= 0
    assert (few.labels[known] == split.labels[known]).all() and few.images is split.images
    assert np.bincount(few.labels[known]).tolist() == [
        round(0.1 * n) for n in np.bincount(split.labels)
    ]
