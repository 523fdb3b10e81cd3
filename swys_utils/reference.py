"""The reference runs: which models were trained how, one resumable command that repeats it, and the tests behind
every claimed difference. Also the benchmark of the training pipeline itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from medmnist.evaluator import getACC
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .benchmark import count_macs
from .config import SwysError, default_device, fast_bf16, seed_everything, unknown
from .data import Dataset, Split, load_dataset
from .distillation import ExplanationDistiller, FeatureDistiller, SoftTargetDistiller
from .models import SHORT_NAMES, create_model, load_checkpoint, save_checkpoint, weights_digest, write_json
from .stats import mcnemar
from .training import (
    ORIGINAL,
    TURNED,
    Recipe,
    auc,
    build,
    calibration_error,
    fit,
    predict,
    probabilities,
    reference_recipe,
    run_card,
    supervised_objective,
)

# --- what is trained -------------------------------------------------------------------------------------------

SOFT = {"alpha": 0.7, "temperature": 2.0}
METHODS: dict[str, tuple[type | None, dict]] = {
    "scratch": (None, {}),
    "original": (None, {}),
    "kd_soft": (SoftTargetDistiller, SOFT),
    "kd_features": (FeatureDistiller, {"alpha": 0.0, "beta": 1.0}),
    "kd_explain": (ExplanationDistiller, {**SOFT, "gamma": 1.0}),
    "kd_features_frozen": (FeatureDistiller, {"alpha": 0.0, "beta": 1.0, "train_projector": False}),
}  # method -> (objective, its settings); the objectives without a teacher learn from labels alone


@dataclass(frozen=True)
class RunSpec:
    """One run: ``id`` is ``<model>/<method>/seed<k>``, ``teacher`` the id of the run whose weights teach, or None.

    ``model`` is a timm name, ``model_kwargs`` what ``create_model`` takes besides.
    """

    id: str
    model: str
    method: str
    seed: int
    recipe: Recipe
    teacher: str | None = None
    model_kwargs: dict = field(default_factory=dict)


def reference_runs(dataset: str = "pneumoniamnist", base_seeds: int = 3, tiny_seeds: int = 5) -> list[RunSpec]:
    """The reference set in the order in which it is trained: the teacher, then seed 0 of every method, then the rest.

    Base and Tiny alone, both by the recipe of the earlier project of this name, and Tiny taught by Base seed 0 in
    three ways; once more with the frozen random projector of the earlier project.
    """

    def spec(model: str, method: str, seed: int) -> RunSpec:
        recipe = ORIGINAL if method == "original" else reference_recipe(model, dataset)
        teacher = "vit_base/scratch/seed0" if method.startswith("kd") else None
        return RunSpec(f"{model}/{method}/seed{seed}", model, method, seed, recipe, teacher)

    taught = ("kd_soft", "kd_explain", "kd_features")
    runs = [spec("vit_base", "scratch", 0), spec("vit_tiny", "scratch", 0)]
    runs += [spec("vit_tiny", method, 0) for method in taught]
    runs += [spec("vit_base", "scratch", 1)] if base_seeds > 1 else []
    for seed in range(1, tiny_seeds):
        runs += [spec("vit_tiny", method, seed) for method in ("scratch", *taught)]
        if seed == 1:
            runs += [spec("vit_base", "scratch", k) for k in range(2, base_seeds)]
            runs += [spec("vit_tiny", "kd_features_frozen", 0)]
            runs += [spec("vit_tiny", "original", 0), spec("vit_base", "original", 0)]
    return runs


POCKET = {"pocket_base": {"embed_dim": 128, "num_heads": 8}, "pocket_tiny": {"embed_dim": 48, "num_heads": 3}}
POCKET_GRID = {"img_size": 28, "patch_size": 4, "depth": 6}


def pocket_runs(dataset: str = "pneumoniamnist", base_seeds: int = 3, tiny_seeds: int = 5) -> list[RunSpec]:
    """The question of the series at pocket size: two CPU cores train these 18 models in an hour or two.

    Six blocks on 49 patches of the native 28 px; a teacher 128 wide (1.2 M parameters) and students 48 wide (0.17 M),
    alone and taught by teacher seed 0. Several seeds of both give what the full-size pair cannot without a GPU: how far
    equal runs differ (floor), and how alike two teachers are (ceiling).
    """
    turned = dataset in TURNED
    short = Recipe("pocket", epochs=6 if turned else 16, batch_size=32, warmup_epochs=1, turns=turned, scale=0.1,
                   rotate=10, jitter=0.2 if turned else 0.3, mixup=0, drop_path=0)  # fmt: skip

    def spec(model: str, method: str, seed: int) -> RunSpec:
        recipe = replace(short, lr=5e-4 if model == "pocket_base" else 1e-3)
        teacher = "pocket_base/scratch/seed0" if method.startswith("kd") else None
        kwargs = {**POCKET[model], **POCKET_GRID}
        return RunSpec(f"{model}/{method}/seed{seed}", "vit_tiny_patch16_224", method, seed, recipe, teacher, kwargs)

    runs = [spec("pocket_base", "scratch", seed) for seed in range(min(2, base_seeds))]
    for seed in range(tiny_seeds):
        runs += [spec("pocket_tiny", method, seed) for method in ("scratch", "kd_soft", "kd_explain")]
    return runs + [spec("pocket_base", "scratch", seed) for seed in range(2, base_seeds)]


def objective_for(
    method: str, data: Dataset, recipe: Recipe, student: VisionTransformer, teacher: VisionTransformer | None
) -> nn.Module:
    """The loss of a method, with its reference settings.

    Raises:
        SwysError: unknown method, or a method with a teacher without one.
    """
    if method not in METHODS:
        raise SwysError(unknown("method", method, METHODS))
    kind, settings = METHODS[method]
    labels = supervised_objective(data, recipe)
    if kind is None:
        return labels
    if teacher is None:
        raise SwysError(f"method '{method}' needs a teacher; train vit_base/scratch/seed0 first")
    extra = {"student": student} if kind is FeatureDistiller else {}
    return kind(teacher, labels, **extra, **settings)


# --- a second validation set, further away ---------------------------------------------------------------------


def shifted_validation(split: Split) -> Split:
    """Validation images as another site's scanner might show them, seven versions of each; labels repeated.

    Darker, brighter, flatter, harder, two gamma curves and blurred: strong, fixed, no randomness. Recipes are judged on
    these and on plain validation, never on test. It is a proxy: it rewards augmentation that resembles it.

    Returns:
        Split with images uint8 (7 N, H, W[, 3]).
    """
    x = torch.as_tensor(np.ascontiguousarray(split.images)).float() / 255
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    line = torch.exp(-0.5 * torch.arange(-3.0, 4.0) ** 2)  # standard deviation 1 px at 28 px
    kernel = (line[:, None] * line[None] / line.sum() ** 2).expand(x.shape[1], 1, 7, 7)
    versions = [
        x * 0.6,
        1 - (1 - x) * 0.6,
        (x - mean) * 0.5 + mean,
        (x - mean) * 1.6 + mean,
        x**0.5,
        x**2,
        F.conv2d(F.pad(x, (3, 3, 3, 3), mode="replicate"), kernel, groups=x.shape[1]),
    ]
    pixels = (torch.cat(versions).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = pixels[:, 0] if split.images.ndim == 3 else pixels.permute(0, 2, 3, 1)
    return Split(pixels.numpy(), np.concatenate([split.labels] * len(versions)))


def point_scores(scores: np.ndarray, labels: np.ndarray, task: str) -> dict[str, float]:
    """Accuracy and AUC as medmnist has them, ECE and balanced accuracy of probabilities (N, C), without intervals."""
    result = {
        "accuracy": float(getACC(labels, scores, task)),
        "auc": auc(labels, scores, task),
        "ece": calibration_error(scores, labels),
    }
    if labels.ndim == 1:
        correct = scores.argmax(axis=1) == labels
        result["balanced_accuracy"] = float(np.mean([correct[labels == k].mean() for k in np.unique(labels)]))
    return result


# --- training them ---------------------------------------------------------------------------------------------


def reproduce(
    dataset_name: str = "pneumoniamnist",
    out: str | Path = "runs/reference",
    *,
    budget_s: float = 0,
    only: Iterable[str] | str | None = None,
    device: torch.device | str | None = None,
    compile_mode: str | None = None,
    cuda_graph: bool = False,
    data: Dataset | None = None,
    runs: list[RunSpec] | None = None,
    keep_state: bool | None = None,
    model_kwargs: dict | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train the reference set; what is done is skipped, so the same command goes on after a stop or a kill.

    Each finished run is written at once: ``<id>.safetensors`` with its card, ``<id>.npz`` (float16 probabilities of
    validation, shifted validation and test, of the last and of the validation-chosen epoch, and labels) and its entry
    in ``runs.json``. A teacher is used as it is stored.

    Args:
        out: folder of the results.
        budget_s: stop after about so many seconds, inside a run at the end of an epoch; 0 is no limit.
        only: ids, or parts of ids, of the runs to train (and the teacher they need).
        compile_mode, cuda_graph: see :func:`swys_utils.training.fit`.
        data, runs, model_kwargs: another data set, other runs, arguments of ``create_model``: for tests.
        keep_state: save each minute what resuming inside a run needs; default: on a CPU, or with a budget.

    Returns:
        The entries of ``runs.json``.

    Raises:
        SwysError: nothing matches ``only``, or the folder holds runs of other data, initial weights or recipes.
    """
    start = time.monotonic()
    out, device = Path(out), torch.device(device or default_device())
    data = data or load_dataset(dataset_name)
    runs = runs or reference_runs(dataset_name)
    keep_state = keep_state if keep_state is not None else device.type == "cpu" or bool(budget_s)
    wanted = _wanted(runs, only)
    shifted = None if data.info.multi_label else shifted_validation(data.val)
    check_dataset(out, dataset_name)
    done = {entry["id"]: entry for entry in read_runs(out)}
    trained, speed = 0, {"compile_mode": compile_mode, "cuda_graph": cuda_graph}
    for number, spec in enumerate(wanted, start=1):
        if spec.id in done:
            _check_same(done[spec.id], spec)
            continue
        remaining = budget_s - (time.monotonic() - start) if budget_s else 0
        if not trained:  # each call gets at least one epoch further
            remaining = max(remaining, 1e-3) if budget_s else 0
        elif budget_s and remaining <= 0:
            print(f"budget of {budget_s:.0f} s used up before {spec.id}; the same command goes on from here")
            break
        print(f"[{number}/{len(wanted)}] {spec.id}: {spec.recipe.epochs} epochs on {_device_name(device)}", flush=True)
        entry = _train_one(
            spec, data, shifted, out, device, remaining, speed, keep_state, model_kwargs or {}, done, progress
        )
        if entry is None:
            print(f"budget of {budget_s:.0f} s used up inside {spec.id}; the same command goes on from here")
            break
        done[spec.id] = entry
        trained += 1
        _write_runs(out, dataset_name, data)
        print(
            f"    {entry['seconds']:.0f} s, {entry['images_per_s']:.0f} img/s; validation {entry['val_accuracy']:.1%}",
            flush=True,
        )
    return read_runs(out)


