"""Accuracy of stored weights, from what `larq-ext evaluate` printed about them."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import larq_ext as lqx
from larq_ext._files import check_file, sha256_of
from larq_ext_zoo import _checks
from larq_ext_zoo._entry import Accuracy, WeightsFile

# What tells how good a run is, for each task: in its metrics, and as people write it.
SCORES = {"classification": ("top1", "top-1"), "pose": ("AP", "AP of keypoints")}
# In an evaluation: how many examples it is of.
_EXAMPLES = {"classification": "n", "pose": "persons"}
_SAMPLES = 16


def read_evaluation(evaluation: Mapping[str, Any] | str | pathlib.Path) -> Mapping[str, Any]:
    """An evaluation as it is, or from the file that it was written to.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if it is no JSON.
    """
    if isinstance(evaluation, Mapping):
        return evaluation
    path = pathlib.Path(evaluation)
    check_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not what `larq-ext evaluate --json` prints: {error}."
        ) from error


def evaluated_accuracy(
    name: str,
    task: str,
    metrics: Sequence[Mapping[str, Any]],
    evaluation: Mapping[str, Any],
    weights: WeightsFile,
    model: tf.keras.Model,
) -> Accuracy:
    """The accuracy of an entry whose stored weights were evaluated.

    # Arguments
        name: The entry's name.
        task: What the network is for.
        metrics: What the runs recorded.
        evaluation: What `larq-ext evaluate --json` printed.
        weights: The file of the deployable form.
        model: The deployable form as it is stored.

    # Raises
        ValueError: if it is no evaluation, or one of something else.
    """
    score, metric = SCORES[task]
    right = isinstance(evaluation, Mapping) and {
        score,
        _EXAMPLES[task],
        "dataset",
        "model",
        "sha256",
    } <= {*evaluation}
    right = right and _checks.is_number(evaluation[score])
    _checks.check(right, "evaluation", "what `larq-ext evaluate --json` prints", evaluation)
    dataset, first = evaluation["dataset"], metrics[0]
    if dataset != first["configuration"]["dataset"]:
        raise ValueError(
            f"The evaluation is on {dataset}, the run on {first['configuration']['dataset']}."
        )
    converted = str(evaluation["model"]).endswith(".tflite")
    if converted:
        _check_file(pathlib.Path(evaluation["model"]), evaluation["sha256"], model)
    elif evaluation["model"] != name:
        raise ValueError(
            f"The evaluation is of {evaluation['model']}: evaluate {name}, as it is stored, or a "
            ".tflite file made of it."
        )
    elif evaluation["sha256"] != weights.sha256:
        raise ValueError(
            f"The evaluation is of other weights than {name} has now: their SHA-256 is "
            f"{evaluation['sha256']}, not {weights.sha256}. Evaluate it again."
        )
    how = "larq-ext evaluate, the deployable form as stored" + (", converted" * converted)
    shares = [float(values[score]) for values in metrics]
    if len(shares) == 1:
        shares = [float(evaluation[score])]
    else:
        how += (
            "; mean and spread: larq-ext train, at its end, in the training form, on "
            f"{first['evaluated_on']}"
        )
    return Accuracy(
        value=float(evaluation[score]),
        mean=statistics.fmean(shares),
        spread=statistics.stdev(shares) if len(shares) > 1 else None,
        seeds=[values["seed"] for values in metrics],
        data=_data(task, evaluation),
        how=how,
        metric=metric,
    )


def _check_file(path: pathlib.Path, sha256: str, model: tf.keras.Model) -> None:
    """Whether a converted file is the one that was evaluated, and computes what the model does."""
    if not path.is_file() or sha256_of(path) != sha256:
        raise ValueError(
            f"The file {path} that was evaluated is not here any more, or it was changed: convert "
            "the entry and evaluate that."
        )
    shape = (_SAMPLES, *model.input_shape[1:])
    inputs = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    report = lqx.deploy.verify(model, path, inputs)
    if not report.ok:
        raise ValueError(
            f"The file {path} that was evaluated is of another model: on {_SAMPLES} random inputs "
            "its outputs differ from those of the weights to be stored."
        )


def _data(task: str, evaluation: Mapping[str, Any]) -> str:
    if task != "pose":
        return f"{evaluation['n']} test images of {evaluation['dataset']}"
    return (
        f"{evaluation['persons']} persons in {evaluation.get('images')} pictures of "
        f"{evaluation['dataset']}, boxes: {evaluation.get('boxes')}, "
        f"{'with' if evaluation.get('flip_test') else 'without'} flip test, decoding: "
        f"{evaluation.get('decoding')}"
    )
