"""What a comparison must not confuse: a batch and a model, a failure and an absence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from compare_cases import CLASSES, FEW, NAMES, brightest, images_of, labels_of
from small import vit
from torch import nn

from swys import cli, compare, compare_command
from swys.comparison import Effort
from swys.gates import NOT_MADE, exit_code, gates_of
from swys.model_libraries import open_timm, open_transformers
from swys.onnx_models import open_onnx
from swys.open_model import open_model
from swys.opened_models import from_python, opened_function
from swys.verdicts import Bounds
from swys.wording import headline
from swys_utils.config import SwysError
from swys_utils.onnx_export import export_onnx

ANSWERS_ONLY = Effort(0, 0, 0, 0)


@pytest.fixture
def labels():
    return labels_of(30)


@pytest.fixture
def images(labels):
    return images_of(labels)


def softmax(images: np.ndarray) -> np.ndarray:
    scores = np.exp(brightest(images))
    return scores / scores.sum(axis=1, keepdims=True)


def test_a_single_row_of_logits_may_add_up_to_1(images):
    def lucky(batch):
        scores = np.tile([5.0, -1.0, 2.0], (len(batch), 1))
        scores[0] = [0.4, 0.6, 0.0]
        return scores

    one_by_one = replace(opened_function(lucky, "A"), batch_size=1)
    (row,) = one_by_one.scores(images[:1])
    assert row.tolist() == pytest.approx([0.4, 0.6, 0.0])


def test_probabilities_are_undone_for_answers_and_for_occlusion(images, labels):
    result = compare(
        softmax,
        brightest,
        images,
        labels,
        NAMES,
        effort=replace(FEW, maps=0),
    )
    assert result.measured.row("agreement").estimate.value == 1
    assert result.measured.row("occlusion").estimate.value == pytest.approx(1, abs=1e-3)


def test_a_softmax_over_several_labels_is_refused(images, labels):
    several = np.eye(CLASSES, dtype=int)[labels]
    several[0] = 1
    with pytest.raises(SwysError, match="gives a probability for each label"):
        compare(softmax, softmax, images, several, NAMES, effort=ANSWERS_ONLY)


def test_a_measurement_that_failed_is_no_missing_gate(images, labels):
    def breaks_where_a_patch_is_hidden(batch):
        scores = brightest(batch)
        whole = {image.tobytes() for image in images}
        scores[[image.tobytes() not in whole for image in batch]] = np.nan
        return scores

    measured = compare(
        breaks_where_a_patch_is_hidden,
        brightest,
        images,
        labels,
        NAMES,
        effort=replace(FEW, maps=0),
    ).measured
    gates = gates_of(measured)
    (gate,) = [gate for gate in gates if gate.option == "min_occlusion"]
    assert gate.code == NOT_MADE
    assert "no finite number" in gate.line
    assert exit_code(gates) == NOT_MADE


def test_another_wrong_answer_is_not_repeated(images, labels):
    def first(batch):
        return brightest(batch)[:, [1, 2, 0]]

    def second(batch):
        return brightest(batch)[:, [2, 0, 1]]

    measured = compare(first, second, images, labels, NAMES, effort=ANSWERS_ONLY).measured
    assert "B repeats 0 of A's 30 errors" in measured.row("errors").note


def test_a_headline_by_other_limits_says_so(images, labels):
    loose = Bounds(min_agreement=0.0)
    measured = compare(
        brightest,
        brightest,
        images,
        labels,
        NAMES,
        bounds=loose,
        effort=ANSWERS_ONLY,
    ).measured
    assert headline(measured).startswith("By the limits that were set: ")


def test_a_crash_of_compare_is_not_pythons_1(monkeypatch, capsys):
    def crash(self):
        raise ZeroDivisionError

    monkeypatch.setattr(compare_command.Compare, "run", crash)
    words = ["compare", "timm:resnet18", "timm:resnet18", "--data", "nowhere"]
    assert cli.main(words) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_16_bits_is_asked_in_16_bits(images, dtype):
    model = vit(CLASSES, noise=0.1).to(dtype)
    opened = open_model(model)
    assert opened.scores(images[:2]).dtype == np.float32
    assert opened.prepare(images[:2]).dtype == dtype


class Grey(nn.Module):
    """A network of one channel."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, pixels):
        return self.head(self.first(pixels).mean(dim=(2, 3)))


def test_a_network_of_one_channel_gets_one(images):
    opened = from_python(Grey(), "A")
    assert opened.prepare(images[:2]).shape[:2] == (2, 1)
    assert opened.scores(images[:2]).shape == (2, CLASSES)


def test_a_model_without_a_file_of_weights_has_the_size_of_its_weights():
    opened = open_timm("resnet10t", "", 2, ("", ""))
    assert opened.size_bytes > 4 * opened.parameters


def test_our_onnx_file_has_one_layer_only(tmp_path):
    export_onnx(vit(CLASSES), tmp_path / "x.onnx")
    with pytest.raises(SwysError, match="leave --layer out"):
        open_onnx(tmp_path / "x.onnx", layer="blocks.0")


def test_a_folder_without_a_head_for_classes_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert "architectures" in content
    with pytest.raises(SwysError, match="give a model trained to classify"):
        open_transformers(tmp_path, ("", ""))


def test_two_models_with_their_classes_in_another_order_are_said(images):
    a = replace(opened_function(brightest, "A"), class_names=NAMES)
    b = replace(opened_function(brightest, "B"), class_names=NAMES[::-1])
    measured = compare(a, b, images, effort=ANSWERS_ONLY).measured
    assert [note for note in measured.notes if "A and B have the same class names" in note]
