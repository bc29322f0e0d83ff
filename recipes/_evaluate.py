"""Scores of any form of a classifier or pose network: zoo name, Keras file or converted model."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext._models_io import Predictor, load_predictor
from larq_ext.pose.baseline import mean_pose
from larq_ext_recipes import datasets
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._pose_evaluation import (
    evaluate_mean_pose,
    evaluate_pose,
    make_estimator,
)
from larq_ext_recipes.datasets import DatasetError, coco_keypoints
from larq_ext_recipes.datasets._coco_files import find_annotations, read_annotations
from larq_ext_recipes.datasets._persons import check_entries

POSES = coco_keypoints.PoseDataset.name


def evaluate(
    model: str | pathlib.Path | tf.keras.Model,
    *,
    data_dir: str | pathlib.Path | None = None,
    dataset: str = "cifar10",
    limit: int | None = None,
) -> dict[str, Any]:
    """Evaluates a classifier on the test images of a data set.

    The images are normalised as in the recipes of the data set.

    # Arguments
        model: A Keras model, a zoo name, a `.keras` or `.h5` file, a SavedModel folder, or a
            `.tflite` file.
        data_dir: Where the data is; `None` lets the data set decide.
        dataset: Name of the data set.
        limit: Number of test images to use; `None` for all.

    # Returns
        `model`, `dataset`, `n` (images), `top1` (share of right answers) and `loss` (mean
        cross-entropy in nats).

    # Raises
        UsageError: if there is no such model, or its outputs do not fit the data.
        DatasetError: if the data is missing or damaged.
    """
    name = model.name if isinstance(model, tf.keras.Model) else str(model)
    predictor = _predictor(model)  # before the data: a wrong name should not take a minute
    size = predictor.input_shape[0] if dataset in datasets.OF_ANY_SIZE else None
    data = datasets.load(dataset, data_dir, image_size=size)
    parts, numbers = [], []
    with datasets.readable_errors(data, training=False):
        for images, labels in data.evaluation(100).as_numpy_iterator():
            parts.append(predictor.predict(images))
            numbers.append(labels)
            if limit and 100 * len(parts) >= limit:
                break
    outputs, labels = np.concatenate(parts)[:limit], np.concatenate(numbers)[:limit]
    if outputs.shape != (len(labels), len(data.classes)):
        advice = f" Pose networks are for dataset={POSES}." if outputs.ndim == 4 else ""
        raise UsageError(
            f"{name} gives outputs of shape {outputs.shape[1:]} per image, but {dataset} has "
            f"{len(data.classes)} classes.{advice}"
        )
    probabilities = _probabilities(outputs.astype(np.float64))
    right = probabilities[np.arange(len(labels)), labels]
    return {
        "model": name,
        "dataset": dataset,
        "n": len(labels),
        "top1": float((outputs.argmax(axis=1) == labels).mean()),
        "loss": float(-np.log(np.maximum(right, tf.keras.backend.epsilon())).mean()),
    }


def evaluate_poses(
    model: str | pathlib.Path | tf.keras.Model,
    *,
    data_dir: str | pathlib.Path | None = None,
    limit: int | None = None,
    flip_test: bool = True,
    decoding: str = "quarter",
    boxes: str | pathlib.Path | None = None,
) -> dict[str, Any]:
    """Evaluates a pose network on the evaluation images of COCO's person keypoints.

    # Arguments
        model: As `evaluate` takes it.
        data_dir: Where annotations and pictures are, see `datasets.coco_keypoints`.
        limit: Number of pictures to use; `None` for all.
        flip_test: Whether mirrored crops are seen too, and both results averaged.
        decoding: How a peak becomes a coordinate: `"argmax"`, `"quarter"` or `"dark"`.
        boxes: A detector's boxes, a JSON file; `None` for the labelled ones.

    # Returns
        `model`, `dataset`, COCO's ten numbers (`AP`, `AP50`, ... from 0 to 1, -1 where there is no
        such person), what they are of (`images`, `persons`, `boxes`, `flip_test`, `decoding`), and
        in `mean_pose` the ten numbers of the training persons' mean pose in the same boxes, `None`
        where there are no annotations of such persons, or too few to have each keypoint labelled.

    # Raises
        UsageError: if there is no such model, it is no pose network or gives NaN, or the boxes
            cannot be read.
        DatasetError: if the data is missing or damaged.
    """
    name = model.name if isinstance(model, tf.keras.Model) else str(model)
    estimator = make_estimator(model, flip_test=flip_test, decoding=decoding)  # before the data
    folder = coco_keypoints.data_folder(data_dir)
    split = coco_keypoints.read_split(folder, "test")
    split = split.part(slice(limit))
    mean = _mean_pose(folder, split, boxes)  # seconds, and wrong boxes show before the hours
    numbers = evaluate_pose(estimator, split, boxes=boxes)
    return {"model": name, "dataset": POSES, **numbers, "mean_pose": mean}


def _mean_pose(
    folder: pathlib.Path,
    split: coco_keypoints.PersonSplit,
    boxes: str | pathlib.Path | None,
) -> dict[str, float] | None:
    try:
        file, _ = find_annotations(folder, "train")
    except DatasetError:
        return None
    _, people = check_entries(read_annotations(file), str(file))
    try:
        pose = mean_pose(people)
    except ValueError:  # a keypoint that is never labelled
        return None
    return evaluate_mean_pose(pose, split, boxes)


def _predictor(model: str | pathlib.Path | tf.keras.Model) -> Predictor:
    try:
        return load_predictor(model)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error


def _probabilities(outputs: np.ndarray) -> np.ndarray:
    """The outputs, after a softmax if they are logits."""
    if (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        return outputs
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
