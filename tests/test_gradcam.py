"""Grad-CAM against two other libraries on every kind of ViT, the other methods, and the overlay."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from small import vit
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import Tensor

from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.gradcam import (
    METHODS,
    Method,
    attention_rollout,
    grad_cam,
    heatmaps,
    hires_cam,
    legrad,
    logits_and_map,
    overlay,
)
from swys_utils.vit_internals import evaluation_mode

CLASSES = torch.tensor([0, 1, 2, 3, 0])
GEOMETRY = {"img_size": 32, "patch_size": 8, "depth": 3}
MODELS = {  # what is special about it
    "CLS token": {},
    "distilled": {"name": "deit_tiny_distilled_patch16_224"},
    "average pooling": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 3},
    "registers, average": {"reg_tokens": 2, "global_pool": "avg"},
    "attention pooling": {"class_token": False, "global_pool": "map"},
    "oblong grid": {"img_size": (24, 40), "pre_norm": True, "init_values": 0.5},
    "dynamic size": {"dynamic_img_size": True},
}


class Case(NamedTuple):
    model: VisionTransformer
    inputs: Tensor  # five images of the size that the model reads
    grid: tuple[int, int]


def make(kind="CLS token", **more) -> Case:
    """A small model with weights large enough for maps that are not all alike, and its inputs."""
    geometry = GEOMETRY | MODELS[kind] | more
    model = vit(4, noise=0.1, **geometry)
    size = (24, 48) if kind == "dynamic size" else model.patch_embed.img_size
    height, width = size
    inputs = torch.randn(5, 3, height, width)
    grid = (height // 8, width // 8)
    return Case(model, inputs, grid)


@pytest.fixture(params=MODELS, scope="module")
def case(request) -> Case:
    """Each kind of model, shared by the tests that leave it as it is."""
    return make(request.param)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(params=METHODS)
def function(request):
    """Each way to explain."""
    return METHODS[request.param].function


def close(maps, expected) -> bool:
    """Equal within rounding errors, as measured by the largest value of a map."""
    maps = torch.as_tensor(maps).detach()
    expected = torch.as_tensor(expected)
    largest = maps.abs().max().item()
    assert largest > 1e-4, "an empty map would agree with anything"
    tolerance = 1e-5 * largest
    return torch.allclose(maps, expected, atol=tolerance, rtol=1e-5)


def correlation(a: Tensor, b: Tensor) -> float:
    a = a.flatten().numpy()
    b = b.flatten().numpy()
    return np.corrcoef(a, b)[0, 1]


def outputs_of(layer: torch.nn.Module) -> list[Tensor]:
    """A list that gets the output of a layer whenever it runs."""
    outputs = []

    def keep(module, args, output):
        outputs.append(output)

    layer.register_forward_hook(keep)
    return outputs


# Grad-CAM against other libraries


def show_patches_as_image(case: Case, block: int) -> torch.nn.Module:
    """Send the patches through a layer as (B, D, gh, gw), where both libraries can look at them."""
    model, _, grid = case
    prefix = model.num_prefix_tokens
    image_layer = torch.nn.Identity()
    model.image = image_layer

    def through_image(module, args, tokens):
        others = tokens[:, :prefix]
        patches = tokens[:, prefix:]
        image = patches.reshape(5, *grid, -1)
        image = image.permute(0, 3, 1, 2).contiguous()
        image = image_layer(image)
        patches = image.flatten(2).mT
        return torch.cat([others, patches], dim=1)

    model.blocks[block].norm1.register_forward_hook(through_image)
    return image_layer


@pytest.mark.parametrize("block", [-1, 0])
@pytest.mark.parametrize("kind", MODELS)
def test_agrees_with_pytorch_grad_cam(kind, block):
    library = pytest.importorskip("pytorch_grad_cam")
    case = make(kind)
    model, inputs, _ = case
    maps = grad_cam(model, inputs, CLASSES, block, signed=True)
    layer = show_patches_as_image(case, block)
    with library.GradCAM(model, [layer]) as cam:
        hooks = cam.activations_and_grads
        logits = hooks(inputs)
        scores = logits.gather(1, CLASSES[:, None])
        scores.sum().backward()
        activations = hooks.activations[0].detach().numpy()
        gradients = hooks.gradients[0].detach().numpy()
        # its map before the min-max scaling
        expected = cam.get_cam_image(inputs, layer, None, activations, gradients)
    assert close(maps, expected)


@pytest.mark.parametrize("block", [-1, 0])
@pytest.mark.parametrize("kind", MODELS)
def test_agrees_with_torchcam(kind, block):
    library = pytest.importorskip("torchcam.methods")
    case = make(kind)
    model, inputs, _ = case
    maps = grad_cam(model, inputs, CLASSES, block)
    layer = show_patches_as_image(case, block)
    with library.GradCAM(model, layer) as extractor:
        logits = model(inputs)
        classes = CLASSES.tolist()
        (expected,) = extractor(classes, logits, normalized=False)
    assert close(maps, expected)


# Every method on every kind of model


def test_a_map_is_detached_float32_of_the_models_grid(case, function):
    model, inputs, grid = case
    maps = function(model, inputs, CLASSES)
    assert maps.shape == (5, *grid)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad


def test_targets_may_be_numpys(function):
    model, inputs, _ = make()
    expected = function(model, inputs, CLASSES)
    maps = function(model, inputs, CLASSES.numpy())
    assert torch.equal(maps, expected)


def test_a_map_is_not_negative(case, function):
    model, inputs, _ = case
    maps = function(model, inputs, CLASSES, block=-2)
    assert maps.min() >= 0


def test_a_map_does_not_depend_on_the_other_images_of_its_batch(case, function):
    model, inputs, _ = case
    maps = function(model, inputs, CLASSES, block=-2)
    alone = function(model, inputs[1:2], 1, block=-2)
    assert close(maps[1:2], alone)


# LeGrad is not among them: its ReLU is inside its average
@pytest.mark.parametrize("function", [grad_cam, hires_cam, attention_rollout])
def test_a_map_is_the_signed_one_after_relu(case, function):
    model, inputs, _ = case
    maps = function(model, inputs, CLASSES, block=-2)
    signed = function(model, inputs, CLASSES, block=-2, signed=True)
    assert close(maps, signed.relu())


def test_without_targets_the_predicted_class_is_explained(case, function):
    model, inputs, _ = case
    predicted = model(inputs).argmax(1)
    expected = function(model, inputs, predicted)
    assert torch.equal(function(model, inputs), expected)


# Closed forms of the other methods


@pytest.fixture
def one_block() -> Case:
    case = make(depth=1)
    case.model.blocks[0].attn.fused_attn = False
    return case


def test_hires_cam_is_gradient_times_activation(one_block):
    model, inputs, _ = one_block
    outputs = outputs_of(model.blocks[0].norm1)
    score = model(inputs)[:, 2].sum()
    (activation,) = outputs
    (gradient,) = torch.autograd.grad(score, activation)
    values = (gradient * activation).sum(dim=-1)
    expected = values[:, 1:].reshape(5, 4, 4)
    maps = hires_cam(model, inputs, 2, signed=True)
    assert close(maps, expected)


def test_legrad_is_the_mean_gradient_of_the_attention_map(one_block):
    model, inputs, _ = one_block
    outputs = outputs_of(model.blocks[0].attn.attn_drop)
    score = model(inputs)[:, 2].sum()
    (gradient,) = torch.autograd.grad(score, outputs)
    values = gradient.relu().mean(dim=(1, 2))
    expected = values[:, 1:].reshape(5, 4, 4)
    maps = legrad(model, inputs, 2)
    assert close(maps, expected)


def test_attention_rollout_adds_up_to_one_where_all_tokens_are_patches():
    model, inputs, _ = make("average pooling")
    maps = attention_rollout(model, inputs)
    totals = maps.sum(dim=(1, 2))
    torch.testing.assert_close(totals, torch.ones(5))


def test_attention_rollout_leaves_a_share_to_other_tokens():
    model, inputs, _ = make("registers")
    maps = attention_rollout(model, inputs)
    totals = maps.sum(dim=(1, 2))
    assert (totals < 0.99).all()


# The model is left as it was


class Used(NamedTuple):
    """A model as a training run leaves it, and the map of a method when nothing was dropped."""

    model: VisionTransformer
    inputs: Tensor
    expected: Tensor


@pytest.fixture
def used(function) -> Used:
    model, inputs, _ = make(patch_drop_rate=0.5, pos_drop_rate=0.5)
    expected = function(model, inputs, 0)
    model.train()
    model.blocks[1].eval()  # a mixed mode has to survive
    model.blocks[0].requires_grad_(False)
    model.blocks[2].attn.fused_attn = False
    return Used(model, inputs, expected)


def state(model):
    """What a method could leave changed."""
    state = []
    for module in model.modules():
        fused = vars(module).get("fused_attn")
        hooks = len(module._forward_hooks)
        state.append((module.training, fused, hooks))
    for weight in model.parameters():
        state.append((weight.requires_grad, weight.grad))
    return state


def test_nothing_is_dropped_while_a_map_is_made(function, used):
    model, inputs, expected = used
    maps = function(model, inputs, 0)
    assert torch.equal(maps, expected)


def test_the_model_is_as_before(function, used):
    model, inputs, _ = used
    before = state(model)
    function(model, inputs, 0)
    assert state(model) == before


def test_the_model_is_as_before_after_an_error(function, used, monkeypatch):
    model, inputs, _ = used
    before = state(model)
    last_mlp = model.blocks[2].mlp
    monkeypatch.setattr(last_mlp, "forward", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        function(model, inputs)
    assert state(model) == before


def test_a_map_needs_no_gradients_to_be_enabled(function, used):
    model, inputs, expected = used
    with torch.no_grad():
        maps = function(model, inputs, 0)
    assert torch.equal(maps, expected)


def test_gradients_stay_disabled(function, used):
    model, inputs, _ = used
    with torch.no_grad():
        function(model, inputs, 0)
        assert not model(inputs).requires_grad


def test_a_map_is_made_inside_evaluation_mode(function, used):
    model, inputs, expected = used
    with torch.no_grad(), evaluation_mode(model):
        maps = function(model, inputs, 0)
    assert torch.equal(maps, expected)


def test_a_map_is_made_in_inference_mode(function, used):
    model, inputs, expected = used
    with torch.inference_mode():
        copy = inputs.clone()  # an inference tensor
        maps = function(model, copy, 0)
        assert torch.equal(maps, expected)


def test_a_map_under_autocast_is_float32(function, used):
    model, inputs, expected = used
    with torch.autocast("cpu", torch.bfloat16):
        maps = function(model, inputs, 0)
    assert maps.dtype == torch.float32
    assert correlation(maps, expected) > 0.95


def test_a_map_of_a_bfloat16_model_is_float32(function, used):
    model, inputs, expected = used
    maps = function(model.bfloat16(), inputs, 0)
    assert maps.dtype == torch.float32
    assert correlation(maps, expected) > 0.95


# Logits and map, to train by


def test_logits_are_the_models_own(case):
    model, inputs, _ = case
    logits = logits_and_map(model, inputs, CLASSES).logits
    assert torch.allclose(logits, model(inputs), atol=1e-5)


def test_values_are_signed_grad_cam(case):
    model, inputs, _ = case
    values = logits_and_map(model, inputs, CLASSES).values
    maps = grad_cam(model, inputs, CLASSES, signed=True)
    assert close(values, maps.flatten(1))


def test_without_patch_dropout_all_patches_are_there(case):
    model, inputs, _ = case
    kept = logits_and_map(model, inputs, CLASSES).kept
    assert kept is None


def test_a_loss_of_the_map_reaches_every_block(case):
    model, inputs, _ = case
    values = logits_and_map(model, inputs, CLASSES).values
    values.square().mean().backward()
    for block in model.blocks:
        gradient = block.attn.qkv.weight.grad
        assert gradient.abs().max() > 0
    model.zero_grad()


@pytest.fixture(params=["CLS token", "registers, average"])
def dropping(request) -> Case:
    """A model in training that keeps 6 of its 16 patches and skips half of its layers."""
    case = make(request.param, patch_drop_rate=0.6, drop_path_rate=0.5)
    case.model.train()
    return case


def test_logits_in_training_draw_timms_random_numbers(dropping):
    model, inputs, _ = dropping
    torch.manual_seed(1)
    expected = model(inputs)
    torch.manual_seed(1)
    logits = logits_and_map(model, inputs, 2).logits
    assert torch.allclose(logits, expected, atol=1e-5)


def test_values_in_training_are_of_the_patches_that_are_left(dropping):
    model, inputs, _ = dropping
    outputs = outputs_of(model.blocks[-1].norm1)
    torch.manual_seed(1)
    score = model(inputs)[:, 2].sum()
    (tokens,) = outputs
    (gradient,) = torch.autograd.grad(score, tokens)
    patches = tokens[:, model.num_prefix_tokens :]
    gradient = gradient[:, model.num_prefix_tokens :]
    weights = gradient.mean(dim=1, keepdim=True)
    expected = (weights * patches).sum(dim=-1)
    torch.manual_seed(1)
    values = logits_and_map(model, inputs, 2).values
    assert close(values, expected)


def test_positions_in_training_are_one_for_each_value(dropping):
    model, inputs, _ = dropping
    _, values, kept = logits_and_map(model, inputs, 2)
    assert values.shape == (5, 6)
    assert kept.shape == (5, 6)
    assert kept.dtype == torch.int64


def gradient_of_a_lesson(model, inputs) -> Tensor:
    """Gradient of a loss that reads the logits and the map."""
    logits, values, _ = logits_and_map(model, inputs, 1)
    loss = logits.square().mean()
    loss = loss + values.square().mean()
    weights = list(model.parameters())
    gradients = torch.autograd.grad(loss, weights)
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_a_map_is_taught_under_autocast():
    model, inputs, _ = make()
    expected = gradient_of_a_lesson(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            logits_and_map(model, inputs)  # must leave no cast without a gradient behind
        gradient = gradient_of_a_lesson(model, inputs)
    assert correlation(gradient, expected) > 0.98


def test_logits_and_map_are_float32_under_autocast():
    model, inputs, _ = make()
    with torch.autocast("cpu", torch.bfloat16):
        logits, values, _ = logits_and_map(model, inputs, 1)
    assert logits.dtype == torch.float32
    assert values.dtype == torch.float32


# The list of methods


def test_each_method_is_listed_under_its_id():
    for name, method in METHODS.items():
        assert method.id == name


def test_methods_differ_in_title_and_colour():
    titles = {method.title for method in METHODS.values()}
    colours = {method.colour for method in METHODS.values()}
    assert len(titles) == len(METHODS)
    assert len(colours) == len(METHODS)


def test_a_method_that_is_added_to_the_list_can_be_chosen(monkeypatch):
    def ones(model, inputs, *args):
        return torch.ones(len(inputs), 4, 4)

    added = Method("ones", "Ones", "#0072B2", ones)
    monkeypatch.setitem(METHODS, "ones", added)
    model, inputs, _ = make()
    maps = heatmaps(model, inputs, "ones")
    assert maps.mean() == 1


# Maps of many images


@pytest.fixture
def small() -> Case:
    return make()


def test_heatmaps_of_batches_equal_one_big_batch(small, images):
    inputs = to_model_input(images, 32)
    expected = grad_cam(small.model, inputs, CLASSES)
    maps = heatmaps(small.model, images, targets=CLASSES, batch_size=2)
    assert close(maps, expected)


def test_heatmaps_take_model_input(small):
    model, inputs, _ = small
    expected = grad_cam(model, inputs)
    assert close(heatmaps(model, inputs), expected)


def test_heatmaps_take_a_function(small):
    model, inputs, _ = small
    expected = legrad(model, inputs)
    assert close(heatmaps(model, inputs, legrad), expected)


def test_heatmaps_pass_options_on(small):
    model, inputs, _ = small
    expected = grad_cam(model, inputs, 1, block=0, signed=True)
    maps = heatmaps(model, inputs, targets=1, block=0, signed=True)
    assert close(maps, expected)


ENLARGED = torch.zeros(5, 3, 224, 224)
NO_IMAGES = torch.zeros(0, 3, 32, 32)
TOO_MANY = [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("model", torch.nn.Linear(3, 3), "Linear is not"),
        ("model", vit(block_fn=ResPostBlock), "ResPostBlock is not"),
        ("block", 3, "choose 0 to 2"),
        ("images", ENLARGED, "give a float tensor (B, 3, 32, 32)"),
        ("images", NO_IMAGES, "for 0 images"),
        ("method", "gradcam", "did you mean 'grad_cam'"),
        ("targets", 4, "4 for 5 images; give one class from 0 to 3"),
        ("targets", 1.0, "1.0 for 5 images"),
        ("targets", True, "True for 5 images"),
        ("targets", [0, 1], "[0, 1] for 5 images"),
        ("targets", TOO_MANY, "[0, 1, 2, 3, 0, 1] for 5 images"),
    ],
)
def test_what_cannot_be_explained_is_one_line(small, argument, value, message):
    arguments = {"model": small.model, "images": small.inputs}
    arguments[argument] = value
    with pytest.raises(SwysError) as error:
        heatmaps(**arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_function_checks_the_number_of_targets(small):
    with pytest.raises(SwysError, match="for 5 images; give one class from 0 to 3, or one for"):
        grad_cam(small.model, small.inputs, [0, 1])


# The overlay


@pytest.fixture
def grey():
    """Three images of one grey value."""
    return np.full((3, 28, 28), 100, np.uint8)


@pytest.fixture
def peaks():
    """A strong map, a weak one and an empty one."""
    maps = torch.zeros(3, 7, 7)
    maps[0, 3, 3] = 4
    maps[1, 3, 3] = 1
    return maps


def test_scaled_by_its_own_maximum_every_peak_looks_alike(grey, peaks):
    drawn = overlay(grey, peaks)
    assert np.array_equal(drawn[0], drawn[1])


def test_on_a_shared_scale_a_weak_map_stays_weak(grey, peaks):
    drawn = overlay(grey, peaks, scale=4.0)
    change = np.abs(drawn.astype(int) - 100)
    strong, weak, _ = change.reshape(3, -1).sum(axis=1)
    assert strong > 3 * weak
    assert weak > 0


@pytest.mark.parametrize("scale", ["image", 4.0])
def test_an_empty_map_is_not_coloured(grey, peaks, scale):
    drawn = overlay(grey, peaks, scale=scale)
    assert np.array_equal(np.unique(drawn[2]), [100])


def test_negative_values_are_not_coloured(grey, peaks):
    drawn = overlay(grey, -peaks)
    assert np.array_equal(np.unique(drawn), [100])


@pytest.mark.parametrize("alpha", [-0.1, 2])
def test_an_opacity_out_of_range_is_refused(grey, peaks, alpha):
    with pytest.raises(SwysError, match="alpha is 0 to 1"):
        overlay(grey, peaks, alpha)


@pytest.mark.parametrize("scale", [0, "all"])
def test_a_scale_that_is_no_positive_number_is_refused(grey, peaks, scale):
    with pytest.raises(SwysError, match="or a positive number"):
        overlay(grey, peaks, scale=scale)


def test_an_overlay_needs_a_map_for_each_image(grey, peaks):
    with pytest.raises(SwysError, match="give one"):
        overlay(grey, peaks[:1])


@pytest.fixture
def ramps():
    """Two grey images, (2, 16, 16), that get brighter from pixel to pixel."""
    values = np.arange(512).astype(np.uint8)
    return values.reshape(2, 16, 16)


@pytest.fixture
def diagonals():
    """Two maps that mark a diagonal, (2, 4, 4)."""
    return np.eye(4)[None].repeat(2, axis=0)


def test_an_overlay_has_the_size_that_is_given(ramps, diagonals):
    drawn = overlay(ramps, diagonals, size=64)
    assert drawn.shape == (2, 64, 64, 3)
    assert drawn.dtype == np.uint8


def test_a_colour_image_is_drawn_as_the_same_grey_one(ramps, diagonals):
    expected = overlay(ramps, diagonals)
    colour = ramps[..., None].repeat(3, axis=-1)
    assert np.array_equal(overlay(colour, diagonals), expected)


def test_model_input_is_drawn_as_the_image_it_is_made_of(ramps, diagonals):
    expected = overlay(ramps, diagonals)
    inputs = to_model_input(ramps, 16)
    assert np.array_equal(overlay(inputs, diagonals), expected)


def test_a_map_is_neither_turned_nor_mirrored():
    black = np.zeros((1, 40, 40), np.uint8)
    top_right = np.zeros((1, 4, 4))
    top_right[0, 0, 3] = 1
    drawn = overlay(black, top_right, alpha=1.0, cmap="gray")
    assert drawn[0, 0, -1].min() == 255
    assert drawn[0, -1, 0].max() == 0
