"""Opening models: of this project, of timm, torchvision, Hugging Face, as ONNX; and bad input."""

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
from compare_cases import CLASSES, SmallCNN, images_of, labels_of
from safetensors.torch import save_file
from small import vit
from torch import nn

from swys.open_model import open_model
from swys.opened_models import are_probabilities, log_of
from swys_utils.config import SwysError
from swys_utils.models import save_checkpoint
from swys_utils.onnx_export import export_onnx
from swys_utils.training import predict

IMAGES = images_of(labels_of(6))
COLOUR = np.repeat(IMAGES[..., None], 3, axis=3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opened") / "tiny"
    model = vit(classes=CLASSES, noise=0.1)
    save_checkpoint(model, folder, {"model": "vit_tiny"}, "fp32")
    return folder, model


def test_a_checkpoint_answers_as_predict_does(checkpoint):
    folder, model = checkpoint
    assert np.allclose(open_model(str(folder)).scores(IMAGES), predict(model, IMAGES), atol=1e-5)


def test_a_checkpoint_knows_its_size_on_disk(checkpoint):
    folder, _ = checkpoint
    assert open_model(str(folder)).size_bytes == (folder / "model.safetensors").stat().st_size


def test_our_onnx_file_has_the_map_of_the_model(checkpoint, tmp_path):
    folder, model = checkpoint
    export_onnx(model, tmp_path / "tiny.onnx")
    targets = np.arange(6) % CLASSES
    exported = open_model(str(tmp_path / "tiny.onnx")).maps(IMAGES, targets)
    assert np.allclose(exported, open_model(str(folder)).maps(IMAGES, targets), atol=1e-5)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_weights_of_a_file_are_used(library, tmp_path):
    if library == "timm":
        model = timm.create_model("resnet10t", num_classes=CLASSES).eval()
        name = "resnet10t"
    else:
        model = torchvision.models.get_model("resnet18", num_classes=CLASSES).eval()
        name = "resnet18"
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    opened = open_model(
        f"{library}:{name}?weights={tmp_path}/w.safetensors", preprocessing="size=64"
    )
    with torch.no_grad():
        expected = model(opened.prepare(COLOUR)).numpy()
    assert opened.num_classes == CLASSES
    assert np.allclose(opened.scores(COLOUR), expected, atol=1e-5)


def test_weights_with_other_names_are_shown(tmp_path):
    weights = timm.create_model("resnet10t", num_classes=CLASSES).state_dict()
    save_file(
        {f"module.{name}": value for name, value in weights.items()}, tmp_path / "w.safetensors"
    )
    with pytest.raises(SwysError, match="Unexpected key.*module.* the weights of this network"):
        open_model(f"timm:resnet10t?weights={tmp_path}/w.safetensors", num_classes=CLASSES)


def test_a_single_logit_is_told_what_to_become(tmp_path):
    opened = open_model(lambda batch: np.zeros((len(batch), 1)), "A")
    with pytest.raises(SwysError, match="of a single logit z make 0 and z"):
        opened.scores(COLOUR)


def test_random_weights_are_said():
    opened = open_model("timm:resnet10t", num_classes=CLASSES)
    assert any("random weights" in note for note in opened.notes)


def test_weights_that_pruning_left_zero_are_said():
    model = SmallCNN()
    with torch.no_grad():
        for weight in model.parameters():
            weight.flatten()[::2] = 0
    assert any("50% of its weights are zero" in note for note in open_model(model, "A").notes)


def test_a_folder_of_timm_is_read_with_its_own_preprocessing(tmp_path):
    model = timm.create_model("resnet10t", num_classes=CLASSES)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    own = {"input_size": [3, 64, 64], "mean": [0.1] * 3, "std": [0.2] * 3, "crop_pct": 1.0}
    config = {"architecture": "resnet10t", "num_classes": CLASSES, "pretrained_cfg": own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    opened = open_model(f"local-dir:{tmp_path}")
    assert opened.img_size == 64
    assert "mean 0.1" in opened.preprocessing


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_a_hugging_face_folder_is_answered_and_explained(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    if kind == "vit":
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.ViTConfig(
            image_size=32, patch_size=8, intermediate_size=64, num_labels=CLASSES, **sizes
        )
        model = transformers.ViTForImageClassification(config)
    else:
        config = transformers.ConvNextConfig(
            hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], num_labels=CLASSES
        )
        model = transformers.ConvNextForImageClassification(config)
    model.save_pretrained(tmp_path)
    processor = {"size": {"shortest_edge": 64 if kind == "convnext" else 32}}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    opened = open_model(str(tmp_path))
    with torch.no_grad():
        expected = model.eval()(pixel_values=opened.prepare(COLOUR)).logits.numpy()
    assert np.allclose(opened.scores(COLOUR), expected, atol=1e-5)
    assert opened.maps(COLOUR, np.zeros(6, int)).ndim == 3


def test_a_softmax_at_the_end_is_undone():
    logits = np.random.default_rng(0).normal(size=(4, CLASSES))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert are_probabilities(shares)
    undone = log_of(shares)
    assert np.allclose(undone - undone[:, :1], logits - logits[:, :1], atol=1e-5)


# ONNX files of strangers


class RawPixels(nn.Module):
    """Takes uint8 pixels, as some exported files do."""

    def __init__(self):
        super().__init__()
        self.model = SmallCNN()

    def forward(self, pixels):
        return self.model(pixels.float() / 255)


class TwoInputs(nn.Module):
    """Takes more than images."""

    def forward(self, pixels, more):
        return pixels.mean(dim=(2, 3)) + more


def written(model: nn.Module, path, *example, batch: int = 0):
    """An ONNX file; with a batch of 0, one for any batch."""
    shapes = None if batch else tuple({0: torch.export.Dim("batch")} for _ in example)
    torch.onnx.export(
        model.eval(), example, path, dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    return str(path)


class WithEmbedding(nn.Module):
    """Gives an embedding before its scores."""

    def __init__(self):
        super().__init__()
        self.model = SmallCNN()

    def forward(self, pixels):
        return pixels.mean(dim=(2, 3)), self.model(pixels)


@pytest.mark.slow
def test_of_two_outputs_that_nothing_tells_apart_none_is_taken(tmp_path):
    path = written(WithEmbedding(), tmp_path / "m.onnx", torch.randn(2, 3, 28, 28))
    with pytest.raises(SwysError, match="name the one with the class scores 'logits'"):
        open_model(path)


@pytest.mark.slow
def test_an_onnx_file_answers_as_its_model(tmp_path):
    model = SmallCNN()
    path = written(model, tmp_path / "m.onnx", torch.randn(2, 3, 28, 28))
    opened = open_model(path, preprocessing="mean=0.5,std=0.5")
    with torch.no_grad():
        expected = model(opened.prepare(COLOUR)).numpy()
    assert np.allclose(opened.scores(COLOUR), expected, atol=1e-5)


@pytest.mark.slow
def test_a_fixed_batch_is_filled_up_and_said(tmp_path):
    model = SmallCNN()
    path = written(model, tmp_path / "m.onnx", torch.randn(4, 3, 28, 28), batch=4)
    opened = open_model(path)
    with torch.no_grad():
        expected = model(opened.prepare(COLOUR)).numpy()
    assert np.allclose(opened.scores(COLOUR), expected, atol=1e-5)
    assert any("fixed batch of 4" in note for note in opened.notes)


@pytest.mark.slow
def test_uint8_input_gets_pixels_as_they_are_and_says_so(tmp_path):
    model = RawPixels()
    pixels = torch.zeros(2, 3, 28, 28, dtype=torch.uint8)
    path = written(model, tmp_path / "m.onnx", pixels)
    opened = open_model(path, preprocessing="mean=0.5,std=0.5")  # it normalises by itself
    with torch.no_grad():
        expected = model(torch.as_tensor(COLOUR).permute(0, 3, 1, 2)).numpy()
    assert np.allclose(opened.scores(COLOUR), expected, atol=1e-4)
    assert any("uint8" in note for note in opened.notes)


@pytest.mark.slow
def test_an_onnx_file_with_more_inputs_is_one_line(tmp_path):
    path = written(
        TwoInputs(),
        tmp_path / "m.onnx",
        torch.randn(2, 3, 8, 8),
        torch.randn(2, 3),
    )
    with pytest.raises(SwysError, match="one batch of images"):
        open_model(path)


# What is refused


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m.ckpt", "m.pkl", "m.PT"])
def test_a_pickle_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(SwysError, match="pickle"):
        open_model(str(tmp_path / name))


def test_a_folder_with_pickled_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(SwysError, match="safetensors"):
        open_model(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing.onnx", "no file"),
        ("nothing/here", "unknown checkpoint"),
        ("timm:resnet19", "did you mean 'resnet"),
        ("torchvision:resnet19", "did you mean 'resnet"),
        ("timm:resnet18?pretraind", "pretrained"),
        ("timm:resnet18?weights=x.pth", "safetensors"),
        ("timm:resnet18?weights=x.safetensors", "no weights"),
        ("local-dir:nothing", "no folder"),
        ("timm:", "unknown"),
        ("\0", "unknown|path"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(text, told):
    with pytest.raises(SwysError, match=told) as error:
        open_model(text)
    assert "\n" not in str(error.value)


def test_something_else_than_a_model_is_one_line():
    with pytest.raises(SwysError, match="give a path"):
        open_model(3)


def test_weights_without_a_card_say_how_they_are_given(tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"weights")
    with pytest.raises(SwysError, match=r"timm:NAME\?weights="):
        open_model(path)


def test_a_bare_name_of_timms_says_how_it_is_written():
    with pytest.raises(SwysError, match="write 'timm:resnet18'"):
        open_model("ResNet18")


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1"])
def test_the_classes_of_weights_are_those_of_the_last_layer(name, tmp_path):
    model = torchvision.models.get_model(name, num_classes=CLASSES)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    opened = open_model(f"torchvision:{name}?weights={tmp_path / 'w.safetensors'}")
    assert opened.scores(COLOUR).shape == (6, CLASSES)


def test_weights_of_16_bits_are_as_large_as_their_file(tmp_path):
    path = tmp_path / "half.safetensors"
    model = timm.create_model("resnet10t", num_classes=CLASSES).half()
    save_file(model.state_dict(), path)
    opened = open_model(f"timm:resnet10t?weights={path}", preprocessing="size=64")
    assert opened.size_bytes == path.stat().st_size


def test_a_vit_from_python_takes_the_preprocessing_that_is_given():
    model = vit(classes=CLASSES, noise=0.1)
    usual = open_model(model).scores(IMAGES)
    same = open_model(model, preprocessing="mean=0.5,std=0.5").scores(IMAGES)
    other = open_model(model, preprocessing="mean=0.1,std=0.5").scores(IMAGES)
    assert np.allclose(usual, same, atol=1e-4)
    assert not np.allclose(usual, other, atol=1e-2)
