import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from swys_utils.config import PROFILES, SwysError, profile, seed_everything
from swys_utils.stats import bootstrap_interval, mcnemar, wilson_interval


def test_profile_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("SWYS_PROFILE", "quick")
    assert profile() is PROFILES["quick"] and profile("smoke") is PROFILES["smoke"]
    monkeypatch.setenv("SWYS_PROFILE", "quik")
    with pytest.raises(SwysError, match="unknown profile 'quik'; did you mean 'quick'"):
        profile()


def test_seeds_repeat_all_three_generators():
    draws = []
    for _ in range(2):
        seed_everything(3)
        draws.append((np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_wilson_interval_closed_form():
    correct, z = np.repeat([1, 0], [90, 10]), scipy_stats.norm.ppf(0.975)
    centre, n = (0.9 + z**2 / 200) / (1 + z**2 / 100), 100
    half = z / (1 + z**2 / n) * np.sqrt(0.9 * 0.1 / n + z**2 / (4 * n**2))
    np.testing.assert_allclose(wilson_interval(correct), (centre - half, centre + half), rtol=1e-9)


def test_bootstrap_interval_covers_like_the_normal_one():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_interval(np.mean, values)
    np.testing.assert_allclose((low, high), values.mean() + np.array([-1.96, 1.96]) * 2 / 20, atol=0.05)
    assert (low, high) == bootstrap_interval(np.mean, values)


def test_bootstrap_is_paired():
    a = np.random.default_rng(0).normal(size=200)
    low, high = bootstrap_interval(lambda x, y: x.mean() - y.mean(), a + 1, a)
    assert low == pytest.approx(1) and high == pytest.approx(1)


def test_bootstrap_of_nothing_defined_is_nan():
    assert np.isnan(bootstrap_interval(lambda x: np.nan, np.arange(5))).all()


def test_mcnemar_is_the_binomial_test_of_the_differing_images():
    a = np.array([True] * 8 + [False] * 2 + [True] * 50)
    b = np.array([False] * 8 + [True] * 2 + [True] * 50)
    assert mcnemar(a, b) == pytest.approx(2 * sum(scipy_stats.binom.pmf(k, 10, 0.5) for k in (8, 9, 10)))
    assert mcnemar(a, a) == 1.0
