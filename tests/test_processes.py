"""Kills and several processes: training and files come out as from one undisturbed process."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import OBJECTIVES, RECIPE, SMALL, objective, some, vit

from swys_utils import data as data_module
from swys_utils import resume, training
from swys_utils.data import load_dataset

EPOCHS, STEPS = (
    6,
    6,
)  # steps an epoch: 96 images in batches of 15, of which two processes have 7 and 8


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def save_a_part_and_die(state, path):
    path.write_bytes(b"x" * 99)
    die()


def train(kind, data_dir, folder, kill, process, processes):
    """One run, or a process's share of it, to its end or until ``kill``: so many steps, or "in a save"."""
    torch.set_num_threads(1)
    if processes > 1:  # as torchrun and accelerate launch do, which meet at a port instead
        os.environ |= {
            "RANK": str(process),
            "LOCAL_RANK": str(process),
            "WORLD_SIZE": str(processes),
        }
        os.environ["MASTER_ADDR"] = "127.0.0.1"
        meeting = f"file://{folder}/meeting"
        torch.distributed.init_process_group("gloo", meeting, rank=process, world_size=processes)
    resume.SAVE_SECONDS = 0
    training.fast_bf16 = lambda device: False  # sums of bfloat16 depend on how they are split
    if kill == "in a save":
        torch.save = save_a_part_and_die
    data, trained = some(load_dataset(root=data_dir), train=96), []
    recipe = replace(RECIPE, epochs=EPOCHS, batch_size=15, lr=1e-4, drop_path=0.2)
    recipe = replace(recipe, patch_drop=0.0) if kind == "features" else recipe
    student = training.build("vit_tiny", data, recipe, 0, **SMALL)
    loss = objective(kind, student, vit(seed=1, noise=0.05))

    def callback(model, seconds, step):
        trained.append(step)
        if len(trained) == kill:
            die()

    run = training.fit(
        student, data, recipe, loss, device="cpu", state_path=folder / "state.pt", callback=callback
    )
    history = [row | {"seconds": 0} for row in run.history]
    projector = [p for p in loss.parameters() if p.requires_grad]
    end = {
        "bits": [run.model.state_dict(), run.chosen().state_dict(), projector, history],
        "numbers": [
            training.predict(run.model, data.test.images),
            [row["train_loss"] for row in history],
        ],
        "trained": trained,  # the steps of this process
    }
    if process == 0:
        torch.save(end, folder / "end.pt")


@pytest.fixture
def run(at_once, drawn_data_dir, tmp_path):
    """Trains in the folder of that name by so many processes; returns what they leave at the end."""

    def run(kind, name, kill=None, processes=1):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        each = [
            (kind, drawn_data_dir, folder, kill, process, processes) for process in range(processes)
        ]
        codes = at_once(train, *each)
        if kill:
            assert -signal.SIGKILL in codes
            return None
        assert codes == [0] * processes
        return torch.load(folder / "end.pt", weights_only=False)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_kills_and_another_number_of_processes_change_nothing(run, kind, faults):
    straight = run(kind, "straight")
    run(kind, "two, then one", kill=3 * STEPS + 2, processes=2)
    other = run(kind, "two, then one")
    assert other["trained"][0] == 3 * STEPS + 1
    torch.testing.assert_close(other["numbers"], straight["numbers"], rtol=0, atol=1e-4)
    steps = (
        np.random.default_rng(OBJECTIVES.index(kind)).integers(1, 2 * STEPS + 1, size=4).tolist()
    )
    for kill in (steps[0], "in a save", steps[1], "in a save", *steps[2:]):
        run(kind, "killed", kill=kill)
    killed = run(kind, "killed")
    torch.testing.assert_close(killed["bits"], straight["bits"], rtol=0, atol=0)
    kept = STEPS * sum(
        kill > STEPS for kill in steps
    )  # of whole epochs, which are not trained again
    assert kept and killed["trained"] == list(range(kept + 1, EPOCHS * STEPS + 1))
    faults("kill -9 in training, then resumed: the same bits", 4)
    faults("kill -9 in a save, then resumed: the same bits", 2)


def unpack(root, killed) -> None:
    data_module.MEMORY_LIMIT = 1000
    data_module.shutil.copyfileobj = die if killed else data_module.shutil.copyfileobj
    while not killed and not list(root.glob("*.part")):  # the killed one's, which stays
        time.sleep(0.01)
    assert len(load_dataset("bloodmnist", root=root).train) == 256


def test_unpackings_at_once_and_one_killed(at_once, drawn_data_dir, tmp_path, faults):
    (tmp_path / "bloodmnist.npz").write_bytes((drawn_data_dir / "bloodmnist.npz").read_bytes())
    codes = at_once(unpack, *[(tmp_path, number == 0) for number in range(5)])
    assert codes == [-signal.SIGKILL, 0, 0, 0, 0]
    faults("four unpackings of one file at once, and one killed", 5)
