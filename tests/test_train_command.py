"""``swys train`` and ``swys distill`` on drawn images, with two-block models."""

import json
import os
import re
import sys
from contextlib import redirect_stdout
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from small import SMALL, some, vit

from swys import checkpoints, cli, train
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.distillation import OBJECTIVES, MapDistiller, Objective
from swys_utils.models import load_checkpoint, weights_digest

pytestmark = pytest.mark.slow

SHORT = "--epochs 1 --batch_size 8"
MODEL = "--model vit_tiny_patch16_224 --img_size 28 --patch_size 7"
TRAIN = f"train {SHORT} --save_path out"


def run(command: str) -> int:
    """``swys`` with these words."""
    return cli.main(command.split())


def few_images(*args):
    """What the commands read here in place of a whole data set."""
    return some(load_dataset(*args), 24, 24, 24)


@pytest.fixture(scope="module", autouse=True)
def small_world(drawn_data_dir):
    """Commands see few drawn images, and train two-block models."""
    build = train.build

    def small_build(*args, **geometry):
        return build(*args, **(SMALL | geometry))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
        patch.setattr(train, "build", small_build)
        patch.setattr(train, "load_dataset", few_images)
        yield


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Commands run in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The path of a model that ``swys train`` made; 28 px in patches of 7 px."""
    path = tmp_path_factory.mktemp("teacher") / "out.safetensors"
    assert run(f"train {MODEL} {SHORT} --lr 1e-4 --save_path {path}") == 0
    return path


def distill(teacher, options: str) -> dict:
    """Distil that teacher into a student beside it; returns the student's card."""
    folder = teacher.parent / "student"
    assert run(f"distill --ckpt_path {teacher} --save_path {folder} {SHORT} {options}") == 0
    return json.loads((folder / "card.json").read_text())


# train


def test_train_writes_the_last_and_the_chosen_weights(teacher):
    names = {path.stem for path in teacher.parent.glob("*.safetensors")}
    assert names == {"out", "out.val_chosen"}


def test_train_leaves_no_state(teacher):
    assert not list(teacher.parent.glob("*.state.*"))


def test_the_card_says_what_was_trained(teacher):
    card = json.loads(teacher.with_suffix(".json").read_text())
    assert card["model"] == "vit_tiny_patch16_224"
    assert card["method"] == "labels"
    assert card["img_size"] == 28
    assert card["patch_size"] == 7
    assert card["recipe"]["lr"] == 1e-4


def test_train_prints_the_scores_of_both(capsys):
    run(TRAIN)
    printed = capsys.readouterr().out
    lines = "process 1 of 1: vit_tiny.*last epoch, out: accuracy.*val-chosen, out/model.val_chosen"
    assert re.search(lines, printed, re.DOTALL)


# kill and resume


def test_a_warm_up_that_is_cut_short_is_said(capsys):
    assert run(TRAIN) == 0
    assert "0.2 epochs instead of 5" in capsys.readouterr().out


@pytest.fixture
def unfinished(empty_folder, monkeypatch):
    """The path of a state that a killed training left; it is damaged."""

    def killed(*args, state_path, **kwargs):
        state_path.parent.mkdir(exist_ok=True)
        state_path.write_text("what a kill leaves")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", killed)
        assert run(TRAIN) == 130
    return empty_folder / "out" / "model.state.pt"


def test_a_stopped_training_says_how_to_go_on(capsys, unfinished):
    assert "--resume" in capsys.readouterr().err


def test_resume_reads_the_state(unfinished, capsys):
    assert run(f"{TRAIN} --resume") == 2
    assert "'out/model.state.pt' cannot be read" in capsys.readouterr().err


