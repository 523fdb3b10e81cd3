"""Counting against closed forms, timing against a clock that the test turns, memory against a known size."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from swys_utils import benchmark, config
from swys_utils.benchmark import Timing, best_throughput, count_macs, interleaved_latency, measure_cost, vit_macs
from swys_utils.config import SwysError
from swys_utils.models import create_model


@pytest.fixture(scope="module")
def small():
    return create_model("vit_tiny", 3, img_size=32, patch_size=8, depth=2).eval()


class Clock:
    """Stands in for time.perf_counter: it moves only when a fake model says how long it took."""

    def __init__(self, monkeypatch):
        self.now, self.log = 0.0, []
        monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def model(self, name, ms):
        durations = iter(ms) if hasattr(ms, "__iter__") else None

        def call():
            self.now += (next(durations) if durations else ms) / 1000
            self.log.append(name)

        return call


# --- counting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, gmacs", [("vit_tiny", 1.2535), ("vit_base", 17.563)])
def test_closed_form_has_the_known_values(name, gmacs):
    dim = {"vit_tiny": 192, "vit_base": 768}[name]
    assert vit_macs(196, dim, 12, 16, classes=2) / 1e9 == pytest.approx(gmacs, abs=1e-3)


@pytest.mark.parametrize("size, patch", [(32, 8), (28, 4), (28, 2)])
def test_counted_macs_are_the_closed_form(size, patch):
    model = create_model("vit_tiny", 5, img_size=size, patch_size=patch, depth=3)
    assert count_macs(model) == vit_macs((size // patch) ** 2, 192, 3, patch, classes=5)


def test_attention_is_counted_and_the_model_is_left_as_found(small):
    without = count_macs(small) - 2 * 2 * 17**2 * 192  # two blocks, 2 N^2 d each
    assert without == vit_macs(16, 192, 2, 8, classes=3) - 2 * 2 * 17**2 * 192 > 0
    small.blocks[0].attn.fused_attn, small.blocks[1].attn.fused_attn = True, False
    small.train()
    count_macs(small)
    assert small.training and [b.attn.fused_attn for b in small.blocks] == [True, False]
    small.eval()


def test_macs_at_a_size_the_model_does_not_take(small):
    with pytest.raises(SwysError, match="img_size is 64; this model takes 32"):
        count_macs(small, 64)


# --- timing -----------------------------------------------------------------------------------------------------


def test_timing_summary_in_milliseconds():
    timing = Timing(np.array([4.0, 1.0, 2.0, 3.0, 100.0]), first=500.0)
    assert (timing.median, timing.low, timing.high) == (3.0, 2.0, 4.0)
    assert "3 ms [2, 4] (n = 5, first 500)" in str(timing)


def test_first_call_and_warm_up_are_not_among_the_samples(monkeypatch):
    clock = Clock(monkeypatch)
    timing = benchmark.time_calls(clock.model("m", [1000] + [50] * 5 + [10] * 200), seconds=1.0)
    assert timing.first == pytest.approx(1000)
    assert set(np.round(timing.samples, 6)) == {10.0}  # the slow first calls fell into the warm-up (0.25 s)
    assert timing.samples.sum() >= 990


def test_a_slow_model_still_gets_its_five_calls(monkeypatch):
    assert len(benchmark.time_calls(Clock(monkeypatch).model("m", 3000), seconds=0.1).samples) == 5


def test_interleaved_rounds_share_what_the_machine_does(monkeypatch):
    clock = Clock(monkeypatch)
    slow, fast = clock.model("slow", 30), clock.model("fast", 10)
    timings = interleaved_latency({"slow": slow, "fast": fast}, rounds=8, repeats=3)
    turns = [clock.log[2:][i : i + 4] for i in range(0, 8 * 8, 4)]
    assert all(len(set(turn)) == 1 for turn in turns)  # a warming call and three that count
    assert all({turns[i][0], turns[i + 1][0]} == {"slow", "fast"} for i in range(0, 16, 2))
    assert len({tuple(turns[i] + turns[i + 1]) for i in range(0, 16, 2)}) == 2  # both orders occur
    assert benchmark.speedup(timings["slow"], timings["fast"]) == pytest.approx((3, 3, 3))


def test_speedup_is_paired_and_refuses_other_rounds():
    noise = np.random.default_rng(0).uniform(1, 5, 40)
    ratio, low, high = benchmark.speedup(Timing(4 * noise, 0), Timing(noise, 0))
    assert (ratio, low, high) == pytest.approx((4, 4, 4))  # noise that both share cancels
    with pytest.raises(SwysError, match="one interleaved_latency call"):
        benchmark.speedup(Timing(noise, 0), Timing(noise[:5], 0))


def test_throughput_doubles_until_it_no_longer_pays(monkeypatch):
    clock = Clock(monkeypatch)
    cost = {1: 10, 2: 11, 4: 14, 8: 27.5, 16: 55}  # per image: 10, 5.5, 3.5, 3.44 (< 5 % better)
    rate, batch = best_throughput(lambda b: clock.model(b, cost[b]), seconds=1.0)
    assert batch == 8 and rate == pytest.approx(1000 * 8 / 27.5)
    assert 16 not in clock.log
    assert best_throughput(lambda b: clock.model(b, cost[b]), seconds=1.0, batch=4) == (pytest.approx(4000 / 14), 4)


def test_throughput_stops_where_memory_ends(monkeypatch):
    clock = Clock(monkeypatch)

    def make_call(batch):
        if batch > 2:
            raise torch.cuda.OutOfMemoryError
        return clock.model(batch, 10)

    assert best_throughput(make_call, seconds=1.0)[1] == 2


def test_threads_are_set_stated_and_put_back(small):
    before = torch.get_num_threads()
    assert measure_cost(small, seconds=0.01, threads=1).threads == 1
    assert torch.get_num_threads() == before
    with pytest.raises(SwysError, match="threads is 0"):
        measure_cost(small, seconds=0.01, threads=0)


# --- one model --------------------------------------------------------------------------------------------------


def test_cost_of_a_model(small):
    small.train()
    cost = measure_cost(small, batch_sizes=(1, 2), seconds=0.02)
    assert small.training  # as found
    small.eval()
    assert cost.parameters == sum(p.numel() for p in small.parameters())
    assert cost.macs == vit_macs(16, 192, 2, 8, classes=3) and cost.weight_bytes == 4 * cost.parameters
    assert 0 < cost.latency_low <= cost.latency_ms <= cost.latency_high and cost.batch == 2 and cost.throughput > 0
    assert "CPU" in cost.device and cost.dtype == "float32"
    assert " ms [" in str(cost) and set(cost.row()) == {
        "parameters", "MACs", "weights (fp32)", "latency, batch 1", "throughput",
    }  # fmt: skip


def test_a_device_that_is_not_there(small):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SwysError, match="device 'cuda' cannot be used .*; use 'cpu'"):
        measure_cost(small, device="cuda", seconds=0.01)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory needs /proc")
def test_peak_memory_holds_at_least_the_weights():
    wide = create_model("vit_tiny", 2, img_size=32, patch_size=8, depth=1, embed_dim=1536)
    weights = 4 * sum(p.numel() for p in wide.parameters())  # 113 MB
    memory = benchmark.peak_memory(wide)
    assert weights < memory.growth < 2 * weights and memory.runtime > 50e6
    assert "process" in memory.method


def test_bf16_is_fast_only_where_the_cpu_says_so(monkeypatch):
    for flags, fast in (("avx2 avx512f", False), ("avx512f avx512_bf16", True), ("amx_bf16", True)):
        monkeypatch.setattr(config, "cpu_facts", lambda flags=flags: [("flags", flags)])
        assert config.fast_bf16("cpu") is fast


def test_roofs():
    roofs = benchmark.measure_roofs(seconds=0.05)
    assert roofs.gflops > 0 and roofs.gbytes > 0 and roofs.ridge == roofs.gflops / roofs.gbytes
    assert np.isnan(roofs.gflops_bf16) != config.fast_bf16("cpu")
