"""Checks of a reader's answers."""

import numpy as np
import pytest
import torch
from small import vit

from swys_utils import exercises
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.exercises import check, register


@pytest.fixture(autouse=True)
def doubling(monkeypatch):
    monkeypatch.setattr(exercises, "CHECKS", dict(exercises.CHECKS))

    @register("doubling")
    def is_double(answer, number):
        return "" if answer == 2 * number else f"{number} + {number} is something else."


def test_a_right_answer(capsys):
    check("doubling", 6, 3)
    assert capsys.readouterr().out == "doubling: right.\n"


def test_a_wrong_answer_gets_a_hint(capsys):
    check("doubling", 5, 3)
    assert "not yet. 3 + 3 is something else." in capsys.readouterr().out


def test_an_untouched_starter_cell_is_no_mistake(capsys):
    check("doubling", ..., 3)
    assert "in place of the dots" in capsys.readouterr().out


def test_an_unknown_exercise_is_one_line():
    with pytest.raises(SwysError, match="did you mean 'doubling'"):
        check("doublin", 6, 3)


@pytest.fixture
def data(drawn_data_dir):
    return load_dataset("pneumoniamnist", root=drawn_data_dir)


@pytest.fixture
def said(capsys):
    """``said(name, answer, *given)``: what the check of an exercise prints."""

    def run(*arguments) -> str:
        check(*arguments)
        return capsys.readouterr().out

    return run


def test_other_shares(said):
    rates = (0.9, 0.7, 0.25)  # of the healthy, of the sick, and the share of the sick
    assert "right" in said("other shares", 0.85, *rates)
    assert "not a percentage" in said("other shares", 85, *rates)
    assert "exchanged" in said("other shares", 0.75, *rates)
    assert "Weight each" in said("other shares", 0.9, *rates)


def test_moved(said, data):
    images = data.test.images
    assert "right" in said("moved", np.roll(images, 2, axis=2), images)
    assert "axis 2" in said("moved", np.roll(images, 2, axis=1), images)
    assert "went in" in said("moved", images[:, 1:], images)
    assert "column 0" in said("moved", images, images)


def test_weights_as_an_image(said):
    coefficients = np.arange(9.0)[None]
    assert "right" in said("weights as an image", np.arange(9.0).reshape(3, 3), coefficients)
    assert "a square" in said("weights as an image", coefficients, coefficients)
    assert "order" in said("weights as an image", np.zeros((3, 3)), coefficients)
    assert "weights" in said("weights as an image", np.zeros((2, 2)), coefficients)


def test_query(said):
    key = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert "right" in said("query", torch.tensor([-5.0, 5.0]), key)
    assert "right" in said("query", [-5, 5], key)
    assert "33%, 33%, 33%" in said("query", torch.zeros(2), key)
    assert "fit key 2" in said("query", torch.tensor([0.0, 9.0]), key)
    assert "has 2 numbers" in said("query", torch.zeros(3), key)
    assert "make it longer" in said("query", [-3, 3], key)


def test_shuffled(said):
    tokens = torch.arange(24.0).reshape(1, 4, 6)
    assert "right" in said("shuffled", tokens[:, [0, 2, 3, 1]], tokens)
    assert "CLS" in said("shuffled", tokens[:, [1, 0, 2, 3]], tokens)
    assert "in their order" in said("shuffled", tokens, tokens)
    assert "not the same" in said("shuffled", tokens[:, [0, 2, 2, 1]], tokens)
    assert "went in" in said("shuffled", tokens[:, 1:], tokens)
    assert "this is a list" in said("shuffled", tokens.tolist(), tokens)


def test_forward_pass(said):
    model = vit().eval()
    images = torch.zeros(2, 3, *model.patch_embed.img_size)
    images[1] += 1
    with torch.no_grad():
        tokens = model.blocks(model._pos_embed(model.patch_embed(images)))
        given = (model, images)
        assert "right" in said("forward pass", model(images), *given)
        assert "shape" in said("forward pass", tokens, *given)
        assert "normalisation" in said("forward pass", model.head(tokens[:, 0]), *given)
        assert "A block" in said("forward pass", -model(images), *given)
        assert "this is a tuple" in said("forward pass", (model(images), tokens), *given)


@torch.no_grad()
def test_likely_slips_in_the_forward_pass(said):
    model = vit(noise=0.05)
    images = torch.randn(2, 3, 28, 28)
    tokens = model.blocks(model._pos_embed(model.patch_embed(images)))
    of_all_tokens = model.head(model.norm(tokens).mean(dim=1))
    assert "token 0" in said("forward pass", of_all_tokens, model, images)
    without_places = vit(noise=0.05)
    without_places.pos_embed.zero_()
    assert "vit.pos_embed" in said("forward pass", without_places(images), model, images)


@torch.no_grad()
def test_a_right_forward_pass_is_right_in_the_midst_of_training(said):
    model = vit(noise=0.05, patch_drop_rate=0.5)
    images = torch.randn(2, 3, 28, 28)
    right = model(images)
    assert "right" in said("forward pass", right, model.train(), images)


