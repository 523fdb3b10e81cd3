"""Counting against closed forms, timing against calls that sleep for a known time."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from swys_utils.benchmark import (
    BATCHES,
    Timing,
    count_macs,
    interleaved_latency,
    measure_cost,
    random_inputs,
    speedup,
    vit_macs,
)
from swys_utils.config import SwysError
from swys_utils.models import create_model


@pytest.fixture(scope="module")
def small():
    return create_model("vit_tiny", 3, img_size=32, patch_size=8, depth=2).eval()


# --- counting ---


@pytest.mark.parametrize("dim, gmacs", [(192, 1.2535), (768, 17.563)])
def test_the_closed_form_has_the_known_values(dim, gmacs):
    assert vit_macs(196, dim, 12, 16, classes=2) / 1e9 == pytest.approx(gmacs, abs=1e-3)


@pytest.mark.parametrize("size, patch", [(32, 8), (28, 4), (28, 2)])
def test_counted_macs_are_the_closed_form(size, patch):
    model = create_model("vit_tiny", 5, img_size=size, patch_size=patch, depth=3)
    assert count_macs(model) == vit_macs((size // patch) ** 2, 192, 3, patch, classes=5)


def test_counting_leaves_the_model_as_found(small):
    small.blocks[0].attn.fused_attn, small.blocks[1].attn.fused_attn = True, False
    small.train()
    count_macs(small)
    assert small.training and [b.attn.fused_attn for b in small.blocks] == [True, False]
    small.eval()


# --- timing ---


def test_a_timing_is_its_median_with_quartiles():
    timing = Timing(np.array([4.0, 1.0, 2.0, 3.0, 100.0]))
    assert timing.median == 3.0 and str(timing) == "3 ms [2, 4]"


def test_the_models_take_turns_in_both_orders():
    log = []
    calls = {name: (lambda name=name: log.append(name)) for name in ("a", "b")}
    timings = interleaved_latency(calls, rounds=8, repeats=3)
    turns = [log[i : i + 5] for i in range(0, len(log), 5)]  # two calls to warm up and three that count
    assert len(turns) == 16 and all(len(set(turn)) == 1 for turn in turns)
    rounds = [turns[i][0] + turns[i + 1][0] for i in range(0, 16, 2)]
    assert set(rounds) == {"ab", "ba"} and len(timings["a"].samples) == 8


def test_times_are_milliseconds_and_threads_are_put_back():
    before, seen = torch.get_num_threads(), []

    def call():
        seen.append(torch.get_num_threads())
        time.sleep(0.02)

    timing = interleaved_latency({"m": call}, rounds=3, threads=1)["m"]
    assert 20 <= timing.median < 40 and set(seen) == {1} and torch.get_num_threads() == before


def test_a_speedup_pairs_the_rounds_and_refuses_other_numbers_of_them():
    noise = np.random.default_rng(0).uniform(1, 5, 40)
    assert speedup(Timing(4 * noise), Timing(noise)) == pytest.approx((4, 4, 4))  # shared noise cancels
    ratio, low, high = speedup(Timing(4 * noise), Timing(noise[::-1]))
    assert low < ratio < high
    with pytest.raises(SwysError, match="40 rounds against 5; time both in one interleaved_latency call"):
        speedup(Timing(noise), Timing(noise[:5]))


# --- one model ---


def test_the_cost_of_a_model(small):
    small.train()
    cost = measure_cost(small, seconds=0.02, threads=1)
    assert small.training  # as found
    small.eval()
    assert cost.parameters == sum(p.numel() for p in small.parameters()) and cost.bytes == 4 * cost.parameters
    assert cost.macs == vit_macs(16, 192, 2, 8, classes=3)
    assert cost.batch in BATCHES and cost.throughput >= 0.99 * 1000 / cost.latency.median > 0
    assert cost.threads == 1 and " ms [" in str(cost)


def test_half_the_bytes_in_bfloat16(small):
    half = create_model("vit_tiny", 3, img_size=32, patch_size=8, depth=2).eval().bfloat16()
    assert random_inputs(half, 2).dtype == torch.bfloat16 and random_inputs(half, 2).shape == (2, 3, 32, 32)
    assert measure_cost(half, seconds=0.01).bytes == measure_cost(small, seconds=0.01).bytes / 2
