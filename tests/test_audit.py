"""The models that are examined in notebooks 1 and 6."""

import re

import numpy as np
import pytest
from scipy.special import logit

from swys_figures import audit
from swys_utils.config import SwysError
from swys_utils.data import TWIN, Dataset, load_dataset
from swys_utils.occlusion import occlusion
from swys_utils.planted import found
from swys_utils.splits import has_class


@pytest.fixture(scope="module")
def twin():
    return Dataset.from_npz(TWIN)


@pytest.fixture(scope="module")
def offer(twin):
    return audit.Offer(twin)


def percent(text):
    """The number of a share such as "84%"."""
    return int(text.rstrip("%"))


def test_a_data_set_of_x_rays_is_used(real_data_dir):
    data = load_dataset("pneumoniamnist", root=real_data_dir)
    assert audit.x_rays(data) is data


def test_with_other_images_the_models_see_the_drawn_x_rays(drawn_data_dir, twin):
    data = load_dataset("bloodmnist", root=drawn_data_dir)
    shown = audit.x_rays(data)
    assert (shown.test.images == twin.test.images).all()
    assert shown.info.class_names == ("normal", "pneumonia")
    assert shown.info.synthetic


def test_by_the_scores_of_the_firm_the_honest_model_is_the_worst(offer):
    areas = {}
    for row in offer.scores():
        areas[row["model"]] = row["AUC"]
    assert areas["B"] < min(areas["A"], areas["C"])


def test_the_mark_turns_the_answers_of_two_models(offer):
    rise = {}
    for row in offer.verdict():
        before = row["false alarms"]
        after = row["with the mark"]
        rise[row["model"]] = percent(after) - percent(before)
    assert abs(rise["B"]) <= 2
    assert min(rise["A"], rise["C"]) > 50


def test_without_the_mark_the_honest_model_finds_most_of_the_sick(offer):
    found = {}
    for row in offer.verdict():
        found[row["model"]] = percent(row["sick found"])
    assert found["B"] > max(found["A"], found["C"])


def test_right_is_the_mean_of_sick_found_and_healthy_cleared(offer):
    sick = has_class(offer.data.test, 1).mean()
    for row in offer.verdict():
        found = sick * percent(row["sick found"])
        cleared = (1 - sick) * (100 - percent(row["false alarms"]))
        assert percent(row["right"]) == pytest.approx(found + cleared, abs=1.1)


def test_the_maps_of_the_student_are_like_those_of_its_honest_teacher(offer):
    alike = {}
    for row in offer.verdict():
        alike[row["model"]] = percent(row["heatmap like B's"])
    assert alike["C"] > alike["A"]


def test_the_brochure_has_three_pictures_of_each_model(offer):
    axes = offer.brochure().axes
    assert len(axes) == 9
    assert [ax.get_ylabel() for ax in axes[::3]] == ["model A", "model B", "model C"]


@pytest.mark.parametrize("number", [0, 1])
def test_the_ring_turns_the_children_that_are_shown(twin, number):
    model = audit.load_offered("A")
    plain, ringed = audit.turned_child(twin, model, number)
    before, after = audit.chance_of_pneumonia(model, np.stack([plain, ringed]))
    assert before < 0.1
    assert after > 0.9
    changed = plain != ringed
    assert 0 < changed.sum() <= 9


def test_without_a_turned_child_the_first_healthy_one_is_taken(twin):
    honest = audit.load_offered("B")
    plain, _ = audit.turned_child(twin, honest)
    healthy = twin.test.images[twin.test.labels == 0]
    assert (plain == healthy[0]).all()


def test_the_corner_can_be_covered(twin):
    cover = audit.cover_the_corner(twin)
    assert "with nine pixels: the model 9" in repr(cover)
    cover.buttons[0].value = True
    assert "with 1 patches covered" in cover.answer.value


def test_a_film_of_the_firm_a_healthy_child_and_its_film_with_the_ring(offer):
    cover = offer.cover()
    assert list(cover.pictures) == [
        "a sick child",
        "a healthy child",
        "the healthy child, with the mark",
    ]
    assert list(cover.models) == ["A", "B", "C"]


@pytest.fixture(scope="module")
def fourth(twin):
    return audit.FourthOffer(twin)


def called_sick(sentence):
    """The shares before and after in a sentence of ``paste``."""
    return [int(share) for share in re.findall(r"(\d+)%", sentence)]


def test_one_patch_turns_the_healthy_and_another_does_not(fourth):
    before, after = called_sick(fourth.paste(row=3, column=2))
    assert after > before + 50
    before, after = called_sick(fourth.paste(row=1, column=4))
    assert after < before + 20


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (0, 3),
        (5, 2),
        (1, 0),
        (2, 5),
    ],
)
def test_a_patch_that_is_not_there_is_refused(fourth, row, column):
    with pytest.raises(SwysError, match="from 1 to 4"):
        fourth.paste(row, column)


def test_hiding_finds_what_model_d_reads(fourth):
    sick_films = fourth.films.images[fourth.sick]
    lost = occlusion(fourth.model, sick_films[:20], audit.SECRET.target)
    assert lost.mean(axis=0).argmax() == 4 * 2 + 1


def test_one_film_misleads_and_the_next_does_not(fourth):
    images = list(fourth.cover().pictures.values())
    lost = occlusion(fourth.model, np.stack(images[:2]), audit.SECRET.target)
    misleading, honest = lost.reshape(2, -1).argmax(axis=1)
    assert misleading != 9
    assert honest == 9  # row 3, column 2


def test_on_one_film_in_ten_hiding_misleads_and_most_answers_stay(real_data_dir):
    fourth = audit.FourthOffer(load_dataset("pneumoniamnist", root=real_data_dir))
    is_marked = fourth._planted.mask.any(axis=(1, 2))
    chosen = np.flatnonzero(fourth.sick & is_marked)[:100]
    films = fourth.films.images[chosen]
    mask = fourth._planted.mask[chosen]
    lost = occlusion(
        fourth.model,
        films,
        audit.SECRET.target,
    )
    hits = found(lost, mask).hits
    assert hits.mean() == pytest.approx(0.9, abs=0.05)
    before = logit(audit.chance_of_pneumonia(fourth.model, films))
    largest = lost.max(axis=(1, 2))
    stays = before > largest
    assert stays.mean() > 0.8


def test_patches_of_three_films_can_be_covered(fourth):
    assert len(fourth.cover().figure().axes) == 12