def _train_one(
    spec: RunSpec,
    data: Dataset,
    shifted: Split | None,
    out: Path,
    device: torch.device,
    budget_s: float,
    speed: dict,
    keep_state: bool,
    model_kwargs: dict,
    done: dict[str, dict],
    progress: bool,
) -> dict | None:
    """Train, score and write one run; None when the budget ended first."""
    start = time.monotonic()
    model_kwargs = {**spec.model_kwargs, **model_kwargs}
    model = build(spec.model, data, spec.recipe, spec.seed, **model_kwargs)
    digest = weights_digest(model)
    for entry in done.values():
        if (model_of(entry["id"]), entry["seed"]) == (model_of(spec.id), spec.seed):
            if entry["initial_weights"] != digest:
                raise SwysError(
                    f"{spec.id} starts from other weights ({digest}) than {entry['id']} ({entry['initial_weights']});"
                    " runs of two library versions do not mix: use another --save_path"
                )
    teacher = load_checkpoint(_weights(out, spec.teacher), device)[0] if spec.teacher else None
    seed_everything(spec.seed)  # a projector starts from the seed, too
    objective = objective_for(spec.method, data, spec.recipe, model, teacher)
    state = out / "unfinished" / f"{spec.id.replace('/', '-')}.safetensors"
    result = fit(
        model,
        data,
        spec.recipe,
        objective=objective,
        seed=spec.seed,
        device=device,
        save_path=state if keep_state else None,
        resume=keep_state and state.with_suffix(".state.safetensors").is_file(),
        budget_s=budget_s,
        progress=progress,
        **speed,
    )
    if not result.finished:
        return None
    train_seconds = time.monotonic() - start

    arrays, scores = {}, {}
    splits = {"val": data.val, "test": data.test} | ({"shifted": shifted} if shifted else {})
    for when, trained in (("last", result.model), ("val_chosen", result.val_chosen_model())):
        for name, split in splits.items():
            if (name, when) == ("shifted", "val_chosen"):
                continue
            amp = name == "shifted"  # many images, and only compared among themselves
            p = probabilities(predict(trained, split.images, device=device, amp=amp, progress=False), data.info.task)
            arrays[f"{name}_{when}"] = p.astype(np.float16)
            scores[f"{name}_{when}"] = point_scores(p.astype(np.float64), split.labels, data.info.task)
    arrays |= {"val_labels": data.val.labels.astype(np.uint8), "test_labels": data.test.labels.astype(np.uint8)}

    objective_settings = METHODS[spec.method][1]
    speeds = [row["images_per_s"] for row in result.history[1:] or result.history]
    entry = {
        "id": spec.id,
        "model": SHORT_NAMES.get(spec.model, spec.model),
        "method": spec.method,
        "seed": spec.seed,
        "recipe": {**asdict(spec.recipe), **objective_settings},
        "teacher": spec.teacher,
        "initial_weights": digest,
        "val_accuracy": scores["val_last"]["accuracy"],
        "last": scores["test_last"],
        "val_chosen": {**scores["test_val_chosen"], "epoch": result.best_epoch["epoch"]},
        "validation": {"last": scores["val_last"], "val_chosen": scores["val_val_chosen"]},
        "shifted_validation": scores.get("shifted_last"),
        "epochs_run": len(result.history),
        "seconds": round(train_seconds, 1),
        "images_per_s": round(float(np.median(speeds)), 1),
        "device": _device_name(device),
        "history": [{k: round(v, 6) for k, v in row.items()} for row in result.history],
    }
    # the smaller of two forms for what is only compared, the finer one for what is shipped
    storage = "int8" if "base" in spec.model or spec.seed else "fp16"
    card = {
        **run_card(data, spec.recipe, spec.seed, result.history),
        **{key: entry[key] for key in ("id", "model", "method", "teacher", "last", "val_chosen", "initial_weights")},
        "val_accuracy": entry["val_accuracy"],
        "recipe": entry["recipe"],
        "trained_on": entry["device"],
    }
    if model_kwargs:
        card["model_kwargs"] = {k: v for k, v in model_kwargs.items() if k != "img_size"}
    weights = _weights(out, spec.id)
    save_checkpoint(result.model, weights, card, storage=storage)
    stored, _ = load_checkpoint(weights, device)
    p = probabilities(predict(stored, data.test.images, device=device, progress=False), data.info.task)
    card["stored"] = point_scores(p.astype(np.float64), data.test.labels, data.info.task)
    save_checkpoint(result.model, weights, card, storage=storage)

    with open(out / f"{spec.id}.npz.part", "wb") as file:
        np.savez_compressed(file, **arrays)
    (out / f"{spec.id}.npz.part").replace(out / f"{spec.id}.npz")
    entry["stored"] = card["stored"]
    write_json(out / f"{spec.id}.run.json", entry)  # last: this file says that the run is done
    if state.parent.is_dir():
        for left in state.parent.glob(f"{state.stem}.*"):
            left.unlink()
    return entry


