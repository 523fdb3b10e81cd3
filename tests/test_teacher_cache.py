"""A cached teacher answers like its teacher, and nobody takes it for another one."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from small import RECIPE, SMALL, some, vit

from swys_studies import teacher_cache
from swys_studies.teacher_cache import AskedTeachers, CachedTeacher, cached_teacher, mean_teacher
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.distillation import SoftTargets, Teacher
from swys_utils.models import weights_digest
from swys_utils.recipe import Batch, SupervisedObjective, batches
from swys_utils.training import build, fit
from swys_utils.views import Augmentation

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset("pneumoniamnist", root=drawn_data_dir))


@pytest.fixture(scope="module")
def model():
    return vit(seed=1, noise=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("views")


@pytest.fixture(scope="module")
def cached(model, data, folder):
    return cached_teacher(Teacher(model), data, RECIPE, folder, CPU)


@pytest.fixture
def cached_anew(model, data, tmp_path):
    """As ``cached``, but in an empty folder, with changes."""
    usual = {
        "teacher": Teacher(model),
        "data": data,
        "recipe": RECIPE,
        "folder": tmp_path,
        "device": CPU,
    }

    def cached_anew(**changes):
        return cached_teacher(**(usual | changes))

    return cached_anew


def assert_near(found, expected):
    """The same but for 16 bits: bfloat16 moves maps by 3 % of their largest value."""
    largest = expected.abs().max()
    assert (found - expected).abs().max() < 0.1 * largest


def test_it_answers_by_view_and_image():
    logits = torch.arange(24.0).reshape(2, 4, 3)  # 2 views of 4 images
    maps = torch.arange(32.0).reshape(2, 4, 2, 2)
    teacher = CachedTeacher(logits, maps, digest="")
    batch = Batch(
        inputs=torch.zeros(2, 3, 28, 28),
        targets=torch.zeros(2, 3),
        indices=torch.tensor([3, 0]),
        view=1,
    )
    answers, explanations = teacher.explain(batch)
    assert answers.tolist() == [[21, 22, 23], [12, 13, 14]]
    assert explanations[1].tolist() == [[16, 17], [18, 19]]


@pytest.mark.parametrize("epoch", [0, 1])
def test_logits_are_those_of_the_teacher(cached, model, data, epoch):
    batch = next(batches(data, epoch, RECIPE))
    expected = Teacher(model)(batch)
    assert_near(cached(batch), expected)


@pytest.mark.parametrize("epoch", [0, 1])
def test_explanations_are_those_of_the_teacher(cached, model, data, epoch):
    batch = next(batches(data, epoch, RECIPE))
    expected = Teacher(model).explain(batch)
    for found, wanted in zip(cached.explain(batch), expected):
        assert_near(found, wanted)


def test_a_teacher_that_reads_larger_images_sees_the_same_views(cached_anew, data):
    model = vit(seed=1, noise=0.3, img_size=56)
    cached = cached_anew(teacher=Teacher(model))
    batch = next(batches(data, 1, RECIPE, img_size=56))
    expected = Teacher(model).explain(batch)
    for found, wanted in zip(cached.explain(batch), expected):
        assert_near(found, wanted)


def test_views_that_were_computed_are_read(cached, model, data, folder, monkeypatch):
    monkeypatch.setattr(teacher_cache, "_answers_of", pytest.fail)
    again = cached_teacher(Teacher(model), data, RECIPE, folder, CPU)
    assert torch.equal(again.logits, cached.logits)
    assert torch.equal(again.maps, cached.maps)


def test_answers_are_kept_in_float16(cached, folder):
    for file in folder.rglob("*.safetensors"):
        answers = load_file(file)
        assert answers["logits"].dtype == torch.float16
        assert answers["maps"].dtype == torch.float16


def test_each_view_is_kept_in_a_file(cached, folder):
    files = folder.rglob("*.safetensors")
    names = sorted(file.name for file in files)
    assert names == ["view-0.safetensors", "view-1.safetensors"]


def test_it_has_the_classes_of_its_teacher(cached, model):
    assert cached.num_classes == model.num_classes


def test_it_has_the_grid_of_its_teacher(cached):
    assert cached.grid == (2, 2)


def test_the_same_teacher_has_the_same_digest(cached, cached_anew):
    same = vit(seed=1, noise=0.3)
    assert cached_anew(teacher=Teacher(same)).digest == cached.digest


def test_another_teacher_has_another_digest(cached, cached_anew):
    other = vit(seed=2)
    assert cached_anew(teacher=Teacher(other)).digest != cached.digest


def test_another_augmentation_has_another_digest(cached, cached_anew):
    recipe = replace(RECIPE, augmentation=Augmentation(flip=True))
    assert cached_anew(recipe=recipe).digest != cached.digest


def test_other_images_have_another_digest(cached, cached_anew, data):
    fewer = replace(data, train=data.train.sample(32))
    assert cached_anew(data=fewer).digest != cached.digest


@pytest.fixture
def train(cached_anew, data, tmp_path):
    """Train a student by a cached teacher; the run is kept in a file."""

    def train(teacher, callback=None):
        student = build("vit_tiny", data, RECIPE, **SMALL)
        return fit(
            student,
            data,
            RECIPE,
            SoftTargets(cached_anew(teacher=Teacher(teacher)), SupervisedObjective()),
            device="cpu",
            state_path=tmp_path / "state.pt",
            callback=callback,
        )

    return train


def killed(model, seconds, step):
    if step == 4:  # the first of the second epoch
        raise KeyboardInterrupt


def test_a_finished_run_is_read_with_its_cached_teacher(train, model):
    first = train(model)
    again = train(model)
    assert again.history == first.history


def test_a_finished_run_is_not_read_with_another_cached_teacher(train, model):
    train(model)
    with pytest.raises(SwysError, match="is a run of another"):
        train(vit(seed=2))


def test_a_killed_run_does_not_go_on_with_another_cached_teacher(train, model):
    with pytest.raises(KeyboardInterrupt):
        train(model, callback=killed)
    with pytest.raises(SwysError, match="is a run of another"):
        train(vit(seed=2))


def test_a_recipe_without_fixed_views_is_refused(model, data, tmp_path):
    recipe = replace(RECIPE, views=0)
    with pytest.raises(SwysError, match="a cache needs at least one"):
        cached_teacher(Teacher(model), data, recipe, tmp_path, torch.device("cpu"))


def kept(logits: list[float], heat: float) -> CachedTeacher:
    """A teacher that gives one view of one image these logits, and a map of one patch."""
    return CachedTeacher(torch.tensor([[logits]]), torch.full((1, 1, 1, 1), heat), "digest")


def test_two_teachers_answer_with_their_mean_probability():
    teacher = mean_teacher([kept([0.0, 0.0], 0.0), kept([50.0, 0.0], 0.0)])
    probabilities = teacher.logits.softmax(dim=-1).flatten()
    assert probabilities.tolist() == pytest.approx([0.75, 0.25])


def test_two_teachers_show_their_mean_map():
    teacher = mean_teacher([kept([0.0, 0.0], 1.0), kept([0.0, 0.0], 3.0)])
    assert teacher.maps.item() == 2


def test_the_mean_of_one_teacher_is_that_teacher():
    teacher = kept([1.0, 2.0], 1.0)
    assert mean_teacher([teacher]) is teacher


def test_teachers_are_asked_about_views_that_nobody_kept():
    batch = Batch(
        torch.rand(3, 3, 28, 28),
        torch.zeros(3, 2),
        torch.arange(3),
        view=0,
    )
    models = [vit(seed=0).eval(), vit(seed=1).eval()]
    asked = AskedTeachers([Teacher(model) for model in models])
    with torch.no_grad():
        probabilities = [model(batch.inputs).softmax(dim=-1) for model in models]
    expected = (probabilities[0] + probabilities[1]) / 2
    torch.testing.assert_close(asked(batch).softmax(dim=-1), expected)
    assert weights_digest(models[0]) in asked.digest
