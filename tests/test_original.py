"""The earlier project's training, and how much sooner this series is as good."""

import pytest
from small import run_entry, some

from swys_studies import original
from swys_studies.runs import read_runs
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.models import load_checkpoint

pytestmark = pytest.mark.slow


# the time to the original


@pytest.fixture
def original_run(monkeypatch, drawn_data_dir):
    """The entry of a run of seven epochs of three seconds each, which Tiny equals at once."""
    data = some(load_dataset(root=drawn_data_dir))
    run = run_entry(original.RUN_ID, history=[{}] * 7, val_auc=0.0)
    monkeypatch.setattr(original, "one_label_data", lambda name: data)
    monkeypatch.setattr(original, "read_runs", lambda path: [run])
    monkeypatch.setattr(original, "time_original_epoch", lambda data: 3.0)
    return run


def test_the_time_to_the_original_is_a_ratio_of_training_seconds(original_run):
    times = original.time_to_original(seconds=0.5)
    assert times["ratio"] * times["tiny"]["seconds"] == pytest.approx(7 * 3.0)


def test_a_schedule_that_is_too_short_says_so(original_run):
    original_run["val_auc"] = 1.1
    message = r"0.1 s reach validation AUC 0.\d+, not 1.100; raise --seconds"
    with pytest.raises(SwysError, match=message):
        original.time_to_original(seconds=0.1)


def test_a_missing_run_says_how_to_make_it(original_run):
    original_run["id"] = "another"
    with pytest.raises(SwysError, match="train it with 'swys study original'"):
        original.time_to_original()


# when the earlier project stopped

NO_PROGRESS = [{"val_accuracy": accuracy} for accuracy in (0.7, 0.8, 0.8, 0.8, 0.8)]


def test_training_stops_after_three_epochs_without_progress():
    assert original.stopped(NO_PROGRESS, 3)


def test_training_goes_on_after_two_epochs_without_progress():
    assert not original.stopped(NO_PROGRESS[:4], 3)


# a training that is killed in its second epoch


def own_runs(dataset, folder):
    """The runs of a folder, without those that are shipped."""
    return {run["id"]: run for run in read_runs(folder)}


class KilledOnce:
    """The real epoch, but the second call is killed; ``numbers``: of the epochs that began."""

    def __init__(self):
        self.epoch = original.epoch
        self.numbers = []

    def __call__(self, model, optimizer, split, number, *args):
        self.numbers.append(number)
        if len(self.numbers) == 2:
            raise KeyboardInterrupt
        return self.epoch(model, optimizer, split, number, *args)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, drawn_data_dir):
    """The folder and the epochs of a run that was killed and started again."""
    folder = tmp_path_factory.mktemp("original")
    data = load_dataset("pneumoniamnist", root=drawn_data_dir)
    data = some(data, 8, 8, 8)
    epoch = KilledOnce()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(original, "one_label_data", lambda dataset: data)
        patch.setattr(original, "write_runs", lambda dataset, out: None)
        patch.setattr(original, "finished_runs", own_runs)
        patch.setattr(original, "epoch", epoch)
        patch.setitem(original.RECIPE, "epochs", 2)
        with pytest.raises(KeyboardInterrupt):
            original.original(folder=folder)
        original.original(folder=folder)
    return folder, epoch.numbers


@pytest.fixture(scope="module")
def entry(resumed):
    """The entry of that run."""
    folder, _ = resumed
    (entry,) = read_runs(folder)
    return entry


def test_a_killed_training_goes_on_with_the_epoch_that_it_was_in(resumed):
    _, numbers = resumed
    assert numbers == [0, 1, 1]


def test_its_history_has_every_epoch_once(entry):
    assert [row["epoch"] for row in entry["history"]] == [1, 2]


def test_its_state_is_removed(resumed):
    folder, _ = resumed
    assert not list(folder.rglob("*.state.pt"))


def test_it_is_scored(entry):
    assert set(entry["last"]) == {"accuracy", "auc", "ece"}


def test_its_model_reads_224_px(resumed, entry):
    folder, _ = resumed
    _, card = load_checkpoint(folder / f"{entry['id']}.safetensors")
    assert card["img_size"] == 224


def test_a_finished_run_is_not_trained_again(resumed, monkeypatch, capsys):
    folder, _ = resumed
    written = []
    monkeypatch.setattr(original, "one_label_data", lambda dataset: None)
    monkeypatch.setattr(original, "finished_runs", own_runs)
    monkeypatch.setattr(original, "write_runs", lambda dataset, out: written.append(out))
    original.original(folder=folder)
    assert capsys.readouterr().out == f"{original.RUN_ID} is done\n"
    assert written == [folder]  # a kill may have come before