def read_runs(out: str | Path) -> list[dict]:
    """Entries of the finished runs in a folder, or of a ``runs.json`` / ``reference_runs.json``; oldest first."""
    out = Path(out)
    try:
        if out.is_file():
            return json.loads(out.read_text())["runs"]
        entries = [(path.stat().st_mtime, json.loads(path.read_text())) for path in out.glob("*/*/*.run.json")]
    except (OSError, ValueError, KeyError) as error:
        raise SwysError(f"'{out}' cannot be read as runs ({error}); remove the damaged file, its run repeats") from None
    return [entry for _, entry in sorted(entries, key=lambda pair: (pair[0], pair[1]["id"]))]


def check_dataset(out: Path, dataset_name: str) -> None:
    """Refuse a folder whose runs are of another data set: their ids would be the same."""
    if (out / "runs.json").is_file():
        stored = json.loads((out / "runs.json").read_text())["dataset"]
        if stored != dataset_name:
            raise SwysError(f"'{out}' holds runs of {stored}, not {dataset_name}; use another --save_path")


def _write_runs(out: Path, dataset_name: str, data: Dataset) -> None:
    content = {
        "dataset": dataset_name,
        "source": data.info.source,
        "splits": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "versions": {"torch": torch.__version__},
        "runs": read_runs(out),
    }
    write_json(out / "runs.json", content)


