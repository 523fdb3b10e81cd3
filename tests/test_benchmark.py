"""Counting against closed forms, timing against calls that sleep for a known time."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from small import vit
from torch.utils.flop_counter import FlopCounterMode

from swys_utils import benchmark
from swys_utils.benchmark import (
    Timing,
    interleaved_latency,
    random_inputs,
    speedup,
    vit_macs,
)
from swys_utils.vit_internals import plain_attention

ROUNDS = 6
REPEATS = 3
WARM_UP = 3

# multiply-accumulates


@pytest.mark.parametrize(("dim", "gigamacs"), [(192, 1.2535), (768, 17.563)])
def test_the_formula_gives_the_known_values(dim, gigamacs):
    macs = vit_macs(tokens=196, dim=dim, depth=12, patch_size=16, classes=2)
    assert macs / 1e9 == pytest.approx(gigamacs, abs=1e-3)


@pytest.mark.parametrize("patch", [7, 4, 2])
def test_the_formula_is_what_torch_counts(patch):
    model = vit(5, patch_size=patch, depth=3)
    counter = FlopCounterMode(display=False)
    # torch does not see the operations of fused attention
    with torch.no_grad(), plain_attention(model), counter:
        model(random_inputs(model, 1))
    tokens = (28 // patch) ** 2
    macs = vit_macs(tokens, dim=48, depth=3, patch_size=patch, classes=5)
    assert macs == counter.get_total_flops() / 2


# milliseconds


@pytest.fixture(scope="module")
def log():
    """Names of two calls, in the order in which they were made while they were timed."""
    names = []
    calls = {name: partial(names.append, name) for name in "ab"}
    interleaved_latency(calls, ROUNDS, REPEATS)
    return names


@pytest.fixture(scope="module")
def turns(log):
    """The calls of ``log``, turn by turn."""
    return np.array(log).reshape(-1, WARM_UP + REPEATS)


def test_each_sample_takes_three_calls_to_warm_up(log):
    calls = ROUNDS * (WARM_UP + REPEATS)
    assert Counter(log) == {"a": calls, "b": calls}


def test_one_model_has_a_turn_at_a_time(turns):
    assert (turns == turns[:, :1]).all()


def test_every_model_has_a_turn_in_each_round(turns):
    rounds = turns[:, 0].reshape(ROUNDS, 2)
    assert all(set(names) == {"a", "b"} for names in rounds)


def test_turns_are_in_random_order(turns):
    first_of_each_round = turns[::2, 0]
    assert set(first_of_each_round) == {"a", "b"}


@pytest.fixture
def spend(monkeypatch):
    """``spend(seconds)``: a call that takes so long, by a clock of its own."""
    now = [0.0]
    monkeypatch.setattr(benchmark, "timer", lambda: now[0])

    def call(seconds):
        now[0] += seconds

    return call


def test_warming_up_does_not_count(spend):
    seconds = iter([0.2] * WARM_UP + [0.001] * REPEATS)
    timings = interleaved_latency({"a": lambda: spend(next(seconds))}, 1, REPEATS)
    assert timings["a"].median == pytest.approx(1)


def test_times_are_milliseconds(spend):
    timings = interleaved_latency({"a": partial(spend, 0.02)}, ROUNDS, REPEATS)
    assert timings["a"].median == pytest.approx(20)


def test_there_is_a_sample_for_each_round():
    timings = interleaved_latency({"a": int}, ROUNDS, REPEATS)
    assert len(timings["a"].samples) == ROUNDS


def test_a_model_is_called_until_the_warm_up_has_passed():
    calls = []
    timings = interleaved_latency({"a": lambda: calls.append(1)}, 1, REPEATS, warm_up=0.05)
    assert len(calls) > WARM_UP + REPEATS
    assert timings["a"].median < 5


def test_torch_keeps_its_threads(monkeypatch):
    changes = []
    monkeypatch.setattr(torch, "set_num_threads", changes.append)
    interleaved_latency({"a": int}, 1, REPEATS)
    assert changes == []


def test_a_timing_prints_its_median_with_quartiles():
    samples = np.array([4.0, 1.0, 2.0, 3.0, 100.0])
    assert str(Timing(samples)) == "3 ms [2, 4]"


# speed-ups


@pytest.fixture
def noise():
    return np.random.default_rng(0).uniform(1, 5, 40)


def test_noise_of_a_round_that_hits_both_cancels(noise):
    slow = Timing(4 * noise)
    fast = Timing(noise)
    assert speedup(slow, fast) == pytest.approx((4, 4, 4))


def test_a_speedup_is_the_quotient_of_the_medians():
    slow = Timing(np.array([2.0, 4.0, 6.0]))
    fast = Timing(np.array([4.0, 1.0, 2.0]))
    assert speedup(slow, fast)[0] == 2  # the median of the quotients is 3


def test_an_interval_holds_the_speedup(noise):
    slow = Timing(4 * noise)
    fast = Timing(noise[::-1])
    ratio, low, high = speedup(slow, fast)
    assert low < ratio < high


# inputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_are_in_the_dtype_of_the_model(dtype):
    model = vit().to(dtype)
    assert random_inputs(model, 2).dtype == dtype


def test_inputs_have_the_size_of_the_model():
    model = vit(img_size=(28, 42))
    assert random_inputs(model, 2).shape == (2, 3, 28, 42)


def test_inputs_are_in_the_range_of_images():
    inputs = random_inputs(vit(), 2)
    assert inputs.abs().max() <= 1
