"""The model that a network has to beat: logistic regression on pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from .data import Dataset, Split
from .metrics import point_scores

TRAINING_IMAGES = 5000  # more take longer and change little


def linear_line(data: Dataset, shown: Split) -> dict[str, dict[str, float]]:
    """Scores of notebook 1's linear model on pixels, as a ``baseline`` for ``plots.LiveCurve``.

    Args:
        data: the model is trained on images of ``data.train``, once in a process.
        shown: the images that are scored.

    Returns:
        The model's name -> "accuracy", "auc" and "ece" as fractions in [0, 1].
    """
    logits = linear_logits(data, shown.images)
    scores = point_scores(logits, shown.labels, data.info.task)
    return {"linear model on pixels": scores}


def linear_logits(data: Dataset, images: np.ndarray) -> np.ndarray:
    """Answers of notebook 1's linear model on pixels.

    Args:
        data: the model is trained on images of ``data.train``, once in a process.
        images: uint8, (N, H, W) or (N, H, W, 3).

    Returns:
        Float (N, C), one logit a class, as a network would give them.
    """
    model = _linear_model(data.train)
    probabilities = np.zeros((len(images), data.info.num_classes))
    probabilities[:, model.classes_] = model.predict_proba(images)  # a sample may lack a class
    probabilities = probabilities.clip(1e-6, 1 - 1e-6)
    logits = np.log(probabilities)
    if data.info.multi_label:
        logits = logits - np.log(1 - probabilities)
    return logits


@lru_cache(maxsize=1)
def _linear_model(train: Split) -> Pipeline:
    """The trained model: pixels as one row, each standardised, one logistic regression a class."""
    sample = train.sample(TRAINING_IMAGES)
    classifier = LogisticRegression(C=0.01, max_iter=100)
    model = make_pipeline(
        FunctionTransformer(_as_rows),
        StandardScaler(),
        OneVsRestClassifier(classifier),
    )
    return model.fit(sample.images, sample.labels)


def _as_rows(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W[, 3]) as float32 (N, pixels)."""
    return images.reshape(len(images), -1).astype(np.float32)
