"""Counting against closed forms, timing against calls that sleep for a known time."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from swys_utils import benchmark
from swys_utils.benchmark import Timing, count_macs, interleaved_latency, speedup, vit_macs
from swys_utils.models import create_model


@pytest.mark.parametrize("dim, gmacs", [(192, 1.2535), (768, 17.563)])
def test_the_closed_form_has_the_known_values(dim, gmacs):
    assert vit_macs(196, dim, 12, 16, classes=2) / 1e9 == pytest.approx(gmacs, abs=1e-3)


@pytest.mark.parametrize("size, patch", [(32, 8), (28, 4), (28, 2)])
def test_counted_macs_are_the_closed_form_and_the_model_stays_as_it_was(size, patch):
    model = create_model("vit_tiny", 5, img_size=size, patch_size=patch, depth=3).train()
    model.blocks[1].attn.fused_attn = False
    assert count_macs(model) == vit_macs((size // patch) ** 2, 192, 3, patch, classes=5)
    assert model.training and [b.attn.fused_attn for b in model.blocks] == [True, False, True]


def test_the_models_take_turns_in_both_orders():
    log = []
    calls = {name: (lambda name=name: log.append(name)) for name in ("a", "b")}
    timings = interleaved_latency(calls, rounds=8, repeats=3)
    turns = [log[i : i + 5] for i in range(0, len(log), 5)]  # two calls to warm up and three that count
    assert len(turns) == 16 and all(len(set(turn)) == 1 for turn in turns)
    rounds = [turns[i][0] + turns[i + 1][0] for i in range(0, 16, 2)]
    assert set(rounds) == {"ab", "ba"} and len(timings["a"].samples) == 8


def test_times_are_milliseconds_with_torchs_threads_as_they_are():
    seen = []

    def call():
        seen.append(torch.get_num_threads())
        time.sleep(0.02)

    timing = interleaved_latency({"m": call}, rounds=3)["m"]
    assert 20 <= timing.median < 40 and set(seen) == {torch.get_num_threads()}
    assert str(Timing(np.array([4.0, 1.0, 2.0, 3.0, 100.0]))) == "3 ms [2, 4]"


def test_a_speedup_pairs_the_rounds():
    noise = np.random.default_rng(0).uniform(1, 5, 40)
    assert speedup(Timing(4 * noise), Timing(noise)) == pytest.approx((4, 4, 4))  # shared noise cancels
    ratio, low, high = speedup(Timing(4 * noise), Timing(noise[::-1]))
    assert low < ratio < high


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cost_of_a_model(dtype):
    model = create_model("vit_tiny", 3, img_size=32, patch_size=8, depth=2).to(dtype).train()
    inputs, cost = benchmark.random_inputs(model, 2), benchmark.measure_cost(model, rounds=2, batch=4)
    assert inputs.dtype == dtype and inputs.shape == (2, 3, 32, 32) and model.training
    count = sum(p.numel() for p in model.parameters())
    latency, rate = cost.latency, cost.throughput
    assert cost == benchmark.Cost(
        count, vit_macs(16, 192, 2, 8, classes=3), dtype.itemsize * count, latency, rate, 4
    )
    assert benchmark.measure_cost(model, rounds=1, batch=1).batch == 1
    assert rate > 0 and latency.median > 0 and " ms [" in str(cost)
