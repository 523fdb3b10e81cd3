"""The model that a notebook goes on with: shipped, kept live, or trained here."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import RECIPE, some, vit
from timm.models.vision_transformer import VisionTransformer

from swys_utils import saved_models
from swys_utils.config import PROFILES, SwysError
from swys_utils.data import Dataset, Split, load_dataset
from swys_utils.models import weights_digest
from swys_utils.recipe import SupervisedObjective
from swys_utils.saved_models import (
    SavedModel,
    is_shipped,
    keep_live,
    load_or_train,
    train_here,
)

PROFILE = replace(PROFILES["smoke"], minute=0.1)
NAME = "vit_tiny_p7"


@pytest.fixture(scope="module")
def pneumonia(drawn_data_dir) -> Dataset:
    """A data set that models are shipped for."""
    return some(load_dataset("pneumoniamnist", root=drawn_data_dir))


@pytest.fixture(scope="module")
def retina(drawn_data_dir) -> Dataset:
    """A data set that no model is shipped for."""
    return some(load_dataset("retinamnist", root=drawn_data_dir))


@pytest.fixture(scope="module", autouse=True)
def build(tmp_path_factory):
    """The folder of kept models."""
    folder = tmp_path_factory.mktemp("build")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_models, "BUILD", folder)
        yield folder


@pytest.fixture
def empty_build(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(saved_models, "BUILD", tmp_path)
    return tmp_path


def test_a_shipped_model_is_loaded(pneumonia):
    saved = load_or_train("vit_tiny", pneumonia, PROFILE, "cpu")
    assert saved.how == "vit_tiny: loaded checkpoints/pneumoniamnist/vit_tiny"


def test_a_shipped_model_is_in_eval_mode(pneumonia):
    saved = load_or_train("vit_tiny", pneumonia, PROFILE, "cpu")
    assert not saved.model.training


def test_what_is_shipped_depends_on_the_data(pneumonia, retina):
    assert is_shipped("vit_tiny", pneumonia)
    assert not is_shipped("vit_tiny", retina)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_an_unknown_name_is_one_line(pneumonia, profile):
    with pytest.raises(SwysError, match="unknown model 'vit_tinny'; did you mean 'vit_tiny'"):
        load_or_train("vit_tinny", pneumonia, profile, "cpu")


@pytest.fixture(scope="module")
def trained(retina, build) -> SavedModel:
    return load_or_train(NAME, retina, PROFILE, "cpu")


def test_what_is_not_shipped_is_trained_here(trained):
    assert trained.how == "vit_tiny_p7: trained here, retinamnist, labels, profile smoke"


def test_a_name_of_the_series_says_the_geometry(trained):
    assert trained.card["patch_size"] == 7


def test_a_model_fits_the_data(trained, retina):
    assert trained.model.num_classes == retina.info.num_classes


def test_a_card_counts_the_images_of_the_validation(trained):
    assert trained.card["splits"]["val"] == 16


def test_no_state_is_left(trained, build):
    assert not list(build.rglob("state.pt"))


def same_weights(first: SavedModel, second: SavedModel) -> bool:
    return weights_digest(first.model) == weights_digest(second.model)


def test_a_model_is_trained_once(trained, retina):
    again = load_or_train(NAME, retina, PROFILE, "cpu")
    assert same_weights(trained, again)


def test_other_images_under_that_name_give_another_model(trained, retina):
    backwards = np.arange(47, -1, -1)
    other = replace(retina, train=retina.train.take(backwards))
    saved = train_here(NAME, other, PROFILE, "cpu")
    assert not same_weights(trained, saved)


def test_other_labels_of_the_same_images_give_another_model(trained, retina):
    labels = np.zeros_like(retina.train.labels)
    other = replace(retina, train=Split(retina.train.images, labels))
    saved = train_here(NAME, other, PROFILE, "cpu")
    assert not same_weights(trained, saved)


class Scaled(SupervisedObjective):
    """The loss on the labels, times a factor."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def loss(self, logits, targets):
        return self.factor * super().loss(logits, targets)


@pytest.fixture(scope="module")
def scaled(retina, trained) -> SavedModel:
    return load_or_train(NAME, retina, PROFILE, "cpu", Scaled(0.1))


def test_another_objective_gives_another_model(trained, scaled):
    assert not same_weights(trained, scaled)


def test_the_sentence_names_the_objective(scaled):
    assert scaled.how == "vit_tiny_p7: trained here, retinamnist, Scaled, profile smoke"


