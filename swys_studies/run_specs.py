"""The runs of the reference set, each with its recipe, in the order in which they are trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swys_utils.distillation import OBJECTIVES
from swys_utils.recipe import Recipe, reference_recipe

from .kinds import BASE, Kind, all_kinds, studied_kinds
from .runs import results_name

# settings of the objectives; one that is not named here has its default
SETTINGS = {"alpha": 0.7, "temperature": 2.0, "gamma": 1.0}
FEW_SETTINGS = {"alpha": 0.9, "temperature": 2.0, "gamma": 1.0}  # where few images have a label
MATCHING_SETTINGS = {"alpha": 1.0, "temperature": 2.0}  # no label is seen
# with half of the tokens, on two cores of an AMD EPYC
IMAGES_PER_S = {"vit_base": 31, "vit_tiny": 330}


@dataclass(frozen=True)
class RunSpec:
    """One run of the reference set.

    Attributes:
        kind: what is trained, and how it is taught.
        seed: of the initial weights, the order of the images, and which labels are hidden.
        recipe: its recipe.
        results: ``runs.results_name`` of its set.
    """

    kind: Kind
    seed: int
    recipe: Recipe
    results: str = "pneumoniamnist"

    @property
    def id(self) -> str:
        """``<model>/<method>/seed<k>``."""
        return self.kind.run_id(self.seed)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Ids of the runs that teach, or none."""
        if not OBJECTIVES[self.kind.objective].needs_teacher:
            return ()
        return tuple(teacher.format(seed=self.seed) for teacher in self.kind.teachers)

    @property
    def settings(self) -> dict[str, float]:
        """Settings of its objective."""
        chosen = FEW_SETTINGS if self.kind.label_share < 1 else SETTINGS
        if self.kind.matching:
            chosen = MATCHING_SETTINGS
        defaults = OBJECTIVES[self.kind.objective].defaults
        return {name: chosen.get(name, default) for name, default in defaults.items()}

    def cost(self, images: int) -> float:
        """Estimated seconds of training on two CPU cores.

        Args:
            images: number of training images.
        """
        # an epoch with all tokens takes twice as long as one with half of them
        full_epochs = self.recipe.full_tokens if self.recipe.patch_drop else 1
        tokens = (BASE.patch_size / self.kind.patch_size) ** 2  # as a share of Base's
        seconds_per_epoch = images * tokens / IMAGES_PER_S[self.kind.model]
        return self.recipe.epochs * (1 + full_epochs) * seconds_per_epoch


def reference_runs(dataset: str = "pneumoniamnist", patch: int = BASE.patch_size) -> list[RunSpec]:
    """The set in the order of training: one seed of each kind first, then more seeds.

    Args:
        dataset: name of the data set.
        patch: side of all models' patches, px. With others than Base's it is a smaller set of its
            own: Base, and Tiny in each way that is studied.
    """
    if patch == BASE.patch_size:
        kinds = [kind for kind in all_kinds() if kind.seeds_on(dataset)]
    else:
        kinds = [replace(kind, patch_size=patch) for kind in (BASE, *studied_kinds())]
    end = max(kind.seeds_on(dataset).stop for kind in kinds)
    all_labels = [kind for kind in kinds if kind.label_share == 1]
    few_labels = [kind for kind in kinds if kind.label_share < 1]
    runs = _seed_by_seed(all_labels, [0], dataset)
    runs += _seed_by_seed(few_labels, range(end), dataset)  # short runs
    runs += _seed_by_seed(all_labels, range(1, end), dataset)
    return [replace(run, results=results_name(dataset, patch)) for run in runs]


def _seed_by_seed(kinds: Sequence[Kind], seeds: Iterable[int], dataset: str) -> list[RunSpec]:
    """The runs of these kinds with these seeds, one seed of every kind before the next."""
    runs = []
    for seed in seeds:
        runs += [_run(kind, seed, dataset) for kind in kinds if seed in kind.seeds_on(dataset)]
    return runs


def _run(kind: Kind, seed: int, dataset: str) -> RunSpec:
    """A run with the recipe of its kind."""
    recipe = reference_recipe(kind.model, dataset)
    changes: dict[str, Any] = {**OBJECTIVES[kind.objective].recipe_changes}
    recipe = replace(recipe, **changes)
    if kind.label_share < 1:
        recipe = replace(recipe, epochs=10, warmup_epochs=1)
    if kind.epochs is not None:
        recipe = replace(recipe, epochs=kind.epochs)
    if kind.sharp:
        augmentation = replace(recipe.augmentation, rotate=0.0, scale=0.0)
        recipe = replace(recipe, augmentation=augmentation)
    if kind.strong:
        recipe = strong_recipe(recipe)
    if kind.matching:
        recipe = replace(recipe, views=0, mixup=1.0)
    if kind.whole:
        recipe = replace(recipe, patch_drop=0.0)
    return RunSpec(kind, seed, recipe)


def strong_recipe(recipe: Recipe) -> Recipe:
    """A recipe with what the shipped Tinys of 224 px had: new views, stronger and mixed.

    Args:
        recipe: length and tokens are its own.
    """
    return replace(
        recipe,
        batch_size=128,
        lr=5e-4,
        views=0,
        augmentation=replace(recipe.augmentation, jitter=0.4),
        mixup=0.4,
        drop_path=0.1,
    )