@pytest.fixture
def two_models(monkeypatch):
    """What ``fit`` returns here: the last and the chosen weights differ; and its seeds."""
    last = vit(seed=1)
    chosen = vit(seed=2)
    seeds = []

    def fit(model, data, recipe, objective, *, seed, state_path):
        seeds.append(seed)
        state_path.parent.mkdir(parents=True, exist_ok=True)
        state_path.write_bytes(b"a state")
        row = {
            "epoch": 1,
            "val_accuracy": 0.5,
            "val_auc": 0.5,
            "train_loss": 1.0,
        }
        return SimpleNamespace(model=last, chosen=lambda: chosen, history=[row])

    monkeypatch.setattr(train, "fit", fit)
    return SimpleNamespace(last=last, chosen=chosen, seeds=seeds)


def test_last_and_chosen_weights_go_to_their_files(two_models, empty_folder):
    assert run(f"{TRAIN} {MODEL} --seed 7") == 0
    assert two_models.seeds == [7]
    last, _ = load_checkpoint(empty_folder / "out")
    assert weights_digest(last) == weights_digest(two_models.last)
    chosen, _ = load_checkpoint(empty_folder / "out" / "model.val_chosen.safetensors")
    assert weights_digest(chosen) == weights_digest(two_models.chosen)


def test_another_seed_gives_other_initial_weights(monkeypatch):
    starts = []

    def fit(model, *args, **options):
        starts.append(weights_digest(model))
        raise SwysError("enough")

    monkeypatch.setattr(train, "fit", fit)
    for seed in (7, 8):
        run(f"{TRAIN} {MODEL} --seed {seed}")
    assert starts[0] != starts[1]


def test_an_option_that_is_refused_deletes_no_state(empty_folder):
    state = empty_folder / "out" / "model.state.pt"
    state.parent.mkdir()
    state.write_bytes(b"of hours")
    assert run(f"{TRAIN} --model vit_tinny") == 2
    assert state.read_bytes() == b"of hours"


def test_a_folder_may_have_a_dot_in_its_name():
    files = checkpoints.output_files("runs/v1.2")
    assert files.state.as_posix() == "runs/v1.2/model.state.pt"


def test_a_pickle_is_not_written():
    with pytest.raises(SwysError, match="ends in .pth"):
        checkpoints.output_files("best.pth")


def test_without_resume_a_training_starts_anew(unfinished):
    assert run(TRAIN) == 0
    assert not unfinished.exists()


# several processes: one is the main one


class FakeProcess(SimpleNamespace):
    """One of two processes; ``at_the_barrier`` is called where it waits for the other."""

    def wait_for_everyone(self) -> None:
        self.at_the_barrier()


@pytest.fixture
def start_as(monkeypatch):
    """Starts the training as one of two processes, up to where ``fit`` would begin."""

    def start_as(main: bool, at_the_barrier) -> None:
        process = FakeProcess(
            is_main_process=main,
            process_index=0 if main else 1,
            num_processes=2,
            at_the_barrier=at_the_barrier,
        )

        def fit(*args, **kwargs):
            raise SwysError("this is where the training would begin")

        monkeypatch.setattr(train, "this_process", lambda: process)
        monkeypatch.setattr(train, "fit", fit)
        assert run(TRAIN) == 2

    return start_as


def test_a_late_process_keeps_what_the_main_one_has_just_written(unfinished, start_as):
    start_as(main=False, at_the_barrier=lambda: None)
    assert unfinished.exists()


def test_the_main_process_removes_an_old_state_before_any_process_goes_on(unfinished, start_as):
    found = []
    start_as(main=True, at_the_barrier=lambda: found.append(unfinished.exists()))
    assert found == [False]


def train_together(folder, data_dir, number: int) -> None:
    """Train in this process, one of two, as ``accelerate launch`` starts them."""
    os.environ |= {
        "SWYS_DATA_DIR": str(data_dir),
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
    }
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", meeting, rank=number, world_size=2)
    torch.set_num_threads(1)
    os.chdir(folder)
    train.build = partial(train.build, **SMALL)
    train.load_dataset = few_images
    with open(f"{number}.txt", "w") as file, redirect_stdout(file):
        code = run(f"{TRAIN} --patch_size {SMALL['patch_size']}")
    sys.exit(code)


