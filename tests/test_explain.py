"""Every measure of an explanation on cases whose answer is known beforehand."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from small import vit

from swys_studies import explanations as study
from swys_utils import explain
from swys_utils import faithfulness as faith
from swys_utils.config import SwysError
from swys_utils.gradcam import METHODS


class BrightCorner(torch.nn.Module):
    """Class 1 is as probable as the top left quarter of the picture is bright."""

    def __init__(self):
        super().__init__()
        self.gain, self.seen = torch.nn.Parameter(torch.tensor(6.0)), []

    def forward(self, x):
        self.seen.append(x.clone())
        brightness = x[:, :, : x.shape[2] // 2, : x.shape[3] // 2].mean((1, 2, 3))
        return torch.stack([0 * brightness, self.gain * brightness], dim=1)


def bright_map(model, inputs, targets=None, block=-1, signed=False):
    """A 'method' that looks at what is bright."""
    return torch.nn.functional.adaptive_avg_pool2d(inputs.mean(1), 4) + 1


def test_agreement_is_scipys_spearman_also_of_ties_empty_maps_and_two_grids():
    a, b = np.random.default_rng(0).integers(0, 5, (2, 6, 4, 4)).astype(float)  # many ties
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b)]
    np.testing.assert_allclose(explain.agreement(a, b), expected, atol=1e-12)
    maps = np.random.default_rng(0).random((3, 5, 5))
    result = explain.agreement(maps, np.stack([2 * maps[0] + 1, -maps[1], np.zeros((5, 5))]))
    np.testing.assert_allclose(result, [1, -1, np.nan])
    np.testing.assert_allclose(explain.agreement(maps.repeat(2, 1).repeat(2, 2), maps), 1)
    with pytest.raises(SwysError, match="3 maps against 2"):
        explain.agreement(maps, maps[:2])


def test_deletion_insertion_rewards_the_right_order_is_patch_aligned_and_ties_are_random():
    inputs, right = torch.full((6, 3, 32, 32), -0.6), np.zeros((6, 4, 4))
    inputs[:, :, :16, :16], right[:, :2, :2] = 0.9, 1
    maps = {"right": right, "wrong": -right, "random": faith.random_maps(6, (4, 4))}
    scores = {
        name: faith.deletion_insertion(BrightCorner(), inputs, map, 1, 8)
        for name, map in maps.items()
    }
    gap = {name: score.gap for name, score in scores.items()}
    assert (
        gap["right"].min() > 0.03 > -0.03 > gap["wrong"].max()
        and (gap["right"] > gap["random"]).all()
    )
    for score in scores.values():  # both curves run between the whole picture and the blurred one
        np.testing.assert_allclose(score.deletion[:, [0, -1]], score.insertion[:, [-1, 0]])
        assert (
            score.deletion.shape == (6, 9) and score.deletion[0, 0] > 0.95 > score.deletion[0, -1]
        )
    predicted = faith.deletion_insertion(
        BrightCorner(), inputs, right, steps=8
    )  # class 1 is predicted
    assert isinstance(predicted, faith.DeletionInsertion) and len(predicted.fractions) == 9
    np.testing.assert_array_equal(predicted.deletion, scores["right"].deletion)
    spy, inputs = BrightCorner(), torch.rand(1, 3, 32, 32)
    faith.deletion_insertion(spy, inputs, np.zeros((1, 4, 4)), targets=0, steps=4)
    deleted = (spy.seen[2] != inputs).any(1)[
        0
    ]  # deletion and insertion alternate; this is a quarter deleted
    tokens = deleted.reshape(4, 8, 4, 8).float().mean((1, 3))
    assert sorted(tokens.flatten().tolist()) == [0] * 12 + [1] * 4 and tokens[0].sum() < 4, (
        "in reading order"
    )


def test_blur_and_baselines():
    assert torch.allclose(
        faith.blurred(torch.full((1, 3, 32, 32), 0.3), 8), torch.tensor(0.3), atol=1e-6
    )
    noise = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    assert faith.blurred(noise, 8).shape == noise.shape and faith.blurred(noise, 8).std() < 0.3
    centre, maps = faith.centre_prior_maps(2, (5, 7)), faith.random_maps(30, (4, 4))
    assert centre.shape == (2, 5, 7) and np.unravel_index(centre[0].argmax(), (5, 7)) == (2, 3)
    for classes in (None, np.arange(30) % 3):
        new = explain.shuffled(maps, classes)
        assert not (new == maps).all(axis=(1, 2)).any() and np.array_equal(
            np.sort(new, 0), np.sort(maps, 0)
        )
    np.testing.assert_array_equal(
        np.sort(new[::3], 0), np.sort(maps[::3], 0)
    )  # each class keeps its own
    assert (
        np.isnan(explain.shuffled(maps, np.arange(30) == 0)).all(axis=(1, 2)).sum() == 1
    )  # no other image


def test_mosaics_hold_one_target_and_pointing_finds_it():
    model, labels, values = vit(), np.repeat([0, 1, 2], 4), np.array([0, 120, 255], np.uint8)
    images = values[labels][:, None, None] * np.ones((1, 28, 28), np.uint8)
    inputs, targets, cells = faith.make_mosaics(model, images, labels, 9)
    tiles = inputs.reshape(9, 3, 2, 14, 2, 14).mean((1, 3, 5)).reshape(9, 4).numpy()
    is_target = np.abs(tiles - (values / 127.5 - 1)[targets][:, None]) < 1e-3
    assert (
        set(targets) == {0, 1, 2} and is_target.sum() == 9 and (is_target.argmax(1) == cells).all()
    )
    two = labels != 1  # black and white: all of a bright map is on the white ones
    result = faith.mosaic_pointing(model, images[two], labels[two], bright_map, count=20)
    np.testing.assert_allclose(result, np.resize([0, 1], 20))
    empty = lambda model, x, *args: torch.zeros(len(x), 3, 3)  # noqa: E731 (an odd grid, and empty)
    assert np.isnan(faith.mosaic_pointing(model, images, labels, empty, count=8)).all()
    with pytest.raises(SwysError, match="two classes"):
        faith.make_mosaics(model, images, np.zeros(12, int))


def test_randomisation_lets_a_dependent_map_fall_and_leaves_no_trained_weight():
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
    model = vit(3, noise=0.1, patch_size=7)
    kept, before = [], deepcopy(model.state_dict())

    def spy(copy, inputs, *args, **options):
        kept.append(deepcopy(copy.state_dict()))
        return bright_map(copy, inputs)

    dice, found = torch.get_rng_state(), explain.randomisation_check(model, images)
    assert torch.equal(dice, torch.get_rng_state()), "the caller's random numbers must not change"
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert list(found) == ["head", "block 1", "block 0", "embedding"] and found["head"].shape == (
        10,
    )
    assert abs(np.nanmean(found["embedding"])) < 0.5
    blind = explain.randomisation_check(model, images, spy)
    np.testing.assert_allclose(list(blind.values()), 1)
    changed = {key for key in before if not torch.equal(kept[0][key], kept[1][key])}
    assert changed == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert not [key for key in before if torch.equal(kept[0][key], kept[-1][key])]


def test_empty_maps_are_counted(monkeypatch):
    monkeypatch.setattr(study, "predict", lambda *_: np.array([[9.0, 0], [0, 9], [0, 9], [0.1, 0]]))
    monkeypatch.setattr(study, "heatmaps", lambda *_, **__: np.array([[[0]], [[-1]], [[1]], [[1]]]))
    rows = study.empty(vit(), ("a", "b"), study.Split(None, None))
    count = {(row["predicted"], row["confidence"]): (row["images"], row["empty"]) for row in rows}
    assert count["all", "all"] == (4, 2) and count["b", "0.95 to 1"] == (2, 1)
    assert count["a", "0.95 to 1"] == (1, 1) and count["a", "below 0.8"] == (1, 0)


@pytest.mark.slow
def test_measure_writes_every_part_once_and_baselines_take_no_rank(
    drawn_data_dir, tmp_path, monkeypatch
):
    model, path = vit(noise=0.1, patch_size=7), tmp_path / "found.json"
    monkeypatch.setattr(
        study, "load_checkpoint", lambda name, device: (model, {"files": [{"sha256": name}]})
    )
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    study.measure(checkpoints={"Base": "Base"}, save_path=str(path))
    stored = json.loads(path.read_text())["parts"]
    assert list(stored) == ["empty maps, Base", "methods, Base"]
    ranks = {row["method"]: row["rank"] for row in stored["methods, Base"]["rows"]}
    assert set(ranks) == {*METHODS, "grad_cam, block 1", "random", "centre prior"}
    np.testing.assert_equal(
        sorted(ranks.values()), [*ranks.values()]
    )  # nan, of the baselines, comes last
    assert (
        np.isnan([ranks["random"], ranks["centre prior"]]).all()
        and np.nansum([*ranks.values()]) == 15
    )
    monkeypatch.setattr(study, "rank_methods", lambda *_: [])
    for weights in ("Base", "new"):
        parts = study.measure(checkpoints={"Base": weights}, save_path=str(path))["parts"]
        assert bool(parts["methods, Base"]["rows"]) == (weights == "Base")
    with pytest.raises(SwysError, match="name some with"):
        study.measure("retinamnist")
