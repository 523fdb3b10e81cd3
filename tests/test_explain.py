"""Every measure of an explanation on cases whose answer is known beforehand."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from swys_utils import explain
from swys_utils.config import SwysError
from swys_utils.gradcam import METHODS
from swys_utils.models import create_model

SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("vit_tiny", 3, img_size=32, **SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)


class BrightCorner(torch.nn.Module):
    """Class 1 is as probable as the top left quarter of the picture is bright; the map that says so is known."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(6.0))

    def forward(self, x):
        brightness = x[:, :, : x.shape[2] // 2, : x.shape[3] // 2].mean((1, 2, 3))
        return torch.stack([0 * brightness, self.gain * brightness], dim=1)


def test_spearman_is_scipys_also_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 6, 4, 4)).astype(float)  # many ties
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b)]
    np.testing.assert_allclose(explain.agreement(a, b).spearman, expected, atol=1e-12)


def test_agreement_of_equal_opposite_and_empty_maps():
    maps = np.random.default_rng(0).random((3, 5, 5))
    other = np.stack([2 * maps[0] + 1, -maps[1], np.zeros((5, 5))])
    result = explain.agreement(maps, other)
    np.testing.assert_allclose(result.spearman, [1, -1, np.nan])
    np.testing.assert_allclose(result.iou, [1, 0, np.nan])
    assert result.undefined == 1 and "undefined" in str(result)
    assert result.row()["images"] == 3 and result.row()["spearman"] == pytest.approx(0)


def test_mean_interval_claims_nothing_from_few_images():
    mean, low, high = explain.mean_interval(np.array([1.0, 3.0, np.nan]))
    assert mean == 2 and np.isnan(low) and np.isnan(high)
    mean, low, high = explain.mean_interval(np.arange(50.0))
    assert low < mean == 24.5 < high
    assert np.isnan(explain.mean_interval(np.full(9, np.nan))).all()


def test_top_tokens_by_hand():
    a, b = np.zeros((1, 2, 5)), np.zeros((1, 2, 5))
    a[0, 0, :2] = 3, 2  # top 20 % of 10 tokens: two
    b[0, 0, 1:3] = 5, 4
    assert explain.agreement(a, b, top=0.2).iou[0] == pytest.approx(1 / 3)
    b[:] = 0
    b[0, 0, 0] = 1  # fewer positive tokens than two: the zeros tied behind them do not count
    assert explain.agreement(a, b, top=0.2).iou[0] == pytest.approx(1 / 2)


def test_agreement_across_grids_and_counts():
    coarse = np.random.default_rng(0).random((4, 3, 3))
    fine = coarse.repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(explain.agreement(fine, coarse).spearman, 1)
    with pytest.raises(SwysError, match="4 maps against 3"):
        explain.agreement(coarse, coarse[:3])


def test_ladder_has_chance_and_groups():
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((60, 6, 6))
    near = maps + rng.standard_normal(maps.shape)
    mask = np.arange(60) < 20
    rows = explain.agreement_ladder({"near": (maps, near)}, groups={"first": mask, "nobody": mask & ~mask})
    by = {(row["pair"], row["group"]): row for row in rows}
    assert by["near", "all"]["low"] > 0.5 > abs(by["near, shuffled", "all"]["spearman"])
    assert by["near, shuffled", "all"]["low"] < 0 < by["near, shuffled", "all"]["high"]
    assert by["near", "first"]["images"] == 20
    assert np.isnan(by["near", "nobody"]["spearman"])
    assert str(rows).count("\n") == len(rows)
    equal = explain.agreement_ladder({"same": (maps, maps)})
    assert equal[1]["spearman"] < 0.2, "the shuffle must leave no image with itself"