@pytest.fixture
def two_processes(unfinished, drawn_data_dir, at_once):
    """The folder in which two processes trained one model, with an old state in their way."""
    folder = unfinished.parents[1]
    shares = [(folder, drawn_data_dir, number) for number in range(2)]
    assert at_once(train_together, *shares) == [0, 0]
    return folder


def test_two_processes_train_one_model(two_processes):
    assert "process 1 of 2" in (two_processes / "0.txt").read_text()
    assert "process 2 of 2" in (two_processes / "1.txt").read_text()
    assert (two_processes / "out" / "model.safetensors").is_file()


# distill


@pytest.mark.parametrize(
    ("method", "geometry"),
    [
        ("answers", ""),
        ("maps", "--patch_size 14"),
        ("features", "--patch_size 7"),
    ],
)
def test_the_students_card_names_method_and_teacher(teacher, method, geometry):
    card = distill(teacher, f"--method {method} {geometry}")
    teachers_card = json.loads(teacher.with_suffix(".json").read_text())
    assert card["method"] == method
    assert card["teacher"] == {
        "model": "vit_tiny_patch16_224",
        "files": teachers_card["files"],
    }


def test_a_teacher_of_the_same_data_needs_no_note(teacher, capsys):
    checkpoints.load_for(str(teacher), few_images("pneumoniamnist"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("soft", "answers"),
        ("explain", "maps"),
    ],
)
def test_earlier_names_of_a_method_are_still_accepted(old, new):
    assert train.objective_with_teacher(old).id == new


def test_the_weight_of_the_maps_is_an_option(teacher, monkeypatch):
    weights = []
    check = MapDistiller.check

    def remember(objective, student):
        weights.append(objective.gamma)
        check(objective, student)

    monkeypatch.setattr(MapDistiller, "check", remember)
    card = distill(teacher, "--method maps --patch_size 14 --gamma 0.25")
    assert set(weights) == {0.25}
    assert card["gamma"] == 0.25


def test_settings_that_are_not_given_are_the_methods_own():
    command = train.Distill(save_path="student", method="maps", alpha=0.7)
    maps = OBJECTIVES["maps"]
    assert command.settings(maps) == maps.defaults | {"alpha": 0.7}


# a way to teach that somebody adds


class NewObjective:
    """The labels alone, but with the teacher at hand; ``calls``: what it was made with."""

    def __init__(self):
        self.calls = []

    def make(self, teacher, labels, student, **settings):
        self.calls.append((teacher.num_classes, settings))
        return labels


@pytest.fixture(scope="module")
def new_objective():
    """It is registered."""
    new = NewObjective()
    objective = Objective(
        id="new",
        title="new",
        colour="#000000",
        make=new.make,
        defaults={"temperature": 3.0},
        recipe_changes={"patch_drop": 0.25},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OBJECTIVES, "new", objective)
        yield new


@pytest.fixture(scope="module")
def new_card(teacher, new_objective):
    """The card of a student that was taught by it."""
    return distill(teacher, "--method new")


def test_it_is_made_with_its_own_settings(new_card, new_objective):
    assert new_objective.calls == [(2, {"temperature": 3.0})]


def test_it_changes_the_recipe(new_card):
    assert new_card["recipe"]["patch_drop"] == 0.25


def test_the_card_has_its_id(new_card):
    assert new_card["method"] == "new"


def test_the_help_lists_it(capsys, new_objective):
    with pytest.raises(SystemExit):
        run("distill --help")
    words = capsys.readouterr().out.split()
    assert "One of answers, maps, features, new." in " ".join(words)


def test_an_error_lists_it(capsys, new_objective):
    assert run("distill --save_path student --method unheard_of") == 2
    assert "answers, maps, features, new" in capsys.readouterr().err
