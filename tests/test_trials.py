"""Trials of recipes: trained once each, ranked by the held-out groups, the test split on demand."""

import json

import pytest
import torch
from small import RECIPE, SMALL, some

from swys_studies import trials
from swys_studies.result_files import Entries
from swys_studies.trials import Trial
from swys_utils.config import SwysError
from swys_utils.data import load_dataset

pytest.importorskip("sklearn", minversion="1.8", reason="older ones do not stratify groups")

TWO = [Trial("plain", "as good"), Trial("slow", "worse", {"lr": 1e-6})]


@pytest.fixture
def study(monkeypatch, drawn_data_dir, tmp_path):
    """Two-block models, two short trials, few images in few groups; results go elsewhere."""
    data = some(load_dataset(root=drawn_data_dir))
    build = trials.build
    folds = trials.grouped_folds
    monkeypatch.setattr(trials, "build", lambda *arguments: build(*arguments, **SMALL))
    monkeypatch.setattr(
        trials,
        "grouped_folds",
        lambda data: folds(data, groups=4, folds=2),
    )
    monkeypatch.setattr(trials, "reference_recipe", lambda *names: RECIPE)
    monkeypatch.setattr(trials, "study_data", lambda dataset: data)
    monkeypatch.setattr(trials, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(trials, "TRIALS", TWO)
    return tmp_path


def run(folder, fold=0, **options):
    options = {"seeds": 1} | options
    trials.trials(folder=str(folder / "work"), fold=fold, **options)
    return Entries(folder / "pneumoniamnist" / "trials.json", "trials").read()


def test_each_trial_is_scored_on_each_split(study):
    entries = run(study)
    assert [entry["trial"] for entry in entries] == ["plain", "slow"]
    for entry in entries:
        assert all(0 <= entry[split]["auc"] <= 1 for split in ("grouped", "random", "test"))


def test_mirrored_images_are_asked_too(study):
    for entry in run(study, only="plain"):
        assert 0 <= entry["grouped, mirrored"]["auc"] <= 1


def test_a_trial_can_go_on_from_a_masked_autoencoder(study, monkeypatch):
    weights = torch.full((48,), 7.0)

    def encoder(name, data, recipe, seed, path):
        state = trials.build(name, data, recipe, seed).state_dict()
        return state | {"norm.weight": weights}

    monkeypatch.setattr(trials, "pretrained", encoder)
    started = []
    fit = trials.fit

    def watched(model, *arguments, **options):
        started.append(model.norm.weight.detach().clone())
        return fit(model, *arguments, **options)

    monkeypatch.setattr(trials, "fit", watched)
    monkeypatch.setattr(trials, "TRIALS", [Trial("masked", "", pretraining=1)])
    run(study)
    assert torch.equal(started[0], weights)


def test_what_is_done_is_not_trained_again(study, monkeypatch):
    entries = run(study)
    monkeypatch.setattr(trials, "fit", pytest.fail)
    assert run(study) == entries


def test_nothing_but_the_results_is_left(study):
    run(study, only="plain")
    assert not list(study.rglob("*.state.pt"))


def test_the_test_split_is_not_shown_unless_asked_for(study, capsys):
    run(study, only="plain")
    assert "test AUC" not in capsys.readouterr().out


def test_the_test_split_is_shown_when_it_is_asked_for(study, capsys):
    run(study, only="plain")
    capsys.readouterr()
    run(study, only="none", test=True)
    assert "test AUC" in capsys.readouterr().out.splitlines()[0]


def test_trials_of_another_fold_are_not_compared(study, capsys):
    run(study, fold=0, only="plain")
    run(study, fold=1, only="slow")
    shown = capsys.readouterr().out.split("slow/fold1/seed0 ...")[1]
    assert "slow" in shown
    assert "plain" not in shown


def test_a_fold_that_does_not_exist_is_refused(study):
    with pytest.raises(SwysError, match="fold 2 does not exist; choose 0 to 1"):
        run(study, fold=2)


def entry(name: str, grouped: float, random: float, test: float) -> dict:
    scores = {"grouped": {"auc": grouped}, "random": {"auc": random}, "test": {"auc": test}}
    return scores | {"trial": name, "predicted": "", "train_loss": 0.1, "seconds": 60.0}


ENTRIES = [
    entry("a", grouped=0.91, random=0.99, test=0.90),
    entry("b", grouped=0.93, random=0.97, test=0.94),
    entry("c", grouped=0.92, random=0.98, test=0.92),
]


def test_the_best_on_the_held_out_groups_comes_first():
    assert [row["trial"] for row in trials.summary(ENTRIES)] == ["b", "c", "a"]


def test_runs_of_a_trial_are_averaged():
    rows = trials.summary([entry("a", 0.9, 0.9, 0.9), entry("a", 0.8, 0.9, 0.9)])
    assert rows[0]["grouped AUC"] == pytest.approx(0.85)


def test_a_validation_that_orders_as_the_test_has_correlation_one():
    assert trials.ranking(ENTRIES) == pytest.approx({"grouped": 1, "random": -1})


def test_minutes_are_those_after_a_pretraining():
    (row,) = trials.summary([entry("a", 0.9, 0.9, 0.9)])
    assert row["minutes after pretraining"] == 1


def test_a_trial_changes_recipe_and_augmentation():
    recipe = Trial("x", "", {"lr": 5e-4}, {"jitter": 0.4}).recipe("pneumoniamnist")
    assert recipe.lr == 5e-4
    assert recipe.augmentation.jitter == 0.4


def test_trials_have_names_of_their_own():
    names = [trial.name for trial in trials.TRIALS]
    assert len(set(names)) == len(names)


def test_the_file_is_plain_json(study):
    run(study, only="plain")
    path = study / "pneumoniamnist" / "trials.json"
    assert set(json.loads(path.read_text())) == {"trials"}


def test_a_trial_that_does_not_exist_is_refused(study):
    with pytest.raises(SwysError, match="no trial matches 'nonsense'; choose one of plain, slow"):
        run(study, only="nonsense")


def test_nothing_is_trained_for_none(study):
    assert run(study, only="none") == []
