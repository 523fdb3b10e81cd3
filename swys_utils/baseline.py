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


def linear_line(data: Dataset, shown: Split) -> dict[str, dict[str, float]]:
    """Notebook 1's linear model on pixels as a ``baseline``: its scores on ``shown``, fractions."""
    p = _linear_model(data.train).predict_proba(shown.images).clip(1e-6, 1 - 1e-6)
    logits = np.log(p) - data.info.multi_label * np.log(1 - p)
    return {"linear model on pixels": point_scores(logits, shown.labels, data.info.task)}


@lru_cache(maxsize=1)
def _linear_model(train: Split) -> Pipeline:
    some, flat = (
        train.head(5000),
        FunctionTransformer(lambda x: x.reshape(len(x), -1).astype(np.float32)),
    )
    linear = OneVsRestClassifier(LogisticRegression(C=0.01, max_iter=100))
    return make_pipeline(flat, StandardScaler(), linear).fit(some.images, some.labels)