def _weights(out: Path, run_id: str) -> Path:
    return out / f"{run_id}.safetensors"


def _wanted(runs: list[RunSpec], only: Iterable[str] | str | None) -> list[RunSpec]:
    if not only:
        return runs
    parts = [only] if isinstance(only, str) else list(only)
    chosen = [run for run in runs if any(part in run.id for part in parts)]
    if not chosen:
        raise SwysError(f"no run matches '{', '.join(parts)}'; ids look like {runs[0].id}, {runs[1].id}")
    teachers = {run.teacher for run in chosen}
    return [run for run in runs if run in chosen or run.id in teachers]


def _check_same(entry: dict, spec: RunSpec) -> None:
    wanted = {**asdict(spec.recipe), **METHODS[spec.method][1]}
    other = [key for key, value in wanted.items() if entry["recipe"].get(key, value) != value]
    if other:
        what = ", ".join(f"{key} {entry['recipe'][key]} -> {wanted[key]}" for key in other)
        raise SwysError(f"{spec.id} was trained by another recipe ({what}); use another --save_path")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


# --- what the runs say -----------------------------------------------------------------------------------------

COMPARISONS = (
    (("tiny", "kd_soft"), ("tiny", "scratch")),
    (("tiny", "kd_features"), ("tiny", "scratch")),
    (("tiny", "kd_explain"), ("tiny", "scratch")),
    (("tiny", "kd_explain"), ("tiny", "kd_soft")),
    (("tiny", "kd_features"), ("tiny", "kd_features_frozen")),
    (("base", "scratch"), ("tiny", "scratch")),
    (("tiny", "scratch"), ("tiny", "original")),
    (("base", "scratch"), ("base", "original")),
)
LABELS = {
    "scratch": "alone",
    "original": "the earlier project's recipe",
    "kd_soft": "taught by soft targets",
    "kd_features": "taught by features",
    "kd_explain": "taught by explanations and soft targets",
    "kd_features_frozen": "taught by features, projector never trained",
}


