"""The kinds of run of the reference set: which model is taught, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

from swys_utils.distillation import OBJECTIVES
from swys_utils.models import SERIES
from swys_utils.recipe import reference_recipe

from .resnet import resnet_id


@dataclass(frozen=True)
class Kind:
    """A kind of run: one model taught in one way, with several seeds.

    Attributes:
        title: its name in tables and figures.
        model: name of the model for ``models.create_model``; the first part of the ids of its runs.
        method: the second part of these ids.
        objective: how the model is taught, an id in ``distillation.OBJECTIVES``.
        patch_size: side of a patch, px.
        label_share: share of the training images that keep their label.
        teachers: ids of the runs that teach, or names of shipped models, where the objective has a
            teacher; the mean of their answers is taught. ``{seed}`` stands for the run's own seed.
        seeds: number of its runs in the reference set of PneumoniaMNIST.
        seeds_elsewhere: number of its runs in the reference set of another data set.
        first_seed: seed of the first of them. A student whose maps are compared must not begin with
            the random weights of its teacher: their maps would agree for no other reason.
        start: added to the seed where initial weights are drawn.
        epochs: length of its schedule; None for that of its recipe.
        sharp: its views are neither turned nor scaled, so that no interpolation blurs them.
        strong: it learns by the recipe of the shipped Tinys of 224 px, see
            ``run_specs.strong_recipe``.
        matching: it learns nothing but its teachers' answers, to new, mixed views in every pass.
        whole: it is shown every patch in every step; Base and the others, half of them in most.
        encoders: number of masked autoencoders, pretrained on the same images, from which its runs
            start in turn; 0: they start from random weights.
    """

    title: str
    model: str
    method: str
    objective: str
    patch_size: int
    label_share: float = 1.0
    teachers: tuple[str, ...] = ("vit_base/labels/seed0",)
    seeds: int = 4
    seeds_elsewhere: int = 3
    first_seed: int = 0
    start: int = 0
    epochs: int | None = None
    sharp: bool = False
    strong: bool = False
    matching: bool = False
    whole: bool = False
    encoders: int = 0

    def run_id(self, seed: int) -> str:
        """``<model>/<method>/seed<k>``: also the path of its files in a folder of runs.

        Args:
            seed: seed of the run.
        """
        return f"{self.model}/{self.method}/seed{seed}"

    def seeds_on(self, dataset: str) -> range:
        """Seeds of its runs in the reference set of a data set.

        Args:
            dataset: name of the data set.
        """
        count = self.seeds if dataset == "pneumoniamnist" else self.seeds_elsewhere
        return range(self.first_seed, self.first_seed + count)


BASE = Kind(
    title=SERIES["vit_base"].title,
    model="vit_base",
    method="labels",
    objective="labels",
    patch_size=SERIES["vit_base"].patch_size,
    seeds=4,
    seeds_elsewhere=2,
)
TINY = Kind(
    title=SERIES["vit_tiny"].title,
    model="vit_tiny",
    method="labels",
    objective="labels",
    patch_size=SERIES["vit_tiny"].patch_size,
)
# Is it the size, or that Base sees each image twelve times? A whole schedule as long as Base's.
AS_LONG_AS_BASE = replace(
    TINY,
    title=f"{TINY.title}, as many passes as Base",
    method="labels_12",
    seeds_elsewhere=2,
    epochs=reference_recipe(BASE.model).epochs,
)
# ... and Base with a whole schedule as long as Tiny's
AS_LONG_AS_TINY = replace(
    BASE,
    title=f"{BASE.title}, as many passes as Tiny",
    method="labels_30",
    seeds=1,
    seeds_elsewhere=0,
    epochs=reference_recipe(TINY.model).epochs,
)
# Is it the size, or that turning and scaling blur a picture of 28 px?
SHARP_BASE = replace(
    BASE,
    title=f"{BASE.title}, views without blur",
    method="labels_sharp",
    seeds=2,
    seeds_elsewhere=0,
    sharp=True,
)
SHARP_TINY = replace(
    TINY,
    title=f"{TINY.title}, views without blur",
    method="labels_sharp",
    seeds_elsewhere=0,
    sharp=True,
)
# Is it the size, or a recipe that is too short and too mild?
STRONG_TINY = replace(
    TINY,
    title=f"{TINY.title}, a hundred passes of mixed views",
    method="labels_strong",
    seeds=2,
    seeds_elsewhere=2,
    epochs=100,
    strong=True,
)
# Is it the size, or that a ViT is shown half of each picture in most steps?
WHOLE_TINY = replace(
    TINY,
    title=f"{TINY.title}, whole pictures in every step",
    method="labels_whole",
    seeds=2,
    seeds_elsewhere=0,
    whole=True,
)
# ... and both: the whole recipe of the Tinys of 224 px, on patches of 4 px
STRONG_WHOLE_TINY = replace(
    STRONG_TINY,
    title=f"{STRONG_TINY.title}, whole pictures",
    method="labels_strong_whole",
    seeds_elsewhere=0,
    whole=True,
)
# Is it the size, or that so few images have so few labels to learn from?
MASKED_TINY = replace(
    TINY,
    title=f"{TINY.title}, masked pretraining first",
    method="labels_masked",
    seeds=1,
    seeds_elsewhere=0,
    encoders=1,
)
MASKED_SHARP_BASE = replace(
    SHARP_BASE,
    title=f"{SHARP_BASE.title}, masked pretraining first",
    method="labels_sharp_masked",
    seeds=1,
    encoders=1,
)
MASKED_SHARP_TINY = replace(
    SHARP_TINY,
    title=f"{SHARP_TINY.title}, masked pretraining first",
    method="labels_sharp_masked",
    seeds=1,
    encoders=1,
)
ANSWERS_16_TOKENS = Kind(
    title=SERIES["vit_tiny_answers_p7"].title,
    model="vit_tiny",
    method="answers_p7",
    objective="answers",
    patch_size=SERIES["vit_tiny_answers_p7"].patch_size,
    seeds=1,
    seeds_elsewhere=0,
)
FEW_LABELS = replace(
    TINY,
    title=f"{TINY.title}, 1 % of the labels",
    method="few_labels",
    label_share=0.01,
)
FEW_ANSWERS = replace(
    FEW_LABELS,
    title=f"{SERIES['vit_tiny_answers'].title}, 1 % of the labels",
    method="few_answers",
    objective="answers",
)
# Is it Base that helps, or the images without a label? Here the teacher knows these labels only,
# and has begun with other random weights.
FEW_CONTROL = replace(
    FEW_ANSWERS,
    title=f"{TINY.title}, answers of a Tiny with the same 1 % of the labels",
    method="few_control",
    teachers=("vit_tiny/few_labels/seed{seed}",),
    start=100,
)
TWO_TEACHERS = replace(
    TINY,
    title=f"{TINY.title}, answers of two Bases",
    method="answers_of_two",
    objective="answers",
    teachers=("vit_base/labels/seed0", "vit_base/labels/seed1"),
)
# Do Base's answers hand on its own reasons, or would those of any Base do?
ANOTHER_TEACHER = replace(
    TWO_TEACHERS,
    title=f"{TINY.title}, answers of another Base",
    method="answers_of_another",
    teachers=("vit_base/labels/seed1",),
    seeds=2,
    seeds_elsewhere=0,
)
# Is it what Bases have in common, or what any teacher's soft answers do?
TINY_TEACHER = replace(
    ANOTHER_TEACHER,
    title=f"{TINY.title}, answers of another Tiny",
    method="answers_of_tiny",
    teachers=("vit_tiny/labels/seed2",),
)
# the same of the shipped Tiny, whose reasons are the nearest to Base
OUR_TINY_TEACHER = replace(
    TINY_TEACHER,
    title=f"{TINY.title}, answers of our Tiny",
    method="answers_of_our_tiny",
    teachers=("vit_tiny/labels/seed0",),
    first_seed=1,
)
# Does a better teacher hand on more? These two see the same images, enlarged to 224 px and so in
# 196 patches, and had longer schedules and stronger views; one was itself taught by a large model.
# (Their views are made at 224 px: a shift is rounded to whole pixels of either size, so teacher and
# student are apart by a quarter of a pixel of 28 on average, and by at most half of one.)
BETTER_TEACHERS = replace(
    TWO_TEACHERS,
    title=f"{TINY.title}, answers of two Tinys with 196 patches",
    method="answers_of_196",
    teachers=("vit_tiny_patch16_224", "vit_tiny_patch16_224_kd"),
    seeds_elsewhere=0,
)
# Does a teacher of another architecture hand on more? ``resnet`` trains it where it is missing.
RESNET_TEACHERS = replace(
    TWO_TEACHERS,
    title=f"{TINY.title}, answers of two ResNets",
    method="answers_of_resnets",
    teachers=(resnet_id(0), resnet_id(1)),
    seeds=2,
    seeds_elsewhere=0,
)
# ... and if it is asked about far more than the training images? Their labels say what a teacher
# answers there, so it is asked between them: "function matching" (Beyer et al. 2022).
MATCHING_RESNETS = replace(
    RESNET_TEACHERS,
    title=f"{TINY.title}, answers of two ResNets to mixed views",
    method="answers_matching",
    epochs=60,
    matching=True,
    whole=True,
)
ORIGINAL = Kind(
    title="Tiny, the earlier project's recipe",
    model="vit_tiny_patch16_224",
    method="original",
    objective="labels",
    patch_size=SERIES["vit_tiny_patch16_224"].patch_size,
    seeds=0,  # `swys study original` trains it
    seeds_elsewhere=0,
)


def studied_kinds() -> list[Kind]:
    """Tiny, taught in each way of ``distillation.OBJECTIVES`` that is studied over seeds."""
    kinds = []
    for objective in OBJECTIVES.values():
        if objective.id == TINY.objective:
            kinds.append(TINY)
        elif objective.studied:
            title = f"{TINY.title}, {objective.title}"
            kinds.append(replace(TINY, title=title, method=objective.id, objective=objective.id))
    return kinds


def student_kinds() -> list[Kind]:
    """Tiny, taught in each way whose maps are compared with Base's."""
    other_teachers = [ANOTHER_TEACHER, TINY_TEACHER, OUR_TINY_TEACHER]
    other_teachers += [BETTER_TEACHERS, RESNET_TEACHERS]
    return [*studied_kinds(), TWO_TEACHERS, *other_teachers]


