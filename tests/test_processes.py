"""Kills and several processes: training and files come out as from one undisturbed process."""

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import OBJECTIVES, RECIPE, SMALL, objective, some, vit

from swys_utils import data as data_module
from swys_utils import distillation, image_files, resume, training
from swys_utils.data import load_dataset
from swys_utils.processes import ProcessShare

EPOCHS = 6
STEPS = 6  # an epoch: 96 images in batches of 15, of which two processes have 7 and 8


@pytest.fixture
def shares() -> list[ProcessShare]:
    """Of three processes, in a batch of 16 images."""
    return [ProcessShare(process, 3, 16) for process in range(3)]


def test_the_shares_are_the_whole_batch(shares):
    batch = list(range(16))
    together = []
    for share in shares:
        together += batch[share.part]
    assert together == batch


def test_the_weights_make_the_mean_over_the_batch(shares):
    weights = [share.weight for share in shares]
    assert np.mean(weights) == pytest.approx(1)


def test_a_share_draws_its_part_of_the_normal_numbers_of_the_batch(shares):
    torch.manual_seed(0)
    whole = torch.randn(16, 4)
    torch.manual_seed(0)
    with shares[1] as share:
        mine = torch.randn(share.size, 4)
    assert torch.equal(mine, whole[share.part])


def test_a_share_draws_its_part_of_the_coins_of_the_batch(shares):
    torch.manual_seed(0)
    whole = torch.empty(16, 1).bernoulli_(0.5)
    torch.manual_seed(0)
    with shares[1] as share:
        mine = torch.empty(share.size, 1).bernoulli_(0.5)
    assert torch.equal(mine, whole[share.part])


def test_other_random_numbers_stay_what_they_are(shares):
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    with shares[1]:
        drawn = torch.randn(3)
    assert torch.equal(drawn, expected)


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def save_a_part_and_die(state: dict, path: Path) -> None:
    path.write_bytes(b"x" * 99)
    die()


def join_processes(process: int, processes: int, folder: Path) -> None:
    """As torchrun and accelerate launch do, which meet at a port instead of in a file."""
    os.environ["RANK"] = str(process)
    os.environ["LOCAL_RANK"] = str(process)
    os.environ["WORLD_SIZE"] = str(processes)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group(
        "gloo",
        meeting,
        rank=process,
        world_size=processes,
    )


def one_run(kind: str, data_dir: Path, state_path: Path, callback) -> dict:
    """Train a small student; returns what two runs have to share."""
    data = some(load_dataset(root=data_dir), train=96)
    recipe = replace(RECIPE, epochs=EPOCHS, batch_size=15, lr=1e-4, drop_path=0.2)
    recipe = replace(recipe, **distillation.OBJECTIVES[kind].recipe_changes)
    student = training.build("vit_tiny", data, recipe, 0, **SMALL)
    loss = objective(kind, student, vit(seed=1, noise=0.05))
    state = training.fit(
        student,
        data,
        recipe,
        loss,
        device="cpu",
        state_path=state_path,
        callback=callback,
    )
    learnt = [p.detach() for p in loss.parameters() if p.requires_grad]  # a projector
    return {
        "last": state.model.state_dict(),
        "chosen": state.chosen().state_dict(),
        "learnt": learnt,
        "history": [row | {"seconds": 0} for row in state.history],
        "logits": training.predict(state.model, data.test.images),
    }


def train(kind, data_dir, folder, kill, process, processes) -> None:
    """One process of a run, to its end or until ``kill``: a number of steps, or "in a save"."""
    torch.set_num_threads(1)
    if processes > 1:
        join_processes(process, processes, folder)
    resume.SAVE_SECONDS = 0
    training.fast_bf16 = lambda device: False  # sums of bfloat16 depend on how they are split
    if kill == "in a save":
        torch.save = save_a_part_and_die
    steps = []

    def callback(model, seconds: float, step: int) -> None:
        steps.append(step)
        if len(steps) == kill:
            die()

    end = one_run(kind, data_dir, folder / "state.pt", callback)
    end["steps"] = steps
    if process == 0:
        torch.save(end, folder / "end.pt")


