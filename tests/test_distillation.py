import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import nn

from swys_utils.config import SwysError
from swys_utils.data import Dataset, load_dataset, to_model_input
from swys_utils.distillation import (
    ExplanationDistiller,
    FeatureDistiller,
    SoftTargetDistiller,
    correlation,
    logits_and_map,
    soft_label_loss,
    soft_target_loss,
    standardise,
)
from swys_utils.gradcam import grad_cam
from swys_utils.models import create_model, weights_digest
from swys_utils.training import Recipe, SupervisedObjective, fit

SMALL = {"img_size": 28, "patch_size": 14, "depth": 2}
RECIPE = Recipe(epochs=1, batch_size=8)


def vit(name="vit_tiny", classes=2, seed=0, **kwargs):
    torch.manual_seed(seed)
    return create_model(name, classes, **{**SMALL, **kwargs})


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 28, 28, generator=generator) * 2 - 1, torch.eye(2)[[0, 1, 0, 1, 1, 0]]


# --- losses against closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_target_loss_closed_form(temperature):
    s, t = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    p, q = softmax(t.numpy() / temperature, axis=1), softmax(s.numpy() / temperature, axis=1)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert soft_target_loss(s, t, temperature).item() == pytest.approx(expected)


def test_soft_target_loss_is_zero_only_at_the_teacher_and_its_gradient_points_there():
    t = torch.tensor([[2.0, -1.0, 0.5]])
    assert soft_target_loss(t, t, 2.0).item() == pytest.approx(0, abs=1e-7)
    assert soft_target_loss(t + 3, t, 2.0).item() == pytest.approx(0, abs=1e-6)  # a softmax ignores a constant
    s = torch.zeros(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(soft_target_loss(s, t, 1.0), s)
    torch.testing.assert_close(gradient, torch.full((1, 3), 1 / 3) - t.softmax(1))


def test_gradient_keeps_its_size_at_high_temperature():
    t = torch.tensor([[1.0, -1.0]])
    sizes = []
    for temperature in (20.0, 200.0):
        s = torch.zeros(1, 2, requires_grad=True)
        sizes.append(torch.autograd.grad(soft_target_loss(s, t, temperature), s)[0].abs().sum().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-2)


def test_temperature_must_be_positive():
    with pytest.raises(SwysError, match="temperature is 0"):
        soft_target_loss(torch.zeros(1, 2), torch.zeros(1, 2), 0)


def test_soft_label_loss_is_binary_kl():
    s, t = torch.tensor([[0.3, -1.0]]), torch.tensor([[1.0, 0.0]])
    p, q = torch.sigmoid(t), torch.sigmoid(s)
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert soft_label_loss(s, t, 1.0).item() == pytest.approx(expected.item(), rel=1e-4)


def test_standardised_logits():
    z = standardise(torch.tensor([[1.0, 2.0, 6.0]]))
    assert z.mean().item() == pytest.approx(0, abs=1e-6) and z.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)


def test_correlation_is_pearsons():
    a, b = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(2))
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a.numpy(), b.numpy())]
    np.testing.assert_allclose(correlation(a, b).numpy(), expected, atol=1e-5)


# --- objectives ------------------------------------------------------------------------------------------------


def test_alpha_mixes_the_two_losses(batch):
    inputs, targets = batch
    student, teacher, labels = vit().eval(), vit("vit_base", seed=1).eval(), SupervisedObjective()
    hard = SoftTargetDistiller(teacher, labels, alpha=0)(student, inputs, targets)
    assert hard.item() == pytest.approx(labels(student, inputs, targets).item(), rel=1e-5)
    soft = SoftTargetDistiller(teacher, labels, alpha=1, temperature=3)(student, inputs, targets)
    assert soft.item() == pytest.approx(soft_target_loss(student(inputs), teacher(inputs), 3).item(), rel=1e-5)
    half = SoftTargetDistiller(teacher, labels, alpha=0.5, temperature=3)(student, inputs, targets)
    assert half.item() == pytest.approx((hard + soft).item() / 2, rel=1e-5)


def test_an_ensemble_is_the_mean_of_its_logits(batch):
    teachers = [vit(seed=1).eval(), vit(seed=2).eval()]
    mean = SoftTargetDistiller(teachers, SupervisedObjective()).teacher_logits(batch[0])
    torch.testing.assert_close(mean, (teachers[0](batch[0]) + teachers[1](batch[0])) / 2)


@pytest.mark.parametrize("make", [SoftTargetDistiller, ExplanationDistiller, FeatureDistiller])
def test_the_teacher_stays_as_it_is_and_the_student_learns(drawn_data_dir, make):
    data = load_dataset(root=drawn_data_dir)
    data = Dataset(data.train.head(32), data.val.head(8), data.test.head(8), data.info)
    teacher, student = vit("vit_base", seed=1, drop_path_rate=0.5), vit()
    before, start = weights_digest(teacher), weights_digest(student)
    objective = make(teacher, SupervisedObjective(), *([student] if make is FeatureDistiller else []))
    result = fit(student, data, RECIPE, objective=objective, progress=False)
    assert weights_digest(teacher) == before and not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    assert weights_digest(result.model) != start and np.isfinite(result.step_losses).all()


