"""The command line as a person uses it: evaluate, explain, export, and what it refuses."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
from small import SMALL, some, vit

from swys import checkpoints, cli, commands, train
from swys.fingerprints import pack_hashes, perceptual_hashes
from swys_utils.data import load_dataset
from swys_utils.gradcam import METHODS, Method, grad_cam, heatmaps
from swys_utils.metrics import evaluate
from swys_utils.models import save_checkpoint
from swys_utils.training import predict

SEEN = 5  # test images whose fingerprints are in the checkpoint's card


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
        patch.setattr(commands, "load_dataset", few_images)
        yield


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A checkpoint of another data set, whose card knows some of the test images."""
    images = few_images("pneumoniamnist").test.images
    card = {
        "model": "vit_tiny_patch16_224",
        "dataset": "breastmnist",
        "method": "kd_explain",  # an id of earlier versions
        "training_hashes": pack_hashes(perceptual_hashes(images[:SEEN])),
    }
    folder = tmp_path_factory.mktemp("stored") / "ckpt"
    save_checkpoint(vit(), folder, card)
    return folder


@pytest.fixture
def checkpoint(stored, tmp_path, monkeypatch):
    """Its path; the commands run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return str(stored)


# evaluate


@pytest.fixture(scope="module")
def evaluated(stored, tmp_path_factory):
    """What ``swys evaluate`` prints and writes."""
    path = tmp_path_factory.mktemp("evaluated") / "scores.json"
    out = io.StringIO()
    err = io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert cli.main(["evaluate", "--ckpt_path", str(stored), "--json", str(path)]) == 0
    scores = json.loads(path.read_text())
    return SimpleNamespace(out=out.getvalue(), err=err.getvalue(), scores=scores)


def test_evaluate_prints_the_scores(evaluated):
    assert "test split, 24 images" in evaluated.out


def test_evaluate_writes_the_scores(evaluated):
    assert evaluated.scores["n"] == 24
    test = few_images("pneumoniamnist").test
    expected = scores_of(vit(), test)
    assert evaluated.scores["accuracy"] == pytest.approx(expected.accuracy, abs=1e-3)
    assert evaluated.scores["auc"] == pytest.approx(expected.auc, abs=1e-3)


def scores_of(model, split):
    """Scores of a model on a split of the X-rays."""
    logits = predict(model, split.images)
    return evaluate(logits, split.labels, "binary-class")


def test_evaluate_scores_the_split_that_is_asked_for(checkpoint, tmp_path):
    path = tmp_path / "val.json"
    cli.main(["evaluate", "--ckpt_path", checkpoint, "--split", "val", "--json", str(path)])
    scores = json.loads(path.read_text())
    expected = scores_of(vit(), few_images("pneumoniamnist").val)
    assert scores["auc"] == pytest.approx(expected.auc, abs=1e-3)


def test_evaluate_counts_images_seen_in_training(evaluated):
    assert "5 of 24 images were in its training data" in evaluated.out
    assert evaluated.scores["seen_in_training"] == 5


def test_evaluate_scores_the_unseen_images_alone(evaluated):
    assert "without them: accuracy" in evaluated.out


def test_a_checkpoint_of_another_data_set_is_announced(evaluated):
    assert "was trained on breastmnist, not pneumoniamnist" in evaluated.err


def test_the_training_split_is_not_searched_for_training_images(checkpoint, capsys):
    assert cli.main(["evaluate", "--ckpt_path", checkpoint, "--split", "train"]) == 0
    assert "training data" not in capsys.readouterr().out


@pytest.mark.parametrize("model", ["vit_tiny", "vit_tiny_patch16_224", "vit_tiny_maps"])
def test_a_model_may_be_named_by_any_name_of_its_architecture(checkpoint, model):
    _, card = checkpoints.load_for(checkpoint, few_images("pneumoniamnist"), model)
    assert card["model"] == "vit_tiny_patch16_224"


def test_another_architecture_whose_name_begins_alike_is_refused(tmp_path, capsys):
    name = "vit_base_patch16_224_miil"
    save_checkpoint(vit(name=name), tmp_path / "miil", {"model": name})
    command = ["evaluate", "--ckpt_path", str(tmp_path / "miil"), "--model", "vit_base"]
    assert cli.main(command) == 2
    assert "is a vit_base_patch16_224_miil, not a vit_base" in capsys.readouterr().err


# explain


def test_explain_writes_maps(checkpoint, tmp_path):
    command = ["explain", "--ckpt_path", checkpoint, "--save_path", "maps", "--images", "3"]
    assert cli.main(command) == 0
    maps = np.load(tmp_path / "maps" / "maps.npz")["maps"]
    images = few_images("pneumoniamnist").test.sample(3).images
    expected = heatmaps(vit(), images)
    np.testing.assert_allclose(maps, expected, atol=1e-3 * expected.max())


def test_explain_draws_overlays(checkpoint, tmp_path):
    cli.main(["explain", "--ckpt_path", checkpoint, "--save_path", "maps", "--images", "3"])
    assert (tmp_path / "maps" / "overlays.png").stat().st_size > 1000


@pytest.fixture
def upside_down(monkeypatch):
    """A way to explain that somebody adds: Grad-CAM, upside down."""

    def function(model, inputs, targets=None, block=-1, signed=False):
        return grad_cam(model, inputs, targets, block, signed).flip(1)

    method = Method("upside_down", "upside down", "#000000", function)
    monkeypatch.setitem(METHODS, "upside_down", method)


def test_a_new_way_to_explain_is_known(checkpoint, tmp_path, upside_down):
    command = ["explain", "--ckpt_path", checkpoint, "--images", "3"]
    cli.main([*command, "--save_path", "usual"])
    cli.main([*command, "--save_path", "new", "--method", "upside_down"])
    usual = np.load(tmp_path / "usual" / "maps.npz")["maps"]
    new = np.load(tmp_path / "new" / "maps.npz")["maps"]
    np.testing.assert_array_equal(new, usual[:, ::-1])


def test_the_help_lists_all_ways_to_explain(capsys, upside_down):
    with pytest.raises(SystemExit):
        cli.main(["explain", "--help"])
    words = capsys.readouterr().out.split()
    assert " ".join(words).count("One of grad_cam, hires_cam, legrad") == 1
    assert "upside_down." in words


def test_an_unknown_way_to_explain_is_answered_by_all_that_are_known(
    checkpoint, capsys, upside_down
):
    command = ["explain", "--ckpt_path", checkpoint, "--save_path", "maps"]
    assert cli.main([*command, "--method", "nothing"]) == 2
    assert "upside_down" in capsys.readouterr().err


# export


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        ([], "float32"),
        (["--int8"], "int8"),
    ],
)
def test_export_writes_an_onnx_file_with_its_card(checkpoint, tmp_path, options, precision):
    command = ["export", "--ckpt_path", checkpoint, "--save_path", "tiny.onnx"]
    assert cli.main([*command, *options]) == 0
    card = json.loads((tmp_path / "tiny.json").read_text())
    assert (tmp_path / "tiny.onnx").is_file()
    assert card["precision"] == precision


def test_a_card_of_medmnist_names_the_classes():
    names = commands.class_names_of({"dataset": "pneumoniamnist"})
    assert names == ("normal", "pneumonia")


def test_a_card_of_other_images_has_no_class_names():
    assert commands.class_names_of({"dataset": "my own"}) == ()


# what may be written over


@pytest.mark.parametrize(
    "content",
    [
        '{"files": [{"name": "model.safetensors", "sha256": "00"}]}',
        '{"format": "onnx", "sha256": "00"}',
    ],
)
def test_a_card_is_recognised(tmp_path, content):
    path = tmp_path / "card.json"
    path.write_text(content)
    assert commands.is_card(path)


@pytest.mark.parametrize(
    "content",
    [
        '{"accuracy": 1, "note": "its card has a \\"sha256\\""}',
        '{"runs": [{"sha256": "00"}]}',
        '["sha256"]',
        'not JSON: "sha256"',
        "[" * 100_000,
    ],
)
def test_another_file_is_no_card(tmp_path, content):
    path = tmp_path / "scores.json"
    path.write_text(content)
    assert not commands.is_card(path)


def test_a_file_that_is_no_card_is_written_over(checkpoint, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text('{"checkpoints": [{"sha256": "00"}]}')
    assert cli.main(["evaluate", "--ckpt_path", checkpoint, "--json", str(path)]) == 0
    assert json.loads(path.read_text())["n"] == 24


# the parser


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], False),
        (["--loud"], True),
        (["--loud", "true"], True),
        (["--loud", "false"], False),
    ],
)
def test_a_flag_alone_means_true(monkeypatch, words, value):
    values = []

    def speak(loud: bool = False) -> None:
        """Say something."""
        values.append(loud)

    monkeypatch.setitem(cli.COMMANDS, "speak", speak)
    assert cli.main(["speak", *words]) == 0
    assert values == [value]


def test_other_packages_may_add_a_group_of_commands(monkeypatch, capsys):
    def speak() -> None:
        """Say something."""
        print("something")

    entry = SimpleNamespace(name="words", load=lambda: {"speak": speak})
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])
    assert cli.main(["words", "speak"]) == 0
    assert capsys.readouterr().out == "something\n"


def test_a_package_that_does_not_load_is_named_and_left_out(monkeypatch, capsys):
    def load():
        raise ImportError("no module named 'gone'")

    monkeypatch.setattr(cli, "entry_points", lambda group: [SimpleNamespace(name="bad", load=load)])
    assert "bad" not in cli.all_commands()
    expected = "swys: the command 'bad' does not load (no module named 'gone')\n"
    assert capsys.readouterr().err == expected


def test_a_package_cannot_replace_our_commands(monkeypatch, capsys):
    entry = SimpleNamespace(name="compare", value="theirs:COMPARE", load=lambda: print)
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])
    assert cli.all_commands()["compare"] is cli.COMMANDS["compare"]
    assert "'theirs:COMPARE' cannot replace the command 'compare'" in capsys.readouterr().err


def test_where_nothing_is_installed_there_are_still_our_own_commands(monkeypatch):
    monkeypatch.setattr(cli, "entry_points", lambda group: [])
    found = set(cli.all_commands())
    assert found == {"train", "distill", "evaluate", "explain", "export", "compare", "doctor"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --dataset pneumonia --save_path x", "did you mean 'pneumoniamnist'"),
        ("train --save_path x.pth", "use .safetensors"),
        ("train --save_path x.safetensors --resume", "nothing to resume"),
        ("train --save_path x --epochs 0", "--epochs is 0; it must be above 0"),
        ("train --save_path x --lr .nan", "--lr is nan; it must be above 0"),
        ("train --save_path x --seed -1", "--seed is -1; it must be 0 or above"),
        ("train --save_path /dev/null/x.safetensors", "choose another path"),
        ("distill --save_path x --method nothing", "answers, maps, features"),
        ("distill --save_path x --method labels", "with a teacher: answers, maps, features"),
        ("distill --save_path x --gamma 1", "method 'answers' has no --gamma"),
        ("distill --save_path x --method features --alpha 1", "method 'features' has no --alpha"),
        ("evaluate --ckpt_path CKPT --dataset bloodmnist", "has 2 classes, the data has 8"),
        ("evaluate --ckpt_path CKPT --model vit_base_patch16_224", "not a vit_base_patch16_224"),
        ("evaluate --ckpt_path CKPT --json CKPT/../ckpt/card.json", "is the card of"),
        ("explain --ckpt_path CKPT --save_path /dev/null/x", "choose another --save_path"),
        ("explain --ckpt_path CKPT --save_path x --images -1", "-1"),
        ("study report --runs nowhere", "'nowhere' does not exist"),
        ("study reference --only nothing", "no run matches 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(checkpoint, capsys, tmp_path, command, message):
    before = sorted(tmp_path.rglob("*"))
    words = command.replace("CKPT", checkpoint).split()
    assert cli.main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert error.startswith(f"swys {words[0]}")
    assert sorted(tmp_path.rglob("*")) == before
