"""The checkpoints of the repository: each with its card, and as good as that says."""

import pytest
import torch

from swys_utils import cards
from swys_utils.data import load_dataset
from swys_utils.metrics import point_scores
from swys_utils.models import load_checkpoint
from swys_utils.training import predict

SHIPPED = cards.checkpoint_ids()


def shipped_at_28_px() -> list[str]:
    """Ids of the checkpoints that are scored in seconds; at 224 px `swys evaluate` does it."""
    ids = []
    for checkpoint_id in SHIPPED:
        card = cards.read_card(cards.find_checkpoint(checkpoint_id) / "card.json")
        if card["img_size"] == 28:
            ids.append(checkpoint_id)
    return ids


@pytest.fixture
def two_threads():
    """Torch on two threads, as long as the test lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request):
    """Id, model and card of a shipped checkpoint."""
    model, card = load_checkpoint(request.param)
    return request.param, model, card


def test_a_shipped_checkpoint_comes_with_its_card(shipped):
    name, _, card = shipped
    assert card == cards.read_card(cards.find_checkpoint(name) / "card.json")


def test_a_shipped_checkpoint_was_trained_on_real_images(shipped):
    _, _, card = shipped
    assert card["training_hashes"]
    assert not card["synthetic"]


@pytest.mark.parametrize("shipped", shipped_at_28_px(), indirect=True)
def test_a_shipped_checkpoint_scores_what_its_card_says(shipped, real_data_dir, two_threads):
    _, model, card = shipped
    data = load_dataset(card["dataset"], root=real_data_dir)
    logits = predict(model, data.test.images)
    scores = point_scores(logits, data.test.labels, data.info.task)
    stored = {key: card["stored"][key] for key in scores}
    assert scores == pytest.approx(stored, abs=1e-3)


@pytest.mark.parametrize(("old_id", "todays_id"), cards.OLD_IDS.items())
def test_a_checkpoint_is_loaded_by_its_old_id(old_id, todays_id):
    _, card = load_checkpoint(old_id)
    assert card == cards.read_card(cards.find_checkpoint(todays_id) / "card.json")
