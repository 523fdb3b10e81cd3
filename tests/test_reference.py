"""The reference runs: resumable, honest about what is compared, and right in their numbers. Drawn data only."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from swys_utils import reference
from swys_utils.config import SwysError
from swys_utils.data import Dataset, Info, Split
from swys_utils.models import load_checkpoint, weights_digest
from swys_utils.training import Recipe, augment, blur, build, fit, predict

SMALL = {"img_size": 28, "patch_size": 7, "depth": 2, "embed_dim": 48, "num_heads": 3}
RECIPE = Recipe(epochs=2, batch_size=16, warmup_epochs=1, average_epochs=1)


def drawn_data(n: int = 48) -> Dataset:
    """Bright or dark noise: two classes that a few steps can tell apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    images = (rng.integers(0, 120, (n, 28, 28)) + 120 * labels[:, None, None]).astype(np.uint8)
    info = Info("pneumoniamnist", 28, "binary-class", ("normal", "pneumonia"), 2, 1, "drawn", "none", "noise")
    splits = [Split(images[i::3], labels[i::3]) for i in range(3)]
    return Dataset(Split(images, labels), splits[1], splits[2], info)


def small_runs() -> list[reference.RunSpec]:
    wanted = ("kd_soft/seed0", "kd_features/seed0", "kd_explain/seed0", "frozen/seed0", "scratch/seed0")
    runs = [run for run in reference.reference_runs() if run.id.endswith(wanted)]
    return [replace(run, model="vit_tiny", recipe=RECIPE) for run in runs]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    entries = reference.reproduce(
        out=out, data=drawn_data(), runs=small_runs(), device="cpu", model_kwargs=SMALL, progress=False
    )
    return out, entries


def test_order_teacher_first_then_seed_0_of_every_method():
    ids = [run.id for run in reference.reference_runs()]
    assert ids[0] == "vit_base/scratch/seed0" and len(ids) == len(set(ids)) == 26
    assert all("seed0" in run_id for run_id in ids[:5])
    assert all(run.teacher in (None, ids[0]) for run in reference.reference_runs())


def test_same_seed_same_initial_weights_whatever_the_method(finished):
    _, entries = finished
    assert len(entries) == 6
    assert len({entry["initial_weights"] for entry in entries}) == 1
    expected = weights_digest(build("vit_tiny", drawn_data(), RECIPE, 0, **SMALL))
    assert entries[0]["initial_weights"] == expected


def test_results_say_what_is_stored(finished):
    out, entries = finished
    on_disk = json.loads((out / "runs.json").read_text())["runs"]
    assert [e["id"] for e in on_disk] == [e["id"] for e in entries]
    data = drawn_data()
    for entry in entries:
        assert {"id", "model", "method", "seed", "recipe", "val_accuracy", "last", "val_chosen"} <= set(entry)
        with np.load(out / f"{entry['id']}.npz", allow_pickle=False) as arrays:
            p, labels = arrays["test_last"], arrays["test_labels"]
            assert p.dtype == np.float16 and arrays["shifted_last"].shape == (7 * len(data.val), 2)
        assert (p.argmax(axis=1) == labels).mean() == pytest.approx(entry["last"]["accuracy"])
        model, card = load_checkpoint(out / f"{entry['id']}.safetensors")
        logits = predict(model, data.test.images, progress=False)
        assert (logits.argmax(axis=1) == data.test.labels).mean() == pytest.approx(card["stored"]["accuracy"])


def test_methods_differ_and_the_frozen_projector_costs_something_to_train(finished):
    out, entries = finished
    digests = {weights_digest(load_checkpoint(out / f"{e['id']}.safetensors")[0]) for e in entries}
    assert len(digests) >= len(entries) - 1  # "Base" alone and Tiny alone are the same run here


def test_done_runs_are_skipped_and_lost_ones_repeated_exactly(finished, capsys):
    out, entries = finished
    kwargs = {"data": drawn_data(), "runs": small_runs(), "device": "cpu", "model_kwargs": SMALL, "progress": False}
    reference.reproduce(out=out, **kwargs)
    assert capsys.readouterr().out == ""
    lost = "vit_tiny/kd_explain/seed0"
    before = np.load(out / f"{lost}.npz")["test_last"]
    (out / f"{lost}.run.json").unlink()
    again = reference.reproduce(out=out, only="kd_explain", **kwargs)
    assert lost in {e["id"] for e in again}
    np.testing.assert_allclose(np.load(out / f"{lost}.npz")["test_last"], before, atol=2e-3)


def test_budget_slices_give_the_same_as_one_go(tmp_path, finished):
    out, _ = finished
    kwargs = {"data": drawn_data(), "runs": small_runs()[:1], "device": "cpu", "model_kwargs": SMALL, "progress": False}
    assert reference.reproduce(out=tmp_path, budget_s=1e-3, **kwargs) == []  # stops after the first epoch
    assert list((tmp_path / "unfinished").glob("*.state.safetensors"))
    (entry,) = reference.reproduce(out=tmp_path, **kwargs)
    assert entry["epochs_run"] == RECIPE.epochs
    one_go, slices = (np.load(folder / f"{entry['id']}.npz")["test_last"] for folder in (out, tmp_path))
    np.testing.assert_allclose(slices, one_go, atol=2e-3)
    assert not list((tmp_path / "unfinished").iterdir())