def test_outcome_groups_and_predictions():
    labels = np.array([0, 1, 0, 1])
    teacher = np.array([[2.0, 0], [0, 2], [0, 2], [2, 0]])
    student = np.array([[2.0, 0], [2, 0], [2, 0], [2, 0]])
    groups = explain.outcome_groups(labels, teacher, student)
    assert [mask.tolist().index(True) for mask in groups.values()] == [0, 1, 2, 3]
    rows = explain.prediction_agreement(teacher, student)
    assert rows[0]["mean"] == 0.5
    p = np.exp(2) / (1 + np.exp(2))
    assert rows[1]["mean"] == pytest.approx(0.5 * (2 * p - 1) * 2)  # two images: log-ratio 2, weighted p and 1 - p
    assert explain.prediction_agreement(teacher, teacher)[1]["mean"] == 0


@pytest.mark.parametrize("fill", ["blur", "mean"])
def test_deletion_insertion_rewards_the_right_order(fill):
    inputs = torch.full((6, 3, 32, 32), -0.6)
    inputs[:, :, :16, :16] = 0.9
    right = np.zeros((6, 4, 4))
    right[:, :2, :2] = 1
    scores = {
        name: explain.deletion_insertion(BrightCorner(), inputs, maps, targets=1, steps=8, fill=fill)
        for name, maps in {"right": right, "wrong": -right, "random": explain.random_maps(6, (4, 4))}.items()
    }
    assert scores["right"].gap.min() > 0.03 > -0.03 > scores["wrong"].gap.max()
    assert (scores["right"].gap > scores["random"].gap).all()
    for score in scores.values():  # both curves run between the whole picture and the filled one
        assert score.deletion.shape == (6, 9)
        np.testing.assert_allclose(score.deletion[:, 0], score.insertion[:, -1])
        np.testing.assert_allclose(score.deletion[:, -1], score.insertion[:, 0])
        assert score.deletion[0, 0] > 0.95 > score.deletion[0, -1]


def test_deletion_is_patch_aligned_and_ties_are_random():
    seen = []

    class Spy(BrightCorner):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    inputs = torch.rand(1, 3, 32, 32)
    explain.deletion_insertion(Spy(), inputs, np.zeros((1, 4, 4)), targets=0, steps=4, fill="mean")
    deleted = (seen[2] != inputs).any(1)[0]  # deletion and insertion alternate; this is one quarter deleted
    tokens = deleted.reshape(4, 8, 4, 8).float().mean((1, 3))
    assert sorted(tokens.flatten().tolist()) == [0.0] * 12 + [1.0] * 4
    assert tokens[0].sum() < 4, "an empty map must not delete in reading order"


def test_blur_keeps_a_plain_colour_and_removes_detail():
    plain = torch.full((1, 3, 32, 32), 0.3)
    assert torch.allclose(explain.blurred(plain, 8), plain, atol=1e-6)
    noise = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    assert explain.blurred(noise, 8).shape == noise.shape and explain.blurred(noise, 8).std() < 0.3


def test_baselines():
    centre = explain.centre_prior_maps(2, (5, 7))
    assert centre.shape == (2, 5, 7) and np.unravel_index(centre[0].argmax(), (5, 7)) == (2, 3)
    noise = explain.random_maps(3, (4, 4))
    assert not np.array_equal(noise[0], noise[1]) and np.array_equal(noise, explain.random_maps(3, (4, 4)))


def bright_map(model, inputs, targets=None, block=-1, signed=False):
    """A 'method' that looks at what is bright."""
    return torch.nn.functional.adaptive_avg_pool2d(inputs.mean(1), 4) + 1


def test_mosaics_hold_one_target(model):
    images = np.repeat(np.array([10, 120, 250], np.uint8), 4)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    labels = np.repeat([0, 1, 2], 4)
    inputs, targets, cells = explain.make_mosaics(images, labels, 9, 32)
    assert inputs.shape == (9, 3, 32, 32) and set(targets) == {0, 1, 2}
    tiles = inputs.reshape(9, 3, 2, 16, 2, 16).mean((1, 3, 5)).reshape(9, 4).numpy()
    value = np.array([10, 120, 250]) / 127.5 - 1
    is_target = np.abs(tiles - value[targets][:, None]) < 1e-3
    assert (is_target.sum(1) == 1).all() and (is_target.argmax(1) == cells).all()


