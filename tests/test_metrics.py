import random

import numpy as np
import pytest
import torch
from medmnist import Evaluator
from scipy import stats

from swys.fingerprints import pack_hashes, perceptual_hashes, seen_in_training
from swys_studies import report
from swys_utils import config, metrics
from swys_utils.config import PROFILES, SwysError, profile
from swys_utils.data import load_dataset


def test_profiles_come_from_the_environment_seeds_repeat_and_json_and_tables_are_whole(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("SWYS_PROFILE", "full")
    assert profile() is PROFILES["full"] and profile("smoke") is PROFILES["smoke"]
    monkeypatch.delenv("SWYS_PROFILE")
    assert profile() is PROFILES["quick"] and isinstance(profile(), config.Profile)
    with pytest.raises(SwysError, match="unknown profile 'quik'; did you mean 'quick'"):
        profile("quik")
    draws = []
    for _ in range(2):
        config.seed_everything(3)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert draws[0] == draws[1]
    assert config.default_device().type in ("cuda", "mps", "cpu") and config.device_name()
    assert config.fast_bf16("cpu") in (True, False)
    path = tmp_path / "new" / "a.json"
    config.write_json(path, {"x": np.float32(1)})
    with pytest.raises(SwysError, match="choose another path"), config.replacing(path) as part:
        assert part.write_text("half") and part.rmdir()  # it is no folder: an OSError
    assert path.read_text() == '{\n "x": 1.0\n}\n' and list(path.parent.iterdir()) == [path]
    rows = [{"name": "a", "x": 0.12345}, {"name": "bcd", "x": 2.0}]
    assert report.as_table(rows).splitlines() == ["name  x", "a     0.123", "bcd   2.000"]


@pytest.mark.parametrize("name", ["pneumoniamnist", "bloodmnist", "retinamnist", "chestmnist"])
def test_scores_are_those_of_medmnist_and_intervals_hold_them(drawn_data_dir, name):
    data = load_dataset(name, root=drawn_data_dir)
    labels, task, classes = data.test.labels, data.info.task, data.info.num_classes
    logits = np.random.default_rng(0).normal(size=(len(labels), classes))
    logits += 1.5 * (labels if data.info.multi_label else np.eye(classes)[labels])
    ours = metrics.evaluate(logits, labels, task, n_resamples=20)
    theirs = Evaluator(name, "test", root=drawn_data_dir).evaluate(
        metrics.probabilities(logits, task)
    )
    assert ours.accuracy == pytest.approx(theirs.ACC) and ours.auc == pytest.approx(theirs.AUC)
    assert isinstance(ours, metrics.Metrics) and ours.n == len(labels) == len(ours.correct)
    assert ours.accuracy_interval[0] < ours.accuracy < ours.accuracy_interval[1]
    assert ours.auc_interval[0] <= ours.auc <= ours.auc_interval[1]
    point = {key: getattr(ours, key) for key in ("accuracy", "auc", "ece")}
    assert metrics.point_scores(logits, labels, task) == point
    one, answer = metrics.evaluate(logits[:1], labels[:1], task, n_resamples=2), ours.correct[:1]
    assert one.accuracy == answer.mean() and (one.correct == answer).all()


def test_calibration_intervals_and_mcnemar_are_the_closed_forms_and_other_labels_are_refused():
    scores, labels = (
        np.array([[0.1, 0.9]] * 10),
        np.array([1] * 6 + [0] * 4),
    )  # 90 % sure, 60 % right
    assert metrics.calibration_error(scores, labels) == pytest.approx(0.3, abs=1e-6)
    assert metrics.is_correct(scores, labels).tolist() == [True] * 6 + [False] * 4
    assert np.isnan(metrics.area_under_roc(np.ones(10, int), scores, "binary-class"))
    with pytest.raises(SwysError, match=r"labels \(10, 1\) of predictions \(10, 2\)"):
        metrics.evaluate(scores, np.zeros((10, 1), int), "binary-class")
    correct, z, n = np.repeat([1, 0], [90, 10]), stats.norm.ppf(0.975), 100
    centre = (0.9 + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(0.9 * 0.1 / n + z**2 / (4 * n**2))
    np.testing.assert_allclose(
        metrics.wilson_interval(correct), (centre - half, centre + half), rtol=1e-9
    )
    values = [0.1, 0.4, 0.2, 0.3]
    expected = stats.t.interval(0.95, 3, loc=0.25, scale=stats.sem(values))
    np.testing.assert_allclose(metrics.t_interval(values), expected)
    a, b = np.repeat([True, False, True], [8, 2, 50]), np.repeat([False, True, True], [8, 2, 50])
    assert metrics.mcnemar(a, b) == pytest.approx(
        2 * sum(stats.binom.pmf(k, 10, 0.5) for k in (8, 9, 10))
    )
    assert metrics.mcnemar(a, a) == 1.0


def test_bootstrap_covers_like_the_normal_interval_and_is_paired():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = metrics.bootstrap_interval(np.mean, values)
    np.testing.assert_allclose(
        (low, high), values.mean() + np.array([-1.96, 1.96]) * 2 / 20, atol=0.05
    )
    assert (values.mean(), low, high) == metrics.mean_interval(np.append(values, np.nan))
    paired = metrics.bootstrap_interval(lambda x, y: x.mean() - y.mean(), values + 1, values)
    assert paired == pytest.approx((1, 1))
    assert np.isnan(metrics.bootstrap_interval(lambda x: np.nan, np.arange(5))).all()
    assert np.isnan(metrics.mean_interval([1, 2, 3])[1:]).all()  # too few to resample
