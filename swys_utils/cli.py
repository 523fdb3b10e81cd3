"""The command line, ``swys train | distill | evaluate | explain | benchmark | export | reproduce | agreement |
report``.

Options that the earlier project of this name had keep their names. Several GPUs or nodes:
``accelerate launch -m swys_utils train ...``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .config import SwysError, default_device, unknown
from .data import DEFAULT_DATASET, Dataset, load_dataset, single_labels
from .distillation import ExplanationDistiller, FeatureDistiller, SoftTargetDistiller
from .explain import empty_maps, heatmaps
from .export import export_onnx, quantise_onnx_dynamic
from .gradcam import METHODS
from .ladder import COST, KEPT, LADDER_NAMES, ladder_table, shrink_ladder, which_to_ship
from .ladder import write_json as write_ladder
from .models import (
    at_native_resolution,
    checkpoint_ids,
    load_checkpoint,
    seen_in_training,
    shipped_predictions,
    write_json,
)
from .plots import heatmap_rows
from .reference import pocket_runs, reference_runs, report, reproduce, training_throughput
from .study import agreement_over_runs, summary
from .training import (
    ORIGINAL,
    Recipe,
    build,
    evaluate,
    fit,
    predict,
    probabilities,
    reference_recipe,
    supervised_objective,
)

TASKS = ("soft", "features", "explain")
EXPLAINED, SCORE_SECONDS = 48, 4.0  # `benchmark`: images whose heatmaps are compared, time to score one rung


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 with one line on stderr for a foreseeable mistake."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except SwysError as error:
        print(f"swys {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nswys {options.command}: stopped; go on with --resume where there is one", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="swys", description="See what you shrink: train, explain and shrink ViTs.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--dataset", default=DEFAULT_DATASET, help="any 2D MedMNIST name (default: %(default)s)")
        sub.add_argument("--size", type=int, default=28, help="stored image size: 28, 64, 128 or 224 px")
        sub.add_argument("--data_dir", help="folder with the .npz files (default: SWYS_DATA_DIR, then ~/.medmnist)")
        return sub

    def training_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--recipe", default="reference", help="reference or original (default: %(default)s)")
        sub.add_argument("--epochs", type=int, help="default: the recipe's")
        sub.add_argument("--batch_size", type=int, help="default: the recipe's")
        sub.add_argument("--lr", type=float, help="peak learning rate; default: the recipe's")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--save_path", required=True, help="x.safetensors, or a folder")
        sub.add_argument("--resume", action="store_true", help="go on where a run with this --save_path stopped")
        sub.add_argument("--budget_s", type=float, default=0, help="stop after so many seconds, to be resumed")

    sub = command("train", _train, "train a model from random weights")
    sub.add_argument("--model", default="vit_tiny_patch16_224", help="a timm ViT (default: %(default)s)")
    training_options(sub)

    sub = command("distill", _distill, "train a student with a teacher")
    sub.add_argument("--teacher_model", help="refuse a teacher checkpoint of another model")
    sub.add_argument("--student_model", default="vit_tiny_patch16_224", help="a timm ViT (default: %(default)s)")
    sub.add_argument("--ckpt_path", default=f"{DEFAULT_DATASET}/vit_base", help="the teacher (default: %(default)s)")
    sub.add_argument("--method", default="soft", help="what is taught: soft (targets), features or explain(ations)")
    sub.add_argument("--alpha", type=float, default=0.5, help="weight of the soft targets (default: %(default)s)")
    sub.add_argument("--temperature", type=float, default=2.0, help="of the soft targets (default: %(default)s)")
    sub.add_argument("--img_size", type=int, default=224, help="pixels that the student reads (default: %(default)s)")
    sub.add_argument("--patch_size", type=int, default=16, help="pixels of a student's patch (default: %(default)s)")
    sub.add_argument("--init_path", help="start from this checkpoint, resized if need be, not from random weights")
    training_options(sub)

    sub = command("evaluate", _evaluate, "accuracy, AUC and calibration of a checkpoint, with intervals")
    sub.add_argument("--ckpt_path", required=True, help="a folder, a .safetensors file, or an id such as "
                     "pneumoniamnist/vit_tiny")  # fmt: skip
    sub.add_argument("--model", help="refuse a checkpoint of another model")
    sub.add_argument("--split", default="test", choices=("train", "val", "test"))
    sub.add_argument("--json", help="write the scores to this file, too")

    sub = command("explain", _explain, "write heatmap overlays of a checkpoint")
    sub.add_argument("--ckpt_path", required=True)
    sub.add_argument("--model", help="refuse a checkpoint of another model")
    sub.add_argument("--save_path", required=True, help="folder for overlays.png and maps.npz")
    sub.add_argument("--method", default="grad_cam", help=f"one of {', '.join(METHODS)} (default: %(default)s)")
    sub.add_argument("--split", default="test", choices=("train", "val", "test"))
    sub.add_argument("--images", type=int, default=8, help="how many, a fixed random sample (default: %(default)s)")

    sub = command("benchmark", _benchmark, "the shrink ladder: what each step down to an int8 file costs and changes")
    sub.add_argument("--ckpt_path", nargs="+", default=None, help="checkpoints, largest first, the one to ship last "
                     "(default: all shipped checkpoints of the data set)")  # fmt: skip
    sub.add_argument("--train", action="store_true", help="training speed: the earlier project's pipeline and ours")
    sub.add_argument("--seconds", type=float, help="time for each throughput (default: 0.3; with --train 2)")
    sub.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    sub.add_argument("--device", help="cpu, cuda, ... (default: a GPU where there is one); ONNX rungs run on cpu")
    sub.add_argument("--json", help="write the table to this file, too")

    sub = command("export", _export, "write a checkpoint as an ONNX file with its card")
    sub.add_argument("--ckpt_path", required=True)
    sub.add_argument("--save_path", required=True, help="x.onnx")
    sub.add_argument("--int8", action="store_true", help="quantise the weights and, as they come, the activations")
    sub.add_argument("--native", action="store_true", help="rewrite the model, exactly, to read images of --size px")

    sub = command("reproduce", _reproduce, "train the reference set: resumable, safe to kill, skips what is done")
    sub.add_argument("--save_path", default="runs/reference", help="folder of the runs (default: %(default)s)")
    sub.add_argument("--only", nargs="+", help="ids of runs, or beginnings of ids (default: all)")
    sub.add_argument("--budget_s", type=float, default=0, help="stop after so many seconds; the same command goes on")
    sub.add_argument("--compile_mode", help="of torch.compile, for example 'default' (default: none)")
    sub.add_argument("--cuda_graph", action="store_true", help="record a training step once and replay it")
    sub.add_argument("--pocket", action="store_true", help="the pocket set instead: models that need no GPU")
    sub.add_argument("--list", action="store_true", help="print the runs of the set and stop")

    sub = command("agreement", _agreement, "do the students of a finished set look where their teacher looks?")
    sub.add_argument("--save_path", default="runs/reference", help="folder of the runs (default: %(default)s)")
    sub.add_argument("--images", type=int, default=1000, help="a fixed sample of test images (default: %(default)s)")

    sub = commands.add_parser("report", help="the table of a reference set, with intervals and paired tests")
    sub.set_defaults(run=_report)
    sub.add_argument("--save_path", default="runs/reference", help="folder of the runs (default: %(default)s)")
    return parser


# --- commands --------------------------------------------------------------------------------------------------


def _train(options) -> None:
    recipe = _recipe(options, options.model)
    data = _data(options)
    model = build(options.model, data, recipe, options.seed)
    _fit_and_report(
        options, model, data, recipe, None, {"model": _full_name(model, options.model), "method": "scratch"}
    )


def _distill(options) -> None:
    if options.method not in TASKS:
        raise SwysError(unknown("distillation method", options.method, TASKS, "known:"))
    recipe = _recipe(options, options.student_model)
    data = _data(options)
    teacher, teacher_card = _checkpoint(options.ckpt_path, data, options.teacher_model)
    student = _student(options, data, recipe)
    labels = supervised_objective(data, recipe)
    if options.method == "features":
        objective = FeatureDistiller(teacher, labels, student, temperature=options.temperature)
    elif options.method == "explain":
        objective = ExplanationDistiller(teacher, labels, options.alpha, options.temperature)
    else:
        objective = SoftTargetDistiller(teacher, labels, options.alpha, options.temperature)
    objective.check(student)
    card = {
        "model": _full_name(student, options.student_model),
        "method": f"kd_{options.method}",
        "teacher": {"model": teacher_card["model"], "files": teacher_card["files"]},
        "model_kwargs": {"patch_size": options.patch_size},
    }
    if options.init_path:
        card["started_from"] = options.init_path
    _fit_and_report(options, student, data, recipe, objective, card)


def _student(options, data: Dataset, recipe: Recipe):
    """From random weights, or from a trained model whose patches and positions are resampled to the new grid."""
    if options.img_size <= 0 or options.patch_size <= 0 or options.img_size % options.patch_size:
        raise SwysError(f"--img_size {options.img_size} is no multiple of --patch_size {options.patch_size}")
    if not options.init_path:
        return build(options.student_model, data, recipe, options.seed, options.img_size, patch_size=options.patch_size)
    student, _ = _checkpoint(options.init_path, data, options.student_model)
    student.set_input_size(img_size=options.img_size, patch_size=options.patch_size)
    return student


def _evaluate(options) -> None:
    data = _data(options)
    model, card = _checkpoint(options.ckpt_path, data, options.model)
    split = getattr(data, options.split)
    logits = predict(model, split.images)
    scores = evaluate(logits, split.labels, data.info.task)
    print(f"{options.ckpt_path} on {data.info.name}, {options.split} split\n{scores}")
    result = {"checkpoint": str(options.ckpt_path), "dataset": data.info.name, "source": data.info.source,
              "split": options.split, "n": scores.n, "accuracy": scores.accuracy,
              "accuracy_interval": scores.accuracy_interval, "auc": scores.auc, "ece": scores.ece}  # fmt: skip
    if options.split != "train" and card.get("training_hashes"):
        seen = seen_in_training(card, split.images)
        result["seen_in_training"] = int(seen.sum())
        if seen.any():
            print(f"{seen.sum()} of {len(seen)} images were in this checkpoint's training data (64-bit fingerprint)")
            if not seen.all():
                clean = evaluate(logits[~seen], split.labels[~seen], data.info.task)
                print(f"without them: {clean}")
                result |= {"accuracy_unseen": clean.accuracy, "auc_unseen": clean.auc, "n_unseen": clean.n}
        else:
            print("none of these images was in this checkpoint's training data (64-bit fingerprint)")
    if options.json:
        _write(options.json, result)


def _explain(options) -> None:
    if options.method not in METHODS:
        raise SwysError(unknown("method", options.method, METHODS, "known:"))
    data = _data(options)
    model, card = _checkpoint(options.ckpt_path, data, options.model)
    folder = _writable_folder(options.save_path)
    split = getattr(data, options.split).head(options.images)
    logits = predict(model, split.images)
    p = probabilities(logits, data.info.task)
    maps = heatmaps(model, split.images, options.method)
    names, truth = data.info.class_names, single_labels(split)
    name = card["model"]
    captions = [f"{names[row.argmax()][:12]} {row.max():.0%}" for row in p]
    titles = [names[label][:14] if label >= 0 else "no label" for label in truth]
    figure = heatmap_rows(split.images, {name: maps}, {name: captions}, titles, scale="model")
    figure.savefig(folder / "overlays.png", dpi=120, bbox_inches="tight")
    np.savez_compressed(folder / "maps.npz", maps=maps, logits=logits, labels=split.labels)
    print(empty_maps(maps, logits, names))
    print(f"wrote {folder / 'overlays.png'} and maps.npz ({options.method}, {len(maps)} images, one scale for all)")


def _export(options) -> None:
    path = Path(options.save_path)
    if path.suffix != ".onnx":
        raise SwysError(f"--save_path '{path}' does not end in .onnx; name the file to write")
    data = _data(options)
    model, card = _checkpoint(options.ckpt_path, data)
    if options.native:
        model = at_native_resolution(model, data.info.size)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "float.onnx" if options.int8 else path
        written = export_onnx(model.cpu(), target, class_names=data.info.class_names, source=card)
        if options.int8:
            written = quantise_onnx_dynamic(target, path)
    print(f"wrote {path} and {path.with_suffix('.json').name}")
    print(written)


def _reproduce(options) -> None:
    runs = (pocket_runs if options.pocket else reference_runs)(options.dataset)
    if options.list:
        print("\n".join(run.id for run in runs))
        return
    reproduce(options.dataset, options.save_path, budget_s=options.budget_s, only=options.only, data=_data(options),
              compile_mode=options.compile_mode, cuda_graph=options.cuda_graph, runs=runs)  # fmt: skip
    print(report(options.save_path))


def _agreement(options) -> None:
    study = agreement_over_runs(options.save_path, _data(options), options.images,
                                progress=lambda line: print(f"  {line}", flush=True))  # fmt: skip
    print(summary(study))
    _write(str(Path(options.save_path) / "agreement.json"), study)


def _report(options) -> None:
    print(report(options.save_path))


def _benchmark(options) -> None:
    data = _data(options)
    if options.train:
        rows = training_throughput(data=data, device=default_device(), seconds=options.seconds or 2)
        if options.json:
            _write(options.json, {"rows": rows})
        return
    paths = options.ckpt_path or _shipped(data)
    if not paths:
        raise SwysError(f"no checkpoint of {data.info.name} is shipped; name one with --ckpt_path")
    device = _device(options.device)
    models, logits, val_logits = {}, {}, {}
    for path in paths:
        name = LADDER_NAMES.get(path.removeprefix(f"{data.info.name}/"), path)
        models[name], _ = load_checkpoint(path, "cpu", data.info.num_classes)
        for known, split in ((logits, data.test), (val_logits, data.val)):
            shipped = shipped_predictions(path, split.images)
            if shipped is not None:
                known[name] = shipped
    rungs = shrink_ladder(models, data, seconds=options.seconds or 0.3, rounds=8, threads=options.threads,
                          device=device, explain_images=EXPLAINED, score_seconds=SCORE_SECONDS,
                          logits=logits, val_logits=val_logits,
                          progress=lambda line: print(f"  {line}", flush=True))  # fmt: skip
    note = (
        f"{rungs[0].device}, {rungs[0].threads} CPU threads; latency: median [quartiles] of interleaved rounds at batch"
        f" 1; memory: growth + library; intervals 95 %; flips against the same model in float32; looks like: rank"
        f" correlation of Grad-CAM maps on {min(EXPLAINED, len(data.test))} test images, a fixed sample; an int8 or"
        " int4 file is explained through a float twin with its weights"
    )
    if logits:
        note += f"; float32 scores of {', '.join(logits)} from the logits that come with the checkpoint"
    for columns in (COST, KEPT):
        print("\n" + _aligned(*ladder_table(rungs, columns)))
    chosen, reason = which_to_ship(rungs)
    print(f"\n{note}\nship {reason}")
    if options.json:
        write_ladder(rungs, options.json, dataset=data.info.name, source=data.info.source, note=note, ship=chosen.name)


def _shipped(data: Dataset) -> list[str]:
    """Ids of the shipped checkpoints of this data set that are steps of the ladder, in its order; else all of them."""
    ids = [i for i in checkpoint_ids() if i.startswith(f"{data.info.name}/")]
    return [i for name in LADDER_NAMES if (i := f"{data.info.name}/{name}") in ids] or ids


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name) if name else default_device()
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SwysError(f"--device '{name}' cannot be used ({str(error).splitlines()[0]}); use cpu") from None
    return device


def _aligned(columns: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(columns, *rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in (columns, *rows)]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


# --- shared ----------------------------------------------------------------------------------------------------


def _data(options) -> Dataset:
    data = load_dataset(options.dataset, options.size, options.data_dir)
    print(f"{data.info.name}, {data.info.size} px: {data.info.source}")
    return data


def _checkpoint(path: str, data: Dataset, model_name: str | None = None):
    model, card = load_checkpoint(path, default_device(), data.info.num_classes)
    if model_name and model_name not in card["model"]:
        raise SwysError(
            f"checkpoint '{path}' is a {card['model']}, not a {model_name}; drop --model or name another file"
        )
    return model, card


def _recipe(options, model_name: str) -> Recipe:
    if options.recipe not in ("reference", "original"):
        raise SwysError(unknown("recipe", options.recipe, ("reference", "original"), "known:"))
    recipe = ORIGINAL if options.recipe == "original" else reference_recipe(model_name, options.dataset)
    for name in ("epochs", "batch_size", "lr"):
        value = getattr(options, name)
        if value is not None:
            if value <= 0:
                raise SwysError(f"--{name} is {value}; it must be above 0")
            recipe = replace(recipe, **{name: value})
    return recipe


def _full_name(model, name: str) -> str:
    return model.pretrained_cfg.get("architecture") or name


def _fit_and_report(options, model, data: Dataset, recipe: Recipe, objective, card: dict) -> None:
    path = Path(options.save_path)
    if path.suffix not in ("", ".safetensors"):
        raise SwysError(f"--save_path '{path}' ends in {path.suffix}; use .safetensors (or a folder), never a pickle")
    result = fit(model, data, recipe, objective=objective, seed=options.seed, save_path=path, resume=options.resume,
                 card=card, budget_s=options.budget_s)  # fmt: skip
    if not result.finished:
        done = len(result.history)
        print(f"stopped after {done} of {recipe.epochs} epochs (--budget_s); the same command with --resume goes on")
        return
    print("last epoch  ", evaluate(predict(model, data.test.images), data.test.labels, data.info.task))
    chosen = result.val_chosen_model()
    print("val-chosen  ", evaluate(predict(chosen, data.test.images), data.test.labels, data.info.task))
    best = result.best_epoch
    last = result.history[-1]["val_accuracy"]
    print(f"(validation {last:.1%} in the last epoch, {best['val_accuracy']:.1%} in epoch {best['epoch']})")
    print(f"wrote {path}")


def _writable_folder(path: str) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SwysError(f"cannot write to '{folder}': {error.strerror}; choose another --save_path") from None
    return folder


def _write(path: str, content: dict) -> None:
    try:
        write_json(path, json.loads(json.dumps(content, default=float)))
    except OSError as error:
        raise SwysError(f"cannot write '{path}': {error.strerror}; choose another --json") from None


if __name__ == "__main__":
    sys.exit(main())