def report(runs_folder: str | Path) -> str:
    """Markdown: every method with mean and spread over seeds, then every comparison with its interval and tests.

    Intervals are 95 % percentile bootstrap over test images and, where there are several, over seeds; comparisons are
    paired (same images; same seed, hence same initial weights and order of batches). McNemar's test is on seed 0.
    Headline: last epoch of the fixed schedule; the validation-chosen epoch beside it.

    Raises:
        SwysError: no finished run in the folder.
    """
    folder = Path(runs_folder)
    groups = _correct_by_method(folder, "last")
    if not groups:
        raise SwysError(f"no finished run in '{folder}'; run 'swys reproduce --save_path {folder}' first")
    entries = read_runs(folder)
    chosen = _correct_by_method(folder, "val_chosen")
    lines = [
        "| model | trained | seeds | test accuracy, last epoch | 95 % interval | AUC | ECE "
        "| validation | test accuracy, validation-chosen epoch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (model, method), rows in sorted(groups.items(), key=lambda item: (item[0][0], list(METHODS).index(item[0][1]))):
        mine = [e for e in entries if (model_of(e["id"]), e["method"]) == (model, method)]
        low, high = accuracy_interval(np.stack(list(rows.values())))
        lines.append(
            f"| {model} | {LABELS[method]} | {len(mine)} | {_spread([100 * e['last']['accuracy'] for e in mine])} "
            f"| {100 * low:.1f} to {100 * high:.1f} | {_spread([e['last']['auc'] for e in mine], 3)} "
            f"| {_spread([e['last']['ece'] for e in mine], 3)} | {_spread([100 * e['val_accuracy'] for e in mine])} "
            f"| {_spread([100 * e['val_chosen']['accuracy'] for e in mine])} |"
        )
    lines += [
        "",
        "| comparison (test accuracy, last epoch) | pairs of seeds | difference, points | 95 % interval "
        "| McNemar, seed 0 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for family in sorted({model.rpartition("_")[0] for model, _ in groups}):
        for (size_a, *a), (size_b, *b) in COMPARISONS:
            a, b = (f"{family}_{size_a}", *a), (f"{family}_{size_b}", *b)
            lines += _comparison(f"{_title(a)} - {_title(b)}", groups.get(a, {}), groups.get(b, {}))
    for key, rows in groups.items():
        lines += _comparison(f"{_title(key)}: last epoch - validation-chosen epoch", rows, chosen[key])
    devices = sorted({e["device"] for e in entries})
    return "\n".join([*lines, "", f"{len(entries)} runs, trained on {', '.join(devices)}. Spread: standard deviation."])


def _comparison(title: str, a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> list[str]:
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return []
    difference = np.stack([a[s].astype(float) - b[s] for s in seeds])
    low, high = accuracy_interval(difference)
    one_label = a[seeds[0]].ndim == 1
    p = mcnemar(a[seeds[0]], b[seeds[0]]) if one_label else None
    shown = "-" if p is None else f"p = {p:.3g}"
    return [
        f"| {title} | {len(seeds)} | {100 * difference.mean():+.1f} | {100 * low:+.1f} to {100 * high:+.1f} | {shown} |"
    ]


def accuracy_interval(values: np.ndarray, n_resamples: int = 4000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean of (seeds, images): both are drawn anew, images together for all seeds.

    Args:
        values: (S, N), 0/1 for correct, or the difference of two such. Extra axes (labels) are averaged.

    Returns:
        (low, high), fractions.
    """
    values = np.asarray(values, dtype=float)
    values = values.reshape(*values.shape[:2], -1).mean(axis=2)
    rng = np.random.default_rng(seed)
    n_seeds, n = values.shape
    seed_share = rng.multinomial(n_seeds, [1 / n_seeds] * n_seeds, size=n_resamples) / n_seeds
    image_share = rng.multinomial(n, [1 / n] * n, size=n_resamples) / n
    means = ((seed_share @ values) * image_share).sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _correct_by_method(folder: Path, when: str) -> dict[tuple[str, str], dict[int, np.ndarray]]:
    """(model, method) -> {seed: bool (N,) or (N, L)} on the test split."""
    groups: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for entry in read_runs(folder):
        with np.load(folder / f"{entry['id']}.npz", allow_pickle=False) as arrays:
            scores, labels = arrays[f"test_{when}"], arrays["test_labels"]
        correct = scores.argmax(axis=1) == labels if labels.ndim == 1 else (scores > 0.5) == labels
        groups.setdefault((model_of(entry["id"]), entry["method"]), {})[entry["seed"]] = correct
    return groups


def model_of(run_id: str) -> str:
    """``vit_tiny/kd_soft/seed1`` -> ``vit_tiny``."""
    return run_id.split("/")[0]


def _title(key: tuple[str, str]) -> str:
    return f"{key[0]} {LABELS[key[1]]}"


def _spread(values: list[float], digits: int = 1) -> str:
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


# --- how fast the pipeline is ----------------------------------------------------------------------------------


def training_throughput(
    models: Iterable[str] = ("vit_tiny", "vit_base"),
    *,
    data: Dataset | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 0,
    seconds: float = 10,
    compile_mode: str | None = None,
    cuda_graph: bool = False,
    model_kwargs: dict | None = None,
) -> list[dict]:
    """Training speed of the earlier project's pipeline and of this one, one after the other; prints a table.

    The earlier pipeline: PIL resize of each image on the host, a DataLoader without workers, float32, batch 64,
    AdamW. Ours: :func:`swys_utils.training.fit` with the reference recipe, so augmentation and mixup are included.
    Compilation, the first epoch and validation are left out of both.

    Args:
        batch_size: of ours; default 256 on a GPU, 64 on a CPU. seconds: at least so long for the original's.

    Returns:
        One dict a model: ``original`` and ``ours`` (images/s), ``ratio``, ``tflops`` (arithmetic of ours, 6 operations
        a multiply-accumulate of the forward pass) and ``share`` of the measured matrix-product peak.
    """
    device = torch.device(device or default_device())
    data = data or load_dataset()
    batch_size = batch_size or (256 if device.type == "cuda" else 64)
    if compile_mode is None and device.type == "cuda":
        compile_mode = "default"
    peak = matmul_peak(device)
    rows = []
    for name in models:
        model = create_model(name, data.info.num_classes, **(model_kwargs or {}))
        flops = 6 * count_macs(model)
        original = _original_throughput(model.to(device), data, device, seconds)
        speed = {"compile_mode": compile_mode, "cuda_graph": cuda_graph}
        ours = _our_throughput(name, data, device, batch_size, speed, model_kwargs or {})
        tflops = ours * flops / 1e12
        rows.append(
            {
                "model": name,
                "original": original,
                "ours": ours,
                "ratio": ours / original,
                "tflops": tflops,
                "share": tflops / peak,
                "batch_size": batch_size,
            }
        )
        del model
    precision = "bf16" if fast_bf16(device) else "float32"
    print(f"training on {_device_name(device)}, {precision}; measured matrix-product peak {peak:.4g} TFLOP/s")
    print(f"{'model':<10}{'original img/s':>16}{'ours img/s':>13}{'ratio':>8}{'TFLOP/s':>10}{'of peak':>9}")
    for row in rows:
        print(
            f"{row['model']:<10}{row['original']:>16.1f}{row['ours']:>13.1f}{row['ratio']:>8.1f}"
            f"{row['tflops']:>10.3g}{row['share']:>9.0%}"
        )
    return rows


def matmul_peak(device: torch.device | str, seconds: float = 1.0) -> float:
    """TFLOP/s of a large square matrix product (random numbers) in the training precision, measured."""
    device = torch.device(device)
    side = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if fast_bf16(device) else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    rate = _rate(lambda: a @ b, device, seconds, warm_up=3)
    return rate * 2 * side**3 / 1e12


def _rate(call: Callable[[], object], device: torch.device, seconds: float, warm_up: int) -> float:
    """Calls a second, after ``warm_up`` calls."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(warm_up):
        call()
    wait()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(10 if device.type == "cuda" else 1):
            call()
            calls += 1
        wait()
    return calls / (time.perf_counter() - start)


class _PilImages(torch.utils.data.Dataset):
    """Images resized one by one on the host, as torchvision's Resize, ToTensor and Normalize(0.5, 0.5) do."""

    def __init__(self, split: Split, size: int):
        self.split, self.size = split, size

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int):
        from PIL import Image
        from torchvision.transforms import functional as tv

        image = (
            Image.fromarray(self.split.images[index]).convert("RGB").resize([self.size] * 2, Image.Resampling.BILINEAR)
        )
        return tv.normalize(tv.to_tensor(image), [0.5] * 3, [0.5] * 3), self.split.labels[index]


def _original_throughput(model: nn.Module, data: Dataset, device: torch.device, seconds: float) -> float:
    loader = torch.utils.data.DataLoader(
        _PilImages(data.train, model.patch_embed.img_size[0]), batch_size=64, shuffle=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    model.train()
    start, images = None, 0
    while True:
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # the original adds it up each step
            if start is None:  # the first step allocates
                start = time.perf_counter()
                continue
            images += len(inputs)
            if time.perf_counter() - start > seconds:
                return images / (time.perf_counter() - start)


def _our_throughput(name, data, device, batch_size, speed, model_kwargs) -> float:
    on_gpu = device.type == "cuda"
    recipe = replace(reference_recipe(name, data.info.name), epochs=8 if on_gpu else 3, batch_size=batch_size)
    images = len(data.train) // batch_size * batch_size if on_gpu else 2 * batch_size
    part = Dataset(data.train.head(images), data.val.head(8), data.test, data.info)
    model = build(name, part, recipe, 0, **model_kwargs)
    result = fit(model, part, recipe, device=device, progress=False, **speed)
    return float(np.median([row["images_per_s"] for row in result.history[1:] or result.history]))