@pytest.mark.parametrize("trained", [True, False])
def test_the_projector_is_in_the_optimiser_unless_frozen(drawn_data_dir, trained):
    data = load_dataset(root=drawn_data_dir)
    data = Dataset(data.train.head(32), data.val.head(8), data.test.head(8), data.info)
    student = vit()
    objective = FeatureDistiller(vit("vit_base", seed=1), SupervisedObjective(), student, train_projector=trained)
    before = objective.projector.weight.detach().clone()
    fit(student, data, RECIPE, objective=objective, progress=False)
    assert torch.equal(before, objective.projector.weight) != trained


def test_feature_loss_falls_to_zero_when_the_projector_can_copy(batch):
    teacher = vit(seed=1).eval()
    objective = FeatureDistiller(teacher, SupervisedObjective(), teacher, alpha=0, beta=1)
    nn.init.eye_(objective.projector.weight)
    nn.init.zeros_(objective.projector.bias)
    loss = objective(teacher, *batch)
    assert loss.item() == pytest.approx(SupervisedObjective()(teacher, *batch).item(), abs=1e-5)


@pytest.mark.parametrize("create_graph", [True, False])
def test_the_map_that_is_taught_is_grad_cam(batch, create_graph):
    model = vit().eval()
    classes = torch.tensor([0, 1, 0, 1, 0, 1])
    logits, token_map = logits_and_map(model, batch[0], classes, create_graph)
    torch.testing.assert_close(logits, model(batch[0]))
    expected = grad_cam(model, batch[0], classes, signed=True).flatten(1)
    torch.testing.assert_close(token_map.detach(), expected, rtol=1e-4, atol=1e-6)
    assert (
        token_map.requires_grad == create_graph and model.blocks[-1].attn.fused_attn == model.blocks[0].attn.fused_attn
    )


def test_teaching_the_map_brings_the_maps_together(batch):
    teacher, student = vit("vit_base", seed=1).eval(), vit().eval()
    objective = ExplanationDistiller(teacher, SupervisedObjective(), alpha=0, gamma=10)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4)

    def likeness():
        logits, theirs = logits_and_map(teacher, batch[0], None, False)
        return correlation(logits_and_map(student, batch[0], logits.argmax(1), False)[1], theirs).mean().item()

    before = likeness()
    for _ in range(30):
        optimizer.zero_grad()
        objective(student, *batch).backward()
        optimizer.step()
    assert likeness() > before + 0.2


def test_a_coarser_student_is_taught_the_means_of_the_teachers_map(batch):
    """The teacher reads 56 px on a 4 x 4 grid, the student 28 px on 2 x 2: each of its patches covers four."""
    teacher, student, labels = vit(img_size=56, seed=1).eval(), vit().eval(), SupervisedObjective()
    enlarged = F.interpolate(batch[0], size=(56, 56), mode="bilinear", align_corners=False)
    with torch.no_grad():
        classes = teacher(enlarged).argmax(1)
    theirs = grad_cam(teacher, enlarged, classes, signed=True)
    means = torch.stack([theirs[:, i : i + 2, j : j + 2].mean((1, 2)) for i in (0, 2) for j in (0, 2)], dim=1)
    ours = grad_cam(student, batch[0], classes, signed=True).flatten(1)
    objective = ExplanationDistiller(teacher, labels, alpha=0, gamma=1)
    objective.check(student)
    expected = labels(student, *batch) + 1 - correlation(ours, means).mean()
    assert objective(student, *batch).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_teacher_of_other_classes_or_size_is_refused():
    objective = SoftTargetDistiller(vit(classes=3), SupervisedObjective())
    with pytest.raises(SwysError, match="the teacher has 3 classes, the student 2"):
        objective.check(vit())
    with pytest.raises(SwysError, match="the teacher reads 28 px, the student 56 px"):
        SoftTargetDistiller(vit(), SupervisedObjective()).check(vit(img_size=56))
    with pytest.raises(SwysError, match="the teacher reads 56 px, the student 28 px"):
        FeatureDistiller(vit(img_size=56), SupervisedObjective(), vit()).check(vit())
    with pytest.raises(SwysError, match="the teacher's map is 2 x 2, the student's 4 x 4"):
        ExplanationDistiller(vit(), SupervisedObjective()).check(vit(patch_size=7))


def test_a_student_may_read_fewer_pixels_than_its_teacher():
    """The teacher sees the student's view enlarged exactly as a stored image is enlarged for it."""
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    teacher, student = vit(img_size=56).eval(), vit()
    objective = SoftTargetDistiller(teacher, SupervisedObjective(), alpha=1.0)
    objective.check(student)
    expected = soft_target_loss(student(to_model_input(images, 28)), teacher(to_model_input(images, 56)), 2.0)
    loss = objective(student, to_model_input(images, 28), F.one_hot(torch.zeros(4, dtype=torch.int64), 2).float())
    assert torch.allclose(loss, expected)
