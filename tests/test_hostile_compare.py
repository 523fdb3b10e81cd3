"""Any preprocessing, any configuration, any file as a model or as images: it works, or one line."""

import json

import numpy as np
import pytest
from compare_cases import CLASSES, FEW, brightest, images_of, labels_of
from fuzz import BYTES, FUZZ, JSON, worked_or_one_line
from hypothesis import given as for_any
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from swys import compare
from swys.compared_images import from_arrays, open_images
from swys.open_model import open_model
from swys.preprocessing import Preprocessing, from_image_processor, given

WORDS = ["size", "mean", "std", "crop", "interpolation", "=", ",", "/", "0.5", "-1", "nan", "1e999"]
FIELDS = ["size", "crop_size", "image_mean", "image_std", "resample", "do_center_crop", "crop_pct"]
SCORES = st.floats(allow_nan=True, allow_infinity=True, width=32)


@for_any(words=st.lists(st.sampled_from(WORDS), max_size=8))
@FUZZ
def test_any_preprocessing_that_is_given(words, faults):
    faults("fuzz: any preprocessing", 1)
    worked_or_one_line(given, "".join(words), Preprocessing())


@for_any(field=st.sampled_from(FIELDS), value=JSON)
@FUZZ
def test_any_field_of_a_processor(field, value, faults):
    faults("fuzz: any preprocessor_config.json", 1)
    config = {"size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, field: value}
    worked_or_one_line(from_image_processor, config)


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors", "config.json", "card.json"])
@for_any(content=BYTES)
@FUZZ
def test_any_bytes_as_a_model(tmp_path_factory, name, content, faults):
    faults("fuzz: any bytes as a model to compare", 1)
    folder = tmp_path_factory.getbasetemp() / f"model-{name}"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    path = folder / name if name.startswith("m.") else folder
    assert not worked_or_one_line(open_model, str(path))


@for_any(field=st.sampled_from(["architectures", "architecture", "model_type"]), value=JSON)
@FUZZ
def test_any_config_of_a_folder(tmp_path_factory, field, value, faults):
    faults("fuzz: any config.json of a folder to compare", 1)
    folder = tmp_path_factory.getbasetemp() / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({field: value}))
    assert not worked_or_one_line(open_model, str(folder))


@for_any(content=BYTES)
@FUZZ
def test_any_bytes_as_images(tmp_path_factory, content, faults):
    faults("fuzz: any bytes as images to compare on", 1)
    path = tmp_path_factory.getbasetemp() / "x.npz"
    path.write_bytes(content)
    assert not worked_or_one_line(open_images, str(path))


@for_any(
    images=arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=4)),
    labels=arrays(np.int64, array_shapes(max_dims=2, max_side=4), elements=st.integers(-2, 5)),
)
@FUZZ
def test_any_arrays(images, labels, faults):
    faults("fuzz: any arrays to compare on", 1)
    worked_or_one_line(from_arrays, images, labels)


@for_any(scores=arrays(np.float32, array_shapes(max_dims=3, max_side=4), elements=SCORES))
@FUZZ
def test_any_scores_of_a_model(scores, faults):
    faults("fuzz: any scores of a model to compare", 1)
    images = images_of(labels_of(3))
    worked_or_one_line(compare, brightest, lambda batch: scores, images, effort=FEW)


@for_any(scores=arrays(np.float32, (3, CLASSES), elements=st.floats(-1e6, 1e6, width=32)))
@FUZZ
def test_any_finite_scores_are_compared(scores, faults):
    faults("fuzz: any finite scores are compared", 1)

    def answer(batch):
        return np.resize(scores, (len(batch), CLASSES))

    images = images_of(labels_of(3))
    assert worked_or_one_line(compare, brightest, answer, images, labels_of(3), effort=FEW)
