"""A way to teach that ``swys distill`` adds to the series: by the teacher's last tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from swys_utils.config import SwysError
from swys_utils.data import resized
from swys_utils.distillation import Distiller, Objective, Teacher
from swys_utils.recipe import Batch, SupervisedObjective


class FeatureDistiller(Distiller):
    """The loss on the labels + the mean of 1 - cosine similarity of both models' last tokens.

    The student's tokens are projected to the teacher's width by a linear map that is trained along
    (FitNets, Romero et al. 2015).

    Args:
        teacher: a ``Teacher``, whose tokens are compared.
        labels: the loss on the labels.
        student: the model to be trained; its width decides the projector's.
    """

    teacher: Teacher

    def __init__(self, teacher: Teacher, labels: SupervisedObjective, student: VisionTransformer):
        super().__init__(teacher, labels)
        self.projector = nn.Linear(student.embed_dim, teacher.model.embed_dim)

    def check(self, student: VisionTransformer) -> None:
        """As in ``Distiller``; refuses another patch grid and dropped patches, too."""
        super().check(student)
        same_grid = self.teacher.grid == tuple(student.patch_embed.grid_size)
        dropped = getattr(student.patch_drop, "prob", 0.0)
        if not same_grid or dropped:
            raise SwysError(
                "features are compared by token; use the teacher's patches and patch_drop=0"
            )

    def forward(self, student: VisionTransformer, batch: Batch) -> Tensor:
        """The loss of ``student`` on ``batch``."""
        tokens = student.forward_features(batch.inputs)
        with torch.no_grad():
            inputs = resized(batch.inputs, self.teacher.size)
            teacher_tokens = self.teacher.model.forward_features(inputs)
        similarity = F.cosine_similarity(self.projector(tokens), teacher_tokens, dim=-1)
        loss = self.labels.loss(student.forward_head(tokens), batch.targets)
        return loss + (1 - similarity.mean())


FEATURES = Objective(
    id="features",
    title="features",
    colour="#56B4E9",
    make=FeatureDistiller,
    studied=False,
    recipe_changes={"patch_drop": 0.0},  # features are compared token by token
)