def test_another_setting_of_the_objective_gives_another_model(retina, scaled):
    other = load_or_train(NAME, retina, PROFILE, "cpu", Scaled(0.0))
    assert not same_weights(scaled, other)


def test_the_same_objective_and_setting_give_the_same_model(retina, scaled):
    again = load_or_train(NAME, retina, PROFILE, "cpu", Scaled(0.1))
    assert same_weights(scaled, again)


@pytest.fixture
def live(retina, empty_build) -> VisionTransformer:
    """A model that was trained in front of the reader, with larger patches than its name says."""
    model = vit(retina.info.num_classes)
    history = [{"epoch": 1}]
    keep_live("vit_tiny", retina, PROFILE, model, RECIPE, history)
    return model


def test_a_live_model_is_kept(live, retina):
    saved = load_or_train("vit_tiny", retina, PROFILE, "cpu")
    assert weights_digest(saved.model) == weights_digest(live)


def test_the_sentence_of_a_live_model(live, retina):
    saved = load_or_train("vit_tiny", retina, PROFILE, "cpu")
    assert saved.how == "vit_tiny: trained here, retinamnist, labels, profile smoke"


def test_a_live_model_has_its_card(live, retina):
    saved = load_or_train("vit_tiny", retina, PROFILE, "cpu")
    assert saved.card["patch_size"] == 14
    assert saved.card["history"] == [{"epoch": 1}]


@pytest.fixture
def trainings(monkeypatch) -> list[str]:
    """The names of what is trained here; nothing is."""
    names = []
    monkeypatch.setattr(saved_models, "train_here", lambda name, *_: names.append(name))
    return names


def test_a_live_model_is_of_the_labels_alone(live, retina, trainings):
    load_or_train("vit_tiny", retina, PROFILE, "cpu", Scaled(0.1))
    assert trainings == ["vit_tiny"]


def test_a_live_model_of_another_profile_is_not_taken(live, retina, trainings):
    load_or_train("vit_tiny", retina, PROFILES["quick"], "cpu")
    assert trainings == ["vit_tiny"]


def test_the_whole_recipe_is_trained_in_the_profile_full(pneumonia, trainings):
    load_or_train("vit_tiny", pneumonia, PROFILES["full"], "cpu")
    assert trainings == ["vit_tiny"]


def test_a_student_without_its_teacher_is_the_shipped_one(pneumonia, trainings):
    saved = load_or_train("vit_tiny_maps", pneumonia, PROFILES["full"], "cpu")
    assert saved.how == "vit_tiny_maps: loaded checkpoints/pneumoniamnist/vit_tiny_maps"
    assert trainings == []


def test_another_recipe_gives_another_model(trained, retina, monkeypatch):
    shorter = saved_models._recipe_for(NAME, retina, PROFILE)
    changed = replace(shorter, lr=shorter.lr / 2)
    monkeypatch.setattr(saved_models, "_recipe_for", lambda *_: changed)
    assert not same_weights(trained, train_here(NAME, retina, PROFILE, "cpu"))


def test_nothing_live_is_kept_in_the_profile_full(retina, empty_build):
    keep_live("vit_tiny", retina, PROFILES["full"], vit(5), RECIPE, [])
    assert not list(empty_build.iterdir())


def test_nothing_live_is_kept_where_a_model_is_shipped(pneumonia, empty_build):
    keep_live("vit_tiny", pneumonia, PROFILE, vit(), RECIPE, [])
    assert not list(empty_build.iterdir())


def test_two_notebooks_at_once_train_a_model_once(retina, empty_build, monkeypatch):
    fit = saved_models.fit
    trainings = []

    def counted(*args, **kwargs):
        trainings.append(args)
        return fit(*args, **kwargs)

    def notebook(number: int) -> SavedModel:
        return train_here(NAME, retina, PROFILE, "cpu")

    monkeypatch.setattr(saved_models, "fit", counted)
    with ThreadPoolExecutor(2) as notebooks:
        first, second = notebooks.map(notebook, range(2))
    assert len(trainings) == 1
    assert same_weights(first, second)


def test_a_student_can_have_the_patches_of_its_teacher(retina):
    saved = train_here("vit_tiny_maps", retina, PROFILE, "cpu", patch_size=14)
    assert saved.model.patch_embed.patch_size == (14, 14)


def test_other_patches_are_another_model(retina):
    usual = train_here("vit_tiny_maps", retina, PROFILE, "cpu")
    assert usual.model.patch_embed.patch_size == (4, 4)
