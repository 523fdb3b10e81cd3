"""Counting against closed forms, timing against calls that sleep for a known time."""

import time
from functools import partial

import numpy as np
import pytest
import torch
from small import vit

from swys_utils import benchmark
from swys_utils.benchmark import Timing, count_macs, interleaved_latency, speedup, vit_macs
from swys_utils.vit_internals import plain_attention


@pytest.mark.parametrize("size, patch", [(32, 8), (28, 4), (28, 2)])
def test_counted_macs_are_the_closed_form_with_its_known_values_and_the_model_stays_as_it_was(
    size, patch
):
    gmacs = [vit_macs(196, dim, 12, 16, classes=2) / 1e9 for dim in (192, 768)]
    assert gmacs == pytest.approx([1.2535, 17.563], abs=1e-3)
    model = vit(5, img_size=size, patch_size=patch, depth=3).train()
    model.blocks[1].attn.fused_attn = False
    with plain_attention(model):
        assert not any(block.attn.fused_attn for block in model.blocks)
    assert count_macs(model) == vit_macs((size // patch) ** 2, 48, 3, patch, classes=5)
    assert model.training and [b.attn.fused_attn for b in model.blocks] == [True, False, True]


def test_models_take_turns_in_both_orders_and_times_are_milliseconds_with_torchs_threads_as_they_are():
    log, threads = [], set()

    def call(name):
        log.append(name)
        threads.add(torch.get_num_threads())
        time.sleep(0.02)

    timing = interleaved_latency({name: partial(call, name) for name in "ab"}, rounds=6, repeats=3)[
        "a"
    ]
    assert (
        20 <= timing.median < 40
        and len(timing.samples) == 6
        and threads == {torch.get_num_threads()}
    )
    turns = [
        "".join(log[i : i + 5]) for i in range(0, len(log), 5)
    ]  # two to warm up and three that count
    rounds = [a + b for a, b in zip(turns[::2], turns[1::2])]
    assert len(rounds) == 6 and set(rounds) == {"aaaaabbbbb", "bbbbbaaaaa"}
    assert str(Timing(np.array([4.0, 1.0, 2.0, 3.0, 100.0]))) == "3 ms [2, 4]"


def test_a_speedup_pairs_the_rounds():
    noise = np.random.default_rng(0).uniform(1, 5, 40)
    assert speedup(Timing(4 * noise), Timing(noise)) == pytest.approx(
        (4, 4, 4)
    )  # shared noise cancels
    ratio, low, high = speedup(Timing(4 * noise), Timing(noise[::-1]))
    assert low < ratio < high


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_are_in_the_models_dtype_and_range(dtype):
    inputs = benchmark.random_inputs(vit(3).to(dtype), 2)
    assert inputs.dtype == dtype and inputs.shape == (2, 3, 28, 28) and inputs.abs().max() <= 1