@pytest.fixture(scope="module")
def run(at_once, drawn_data_dir, tmp_path_factory):
    """``run(kind, name, kill, processes)`` trains in a folder of that kind and name.

    Returns what is there at the end, or None after a kill.
    """
    root = tmp_path_factory.mktemp("runs")

    def run(kind: str, name: str, kill=None, processes: int = 1) -> dict | None:
        folder = root / kind / name
        folder.mkdir(parents=True, exist_ok=True)
        arguments = []
        for process in range(processes):
            arguments.append((kind, drawn_data_dir, folder, kill, process, processes))
        exit_codes = at_once(train, *arguments)
        if kill:
            assert -signal.SIGKILL in exit_codes
            return None
        assert exit_codes == [0] * processes
        return torch.load(folder / "end.pt", weights_only=False)

    return run


@pytest.fixture(scope="module", params=OBJECTIVES)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def straight(run, kind) -> dict:
    """The end of a run that nothing disturbs."""
    return run(kind, "straight")


@pytest.fixture(scope="module")
def two_then_one(run, kind) -> dict:
    """The end of a run of two processes that are killed, and of one that goes on."""
    run(kind, "two, then one", kill=3 * STEPS + 2, processes=2)
    return run(kind, "two, then one")


@pytest.mark.slow
def test_another_number_of_processes_goes_on_from_the_last_epoch(two_then_one):
    assert two_then_one["steps"][0] == 3 * STEPS + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logits", "history"])
def test_another_number_of_processes_trains_the_same(two_then_one, straight, name):
    torch.testing.assert_close(two_then_one[name], straight[name], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def kills(kind) -> list[int]:
    """After how many steps each of four processes is killed."""
    rng = np.random.default_rng(OBJECTIVES.index(kind))
    steps = rng.integers(1, 2 * STEPS + 1, size=4)
    return steps.tolist()


@pytest.fixture(scope="module")
def killed(run, kind, kills) -> dict:
    """The end of a run that is killed four times in training and twice in a save."""
    first, second, *others = kills
    for kill in (first, "in a save", second, "in a save", *others):
        run(kind, "killed", kill=kill)
    return run(kind, "killed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last", "chosen", "learnt", "history", "logits"])
def test_kills_change_no_bit(killed, straight, name):
    torch.testing.assert_close(killed[name], straight[name], rtol=0, atol=0)


@pytest.mark.slow
def test_whole_epochs_are_not_trained_again(killed, kills, faults):
    whole_epochs = sum(kill > STEPS for kill in kills)
    kept = whole_epochs * STEPS
    assert kept > 0
    assert killed["steps"] == list(range(kept + 1, EPOCHS * STEPS + 1))
    faults("kill -9 in training, then resumed: the same bits", 4)
    faults("kill -9 in a save, then resumed: the same bits", 2)


def unpack(root: Path, killed: bool) -> None:
    data_module.MEMORY_LIMIT = 1000
    if killed:
        image_files.shutil.copyfileobj = die
    while not killed and not list(root.glob("*.part")):  # the killed one's, which stays
        time.sleep(0.01)
    data = load_dataset("bloodmnist", root=root)
    assert len(data.train) == 256


def test_unpackings_at_once_and_one_killed(at_once, drawn_data_dir, tmp_path, faults):
    shutil.copy(drawn_data_dir / "bloodmnist.npz", tmp_path)
    others = [(tmp_path, False)] * 4
    exit_codes = at_once(unpack, (tmp_path, True), *others)
    assert exit_codes == [-signal.SIGKILL, 0, 0, 0, 0]
    faults("four unpackings of one file at once, and one killed", 5)