def test_true_alarms(said):
    assert "right" in said("true alarms", 0.2013, 0.91, 0.81)
    assert "fraction" in said("true alarms", 20, 0.91, 0.81)
    assert "other way round" in said("true alarms", 0.91, 0.91, 0.81)
    assert "50 are sick" in said("true alarms", 0.5, 0.91, 0.81)


def test_how_many_images(said):
    assert "right" in said("how many images", 2000)
    assert "twice" in said("how many images", 500)
    assert "Solve" in said("how many images", 50)


def test_bits(said):
    weights = torch.tensor([[1.0, -0.5], [0.2, 0.1]])
    scale = weights.abs().amax(dim=1, keepdim=True) / 7
    whole = (weights / scale).round()
    assert "right" in said("bits", whole * scale, weights)
    assert "multiply them by the scale" in said("bits", whole, weights)
    assert "multiply them by the scale" in said("bits", whole.to(torch.int8), weights)
    assert "becomes 7" in said("bits", weights, weights)
    assert "went in" in said("bits", weights[0], weights)


@pytest.mark.parametrize("name", exercises.CHECKS)
def test_a_forgotten_return_is_told(name, capsys):
    check(name, None)
    assert "there is no answer yet (None)" in capsys.readouterr().out


def test_a_pair_that_nobody_has_filled_in_is_no_mistake(capsys):
    check("two models", (..., ...))
    assert "put your answer in place of the dots" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [([1, 1], [2]), (1, 2), ([1, 1],)])
def test_anything_but_two_pairs_gets_a_hint(answer, capsys):
    check("two models", answer)
    assert "Give two lists of two numbers" in capsys.readouterr().out


def test_two_pairs_may_be_arrays(capsys):
    check("two models", (np.array([1.0, 1.0]), np.array([2.0, 0.0])))
    assert "two models: right" in capsys.readouterr().out


# Extras 7 to 10


def test_pairs(said):
    given = ([0.9, 0.7], [0.8, 0.6])  # cheats, students: fewer in three of four pairs
    assert "right" in said("pairs", 0.75, *given)
    assert "fraction" in said("pairs", 3, *given)
    assert "start by start" in said("pairs", 1.0, *given)
    assert "In what share" in said("pairs", 0.25, *given)


def sick(hidden):
    """A model that reads two rings, in patches 0 and 3."""
    return 0.95 if {0, 3} - set(hidden) else 0.05


def test_two_rings(said):
    assert "right" in said("two rings", ([0, 0, 0, 0], 0.9), sick)
    assert "right" in said("two rings", (np.zeros(4), 0.9), sick)
    assert "Take sick([0])" in said("two rings", ([0.9, 0, 0, 0.9], 0.9), sick)
    assert "four numbers, and one" in said("two rings", ([0, 0], 0.9), sick)
    assert "in place of the dots" in said("two rings", (..., ...), sick)


def test_same_answers_same_maps(said):
    runs = []
    maps = {}
    for group, alike, same in [("Tiny, answers", 0.3, 0.96), ("Tiny, answers + maps", 0.97, 0.97)]:
        runs.append({"id": group, "group": group, "same_prediction": same})
        maps[group] = {"spearman": alike}
    study = {"runs": runs, "maps": {"grad_cam": {"runs": maps}}}
    name = "same answers, same maps"
    assert "right" in said(name, (0.67, 0.01), study)
    assert "From the mean" in said(name, (-0.67, -0.01), study)
    assert "two differences" in said(name, 0.67, study)


def test_how_many_seeds(said):
    differences = [-0.29, 0.04, 0.47]
    assert "right" in said("how many seeds", 29, differences)
    assert "n - 1" in said("how many seeds", 19, differences)
    assert "Round up" in said("how many seeds", 28.4, differences)


def test_levels(said, data):
    images = data.test.images
    levels = np.stack([(images // 32 == level).mean(axis=(1, 2)) for level in range(8)], axis=1)
    assert "right" in said("levels", levels, images)
    assert "not counts" in said("levels", 784 * levels, images)
    assert "expected" in said("levels", levels[:, :4], images)


def test_heat_on_the_dark(said):
    heat = np.zeros((2, 4, 4))
    heat[0, :, :2] = 1  # the second map is empty
    dark = np.zeros((2, 4, 4), bool)
    dark[:, :2] = True
    assert "right" in said("heat on the dark", [0.5], [heat], dark)
    assert "all heat" in said("heat on the dark", [np.nan], [heat], dark)
    assert "each of the 1 models" in said("heat on the dark", 0.5, [heat], dark)


def test_smallest_patch(said):
    def cost(side):
        return (224 / side) ** 2

    assert "right" in said("smallest patch", 16, cost, 200)
    assert "6.2 times your budget" in said("smallest patch", 8, cost, 126)
    assert "smaller patches" in said("smallest patch", 32, cost, 200)
    assert "cannot be cut" in said("smallest patch", 20, cost, 200)


def test_patients_in_two_splits(said):
    given = (np.array([0, 0, 1, 1, 2]), np.array(["train", "test", "test", "test", "val"]))
    assert "right" in said("patients in two splits", 1, *given)
    assert "count the patients" in said("patients in two splits", 2, *given)
    assert "more than one" in said("patients in two splits", 3, *given)