def all_kinds() -> list[Kind]:
    """Every kind of run, in the order of the tables."""
    many_labels = [BASE, *studied_kinds(), TWO_TEACHERS, ANOTHER_TEACHER, TINY_TEACHER]
    many_labels += [OUR_TINY_TEACHER, BETTER_TEACHERS, RESNET_TEACHERS, MATCHING_RESNETS]
    many_labels += [ANSWERS_16_TOKENS, AS_LONG_AS_BASE, AS_LONG_AS_TINY]
    many_labels += [SHARP_BASE, SHARP_TINY, STRONG_TINY, WHOLE_TINY, STRONG_WHOLE_TINY]
    many_labels += [MASKED_TINY, MASKED_SHARP_BASE, MASKED_SHARP_TINY]
    few_labels = [FEW_LABELS, FEW_ANSWERS, FEW_CONTROL]
    return [*many_labels, *few_labels, ORIGINAL]


def taught_pairs() -> list[tuple[Kind, Kind]]:
    """The pairs whose difference is reported, as (later, earlier).

    Each taught student is compared with Tiny, then with each student that stands before it in
    ``studied_kinds``.
    """
    taught = [kind for kind in studied_kinds() if kind != TINY]
    pairs = [(kind, TINY) for kind in taught]
    for earlier, later in combinations(taught, 2):
        pairs.append((later, earlier))
    return pairs


def kind_of(entry: dict) -> Kind | None:
    """The kind of a finished run; None when it is none of ``all_kinds``.

    Args:
        entry: entry of runs.json, as ``read_runs`` returns it.
    """
    for kind in all_kinds():
        if kind.run_id(entry["seed"]) == entry["id"]:
            return kind
    return None