def test_mosaic_pointing_finds_what_the_map_finds(model):
    images = np.repeat(np.array([0, 255], np.uint8), 5)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    result = explain.mosaic_pointing(model, images, np.repeat([0, 1], 5), bright_map, count=20)
    bright = result.targets == 1
    np.testing.assert_allclose(result.share[bright], 1)
    np.testing.assert_allclose(result.share[~bright], 0)
    assert result.hit[bright].all() and not result.hit[~bright].any()

    def nothing(model, inputs, *args, **options):
        return torch.zeros(len(inputs), 3, 3)  # an odd grid, and empty

    empty = explain.mosaic_pointing(model, images, np.repeat([0, 1], 5), nothing, count=8)
    assert np.isnan(empty.share).all() and "8" in str(empty)
    with pytest.raises(SwysError, match="two classes"):
        explain.make_mosaics(images, np.zeros(10, int))


def test_randomisation_lets_a_dependent_map_fall(model, images):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(1)
    dice = torch.rand(1)
    torch.manual_seed(1)
    result = explain.randomisation_check(model, images)
    assert torch.equal(torch.rand(1), dice), "the caller's random numbers must not change"
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert result.stages == ("head", "block 2", "block 1", "block 0", "embedding")
    assert result.spearman.shape == (5, 10)
    assert abs(np.nanmean(result.spearman[-1])) < 0.5
    blind = explain.randomisation_check(model, images, bright_map)
    np.testing.assert_allclose(blind.spearman, 1)
    assert len(result.rows()) == 5


def test_the_last_stage_leaves_no_trained_weight(model, images):
    kept = []

    def spy(copy, inputs, targets=None, block=-1, signed=False):
        kept.append({key: value.clone() for key, value in copy.state_dict().items()})
        return bright_map(copy, inputs)

    explain.randomisation_check(model, images[:2], spy)
    trained, head_only, *_, last = kept
    assert {key for key in trained if not torch.equal(trained[key], head_only[key])} == {
        "norm.weight", "norm.bias", "head.weight", "head.bias"}  # fmt: skip
    assert not [key for key in trained if torch.equal(trained[key], last[key])]


def test_empty_maps_are_counted_by_class_and_confidence():
    maps = np.ones((4, 2, 2))
    maps[0], maps[1] = 0, -1
    rows = explain.empty_maps(maps, np.array([[9.0, 0], [0, 9], [0, 9], [0.1, 0]]), ("normal", "ill"))
    count = {(row["predicted"], row["confidence"]): (row["images"], row["empty"]) for row in rows}
    assert count["all", "all"] == (4, 2)
    assert count["ill", "0.95 to 1"] == (2, 1) and count["normal", "0.95 to 1"] == (1, 1)
    assert count["normal", "below 0.8"] == (1, 0)
    assert sum(n for key, (n, _) in count.items() if key[0] != "all") == 4


def test_heatmaps_equal_one_big_batch(model, images):
    targets = np.arange(10) % 3
    whole = METHODS["grad_cam"](model, explain.to_model_input(images, 32), targets).numpy()
    np.testing.assert_allclose(explain.heatmaps(model, images, targets=targets, batch_size=3), whole, atol=1e-6)
    assert explain.heatmaps(model, images, "legrad", 1, batch_size=4).shape == (10, 4, 4)
    with pytest.raises(SwysError, match="did you mean 'grad_cam'"):
        explain.heatmaps(model, images, "gradcam")


def test_rank_methods_ranks_all_and_baselines_last(model, images):
    rows = explain.rank_methods(model, images, np.arange(10) % 3, mosaics=6, steps=3)
    assert {row["method"] for row in rows} >= {*METHODS, "random", "centre prior"}
    ranks = [row["rank"] for row in rows if not np.isnan(row["rank"])]
    assert ranks == sorted(ranks) and len(ranks) == len(rows) - 2
    assert {row["method"] for row in rows[-2:]} == {"random", "centre prior"}
    assert "<td>grad_cam</td>" in rows._repr_html_()