def test_refusals_name_the_way_out(tmp_path, finished):
    out, _ = finished
    kwargs = {"data": drawn_data(), "runs": small_runs(), "device": "cpu", "model_kwargs": SMALL, "progress": False}
    with pytest.raises(SwysError, match="no run matches 'kd_soft9'"):
        reference.reproduce(out=out, only="kd_soft9", **kwargs)
    other = [replace(run, recipe=replace(RECIPE, lr=1.0)) for run in small_runs()]
    with pytest.raises(SwysError, match="another recipe .*lr 0.0005 -> 1.0"):
        reference.reproduce(out=out, **{**kwargs, "runs": other})
    with pytest.raises(SwysError, match="no finished run"):
        reference.report(tmp_path)
    (tmp_path / "runs.json").write_text("{")
    with pytest.raises(SwysError, match="cannot be read"):
        reference.read_runs(tmp_path / "runs.json")


def write_run(out, method: str, seed: int, correct: np.ndarray) -> None:
    labels = np.zeros(len(correct), np.uint8)
    scores = np.stack([correct, 1 - correct], axis=1).astype(np.float16)
    folder = out / "vit_tiny" / method
    folder.mkdir(parents=True, exist_ok=True)
    values = {"accuracy": float(correct.mean()), "auc": 0.5, "ece": 0.1}
    entry = {"id": f"vit_tiny/{method}/seed{seed}", "model": "vit_tiny_patch16_224", "method": method, "seed": seed}
    entry |= {"val_accuracy": 0.5, "last": values, "val_chosen": values, "device": "drawn"}
    (folder / f"seed{seed}.run.json").write_text(json.dumps(entry))
    np.savez(folder / f"seed{seed}.npz", test_last=scores, test_val_chosen=scores, test_labels=labels)


def test_report_against_closed_forms(tmp_path):
    # 400 images: alone 80 %; taught 90 %: right wherever alone is right, and on 40 images more.
    alone, taught = np.arange(400) < 320, np.arange(400) < 360
    for seed in range(3):
        write_run(tmp_path, "scratch", seed, alone)
        write_run(tmp_path, "kd_soft", seed, taught)
    text = reference.report(tmp_path)
    row = next(line for line in text.splitlines() if "kd_soft" not in line and "soft targets - vit_tiny alone" in line)
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[2:4] == ["3", "+10.0"]
    low, high = (float(x) for x in cells[4].split(" to "))
    half = 196 * np.sqrt(0.1 * 0.9 / 400)  # of a mean of 400 differences, 40 of them 1
    assert low == pytest.approx(10 - half, abs=0.4) and high == pytest.approx(10 + half, abs=0.4)
    assert float(cells[5].removeprefix("p = ")) == pytest.approx(2 * 0.5**40, rel=0.01)
    assert "| vit_tiny | alone | 3 | 80.0 ± 0.0 |" in text


def test_interval_widens_with_the_spread_between_seeds():
    rng = np.random.default_rng(0)
    same = np.repeat((rng.random((1, 500)) < 0.8), 4, axis=0)
    varied = rng.random((4, 500)) < np.array([0.6, 0.75, 0.85, 1.0])[:, None]
    widths = [high - low for low, high in map(reference.accuracy_interval, (same, varied))]
    assert widths[0] == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 500), rel=0.15)
    assert widths[1] > 2 * widths[0]


def test_shifted_validation_is_what_it_says():
    data = drawn_data()
    shifted = reference.shifted_validation(data.val)
    n = len(data.val)
    assert shifted.images.shape == (7 * n, 28, 28) and shifted.images.dtype == np.uint8
    np.testing.assert_array_equal(shifted.labels[:n], data.val.labels)
    np.testing.assert_allclose(shifted.images[:n], data.val.images * 0.6, atol=0.51)
    assert shifted.images[-n:].astype(float).std() < data.val.images.astype(float).std()  # blurred


def test_blur_keeps_the_mean_and_gamma_keeps_black_and_white():
    torch.testing.assert_close(blur(torch.ones(2, 1, 9, 9)), torch.ones(2, 1, 9, 9))
    planes = torch.tensor([-1.0, 1.0]).repeat(32)[None, None].reshape(1, 1, 8, 8).repeat_interleave(8, 3)
    still = {"flip": False, "rotate": 0, "scale": 0, "shift": 0, "jitter": 0}
    out = augment(planes, 64, Recipe(**still, gamma=0.5), torch.Generator().manual_seed(0))
    assert out.min() >= -1 and out.max() <= 1 and (out.max() - 1).abs() < 1e-3


def test_throughput_measures_both_pipelines(capsys):
    (row,) = reference.training_throughput(
        ["vit_tiny"], data=drawn_data(), device="cpu", batch_size=16, seconds=0.01, model_kwargs=SMALL
    )
    assert row["ratio"] == pytest.approx(row["ours"] / row["original"]) and row["ours"] > 0 < row["share"]
    assert "of peak" in capsys.readouterr().out


def test_mixup_with_a_tensor_equals_mixup_with_a_number():
    # A recorded step reads the mixing share from the device.
    from swys_utils import training

    data = drawn_data()
    images, labels = torch.as_tensor(data.train.images), torch.as_tensor(data.train.labels)
    rows = torch.arange(8)
    views = [
        training._batch(images, labels, rows, data, RECIPE, 28, lam, torch.Generator().manual_seed(1), "cpu")
        for lam in (0.3, torch.tensor(0.3))
    ]
    for a, b in zip(*views):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_steps_train_like_launched_ones():
    data = drawn_data()
    histories = []
    for graph in (False, True):
        recipe = replace(RECIPE, epochs=6, drop_path=0.0)
        model = build("vit_tiny", data, recipe, 0, **SMALL)
        histories.append(fit(model, data, recipe, device="cuda", cuda_graph=graph, progress=False).step_losses)
    np.testing.assert_allclose(*histories, rtol=0.05)
