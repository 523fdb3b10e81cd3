"""Base and Tiny on more and more images: equally many are shown, and nothing is trained twice."""

from dataclasses import replace

import pytest
from small import RECIPE, SMALL, some

from swys_studies import amount, reference
from swys_studies.amount import AmountRun
from swys_studies.result_files import Entries
from swys_utils import training
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.splits import TWIN_SOURCE
from swys_utils.training import train_epoch


@pytest.fixture
def study(monkeypatch, drawn_data_dir, tmp_path):
    """Two-block models, few images shown; results go elsewhere."""
    data = some(load_dataset(root=drawn_data_dir))
    build = amount.build

    def small(name, data, recipe, seed, patch_size):
        return build("vit_tiny", data, recipe, seed, **SMALL)

    monkeypatch.setattr(amount, "build", small)
    monkeypatch.setattr(reference, "load_dataset", lambda name, download: data)
    monkeypatch.setattr(amount, "reference_recipe", lambda *names: RECIPE)
    monkeypatch.setattr(amount, "SHARES", (1 / 2, 1))
    monkeypatch.setattr(amount, "CHECKPOINTS", tmp_path)
    return tmp_path


def run(folder, **options):
    options = {"shown": 96} | options
    amount.amount("pneumoniamnist", folder=str(folder / "work"), **options)
    return Entries(folder / "pneumoniamnist" / "amount.json", "runs").read()


def test_both_models_are_scored_with_each_number_of_images(study):
    entries = run(study)
    counts = sorted({entry["images"] for entry in entries})
    assert len(counts) == 2
    assert counts[0] == counts[1] // 2
    for count in counts:
        models = [entry["model"] for entry in entries if entry["images"] == count]
        assert models == ["vit_tiny", "vit_base"]
    assert all(0 <= entry["test"]["auc"] <= 1 for entry in entries)


def test_fewer_images_are_shown_more_often(study):
    passes = {entry["images"]: entry["recipe"]["epochs"] for entry in run(study, only="tiny")}
    few, many = sorted(passes)
    assert passes[few] == 2 * passes[many]


@pytest.mark.parametrize("share", amount.SHARES)
@pytest.mark.parametrize("model", ["vit_tiny", "vit_base"])
def test_the_last_quarter_of_the_passes_shows_whole_pictures(model, share):
    run = AmountRun(model, int(share * 11_959), amount.SHOWN, seed=0)
    recipe = amount.amount_recipe(run, "bloodmnist")
    whole = [epoch for epoch in range(recipe.epochs) if epoch / recipe.epochs >= 0.75]
    assert recipe.full_tokens == 0.25
    assert len(whole) == recipe.epochs / 4


def test_what_is_done_is_not_trained_again(study, monkeypatch):
    entries = run(study, only="tiny")
    monkeypatch.setattr(amount, "fit", pytest.fail)
    assert run(study, only="tiny") == entries


def test_nothing_but_the_results_is_left(study):
    run(study, only="tiny")
    assert not list(study.rglob("*.state.pt"))


def test_a_killed_run_goes_on(study, monkeypatch):
    predict = amount.predict

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(amount, "predict", killed)  # after its last pass
    with pytest.raises(KeyboardInterrupt):
        run(study, only="tiny")
    monkeypatch.setattr(amount, "predict", predict)
    finished = []

    def counted(*arguments):
        finished.append(arguments)
        return train_epoch(*arguments)

    monkeypatch.setattr(training, "train_epoch", counted)
    _, second = run(study, only="tiny")
    assert len(finished) == second["recipe"]["epochs"]


def test_few_images_come_first_in_the_table(study):
    rows = amount.summary(reversed(run(study)))
    assert [row["images"] for row in rows] == sorted(row["images"] for row in rows)


def test_another_run_is_refused(study):
    with pytest.raises(SwysError, match="no run matches 'vit_huge'; ids look like vit_tiny/"):
        run(study, only="vit_huge")


def test_drawn_images_are_refused(monkeypatch, drawn_data_dir):
    data = load_dataset(root=drawn_data_dir)
    data = replace(data, info=replace(data.info, source=TWIN_SOURCE))
    monkeypatch.setattr(reference, "load_dataset", lambda name, download: data)
    with pytest.raises(SwysError, match="studies need real images"):
        amount.amount("pneumoniamnist")


def test_images_with_several_labels_are_refused(monkeypatch, drawn_data_dir):
    data = load_dataset(root=drawn_data_dir)
    info = replace(data.info, task="multi-label, binary-class")
    data = replace(data, info=info)
    monkeypatch.setattr(reference, "load_dataset", lambda name, download: data)
    with pytest.raises(SwysError, match="has several labels an image"):
        amount.amount("chestmnist")
