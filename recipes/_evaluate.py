"""Scores of any form of a classifier or pose network: zoo name, Keras file or converted model."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import larq_ext_zoo as zoo
from larq_ext._files import sha256_of
from larq_ext._images import pixel_numbers
from larq_ext._models_io import Predictor, check_name, load_predictor, run_record
from larq_ext.pose.baseline import mean_pose
from larq_ext_recipes import datasets
from larq_ext_recipes._class_names import check_classes
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._pipeline import evenly_spread
from larq_ext_recipes._pose_evaluation import (
    check_tool,
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
    dataset: str | None = None,
    limit: int | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> dict[str, Any]:
    """Evaluates a classifier on the test images of a data set.

    # Arguments
        model: A Keras model, a zoo name, a `.keras` or `.h5` file, a SavedModel folder, the folder
            of a run, or a `.tflite` file.
        data_dir: Where the data is; `None` lets the data set decide.
        dataset: Name of the data set; `None` is `dataset_of(model)`.
        limit: Number of test images to use, evenly spread over all; `None` for all.
        mean, std: The input is (pixel - mean) / std with pixels from 0 to 255, one number or one
            for each channel, both or none; `None` is what the recipes of the data set take. 0 and
            1 for a model that prepares its images itself, which is the default where it takes
            integers.

    # Returns
        `model`, `sha256` (of its file, or of the deployable weights of the zoo; `None` for a
        Keras model or folder), `dataset`, `n` (images), `top1` (share of right answers), `loss`
        (mean cross-entropy in nats), and `mean` and `std` where they are not the data set's.

    # Raises
        UsageError: if there is no such model, its outputs do not fit the data or are NaN, it was
            trained for other classes, or `mean` or `std` make no sense.
        DatasetError: if the data is missing or damaged.
    """
    name = model.name if isinstance(model, tf.keras.Model) else str(model)
    predictor = _predictor(model)  # before the data: a wrong name should not take a minute
    dataset = dataset_of(model) if dataset is None else dataset
    if len(predictor.output_shape) > 1:
        raise UsageError(
            f"{name} gives outputs of shape {predictor.output_shape} per image, no scores of the "
            f"classes of {dataset}. Pose networks are for dataset={POSES}."
        )
    prepared = _preparation(predictor, mean, std)
    size = predictor.input_shape[0] if dataset in datasets.OF_ANY_SIZE else None
    data = datasets.load(dataset, data_dir, image_size=size)
    taken, given = predictor.input_shape, data.input_shape
    if len(taken) != 3 or any(a not in (None, b) for a, b in zip(taken, given, strict=True)):
        raise UsageError(
            f"{name} takes inputs of shape {tuple(taken)}, but the images of {dataset} have "
            f"{tuple(given)}: give the data set that it is for, one of "
            f"{', '.join(sorted([*datasets.LOADERS, POSES]))}."
        )
    if predictor.output_shape != (len(data.classes),):
        raise UsageError(
            f"{name} gives outputs of shape {tuple(predictor.output_shape)} per image, but "
            f"{dataset} has {len(data.classes)} classes."
        )
    check_classes(model, data.classes, dataset)
    in_unit = {key: numbers * (data.white / 255) for key, numbers in prepared.items()}
    parts, numbers = [], []
    with datasets.readable_errors(data, training=False):
        for images, labels in data.evaluation(100, limit=limit, **in_unit).as_numpy_iterator():
            parts.append(predictor.predict(images))
            numbers.append(labels)
    outputs, labels = np.concatenate(parts), np.concatenate(numbers)
    if np.isnan(outputs).any():
        raise UsageError(f"{name} gives NaN: its training failed, or it is damaged.")
    probabilities = _probabilities(outputs.astype(np.float64))
    right = probabilities[np.arange(len(labels)), labels]
    return {
        "model": name,
        "sha256": _sha256(model),
        "dataset": dataset,
        "n": len(labels),
        "top1": float((outputs.argmax(axis=1) == labels).mean()),
        "loss": float(-np.log(np.maximum(right, tf.keras.backend.epsilon())).mean()),
        **{key: numbers.tolist() for key, numbers in prepared.items()},
    }


def _preparation(
    predictor: Predictor, mean: Sequence[float] | float | None, std: Sequence[float] | float | None
) -> dict[str, np.ndarray]:
    """`mean` and `std` for pixels from 0 to 255, float64; nothing if they are the data set's."""
    if (mean is None) != (std is None):
        raise UsageError("Give mean and std together, or neither: the data set's own.")
    if mean is None:
        if not predictor.takes_integers:
            return {}
        mean, std = 0.0, 1.0
    channels = (predictor.input_shape or (None,))[-1] or 3
    try:
        given = (("mean", mean), ("std", std))
        return {name: pixel_numbers(name, value, channels) for name, value in given}
    except ValueError as error:
        raise UsageError(str(error)) from error


def dataset_of(model: str | pathlib.Path | tf.keras.Model) -> str:
    """The data set that a model of the zoo or of a run is for, or else `"cifar10"`.

    # Raises
        UsageError: if there is no such model.
    """
    if isinstance(model, tf.keras.Model):
        return "cifar10"
    try:
        if check_name(model) is None:
            entry = zoo.entry(str(model))
            recipe, usual = entry.recipe, POSES if entry.task == "pose" else "cifar10"
        else:
            recipe, usual = run_record(model), "cifar10"
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    return (recipe or {}).get("configuration", {}).get("dataset", usual)


def evaluate_poses(
    model: str | pathlib.Path | tf.keras.Model,
    *,
    data_dir: str | pathlib.Path | None = None,
    limit: int | None = None,
    flip_test: bool = True,
    decoding: str = "quarter",
    boxes: str | pathlib.Path | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> dict[str, Any]:
    """Evaluates a pose network on the evaluation images of COCO's person keypoints.

    # Arguments
        model: As `evaluate` takes it.
        data_dir: Where annotations and pictures are, see `datasets.coco_keypoints`.
        limit: Number of pictures to use, evenly spread over all; `None` for all.
        flip_test: Whether mirrored crops are seen too, and both results averaged.
        decoding: How a peak becomes a coordinate: `"argmax"`, `"quarter"` or `"dark"`.
        boxes: A detector's boxes, a JSON file; `None` for the labelled ones.
        mean, std: As `larq_ext.pose.PoseEstimator` takes them.

    # Returns
        `model`, `sha256`, `dataset`, COCO's ten numbers (`AP`, `AP50`, ... from 0 to 1, -1 where
        there is no such person), what they are of (`images`, `persons`, `boxes`, `flip_test`,
        `decoding`), and in `mean_pose` the ten numbers of the training persons' mean pose in the
        same boxes, `None` where there are no annotations of such persons, or too few to have each
        keypoint labelled; and `mean` and `std` where they are given.

    # Raises
        UsageError: if there is no such model, it is no pose network or gives NaN, or the boxes
            cannot be read.
        DatasetError: if the data is missing or damaged.
    """
    name = model.name if isinstance(model, tf.keras.Model) else str(model)
    check_tool()
    # Before the data: a wrong name should not take a minute.
    estimator = make_estimator(model, flip_test=flip_test, decoding=decoding, mean=mean, std=std)
    folder = coco_keypoints.data_folder(data_dir)
    split = coco_keypoints.read_split(folder, "test")
    if limit is not None:
        split = split.part(evenly_spread(len(split.image_ids), limit))
    baseline = _mean_pose(folder, split, boxes)  # seconds, and wrong boxes show before the hours
    numbers = evaluate_pose(estimator, split, boxes=boxes)
    about = {"model": name, "sha256": _sha256(model), "dataset": POSES}
    for key, value in (("mean", mean), ("std", std)):
        if value is not None:
            about[key] = np.asarray(value, np.float64).tolist()
    return {**about, **numbers, "mean_pose": baseline}


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


def _sha256(model: str | pathlib.Path | tf.keras.Model) -> str | None:
    if isinstance(model, tf.keras.Model):
        return None
    path = check_name(model)
    if path is None:
        weights = zoo.entry(str(model)).weights
        return weights["deployable"].sha256 if weights else None
    return sha256_of(path) if path.is_file() else None


def _predictor(model: str | pathlib.Path | tf.keras.Model) -> Predictor:
    try:
        return load_predictor(model)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error


def _probabilities(outputs: np.ndarray) -> np.ndarray:
    """The outputs, after a softmax if they are logits.

    Probabilities in 8 bits are rounded, to at most 255/256, so their sums are near 1 at best.
    """
    sums = outputs.sum(axis=1, keepdims=True)
    rounding = 1e-3 + outputs.shape[1] / 512
    if (outputs >= 0).all() and (outputs <= 1).all() and (np.abs(sums - 1) < rounding).all():
        return outputs / np.maximum(sums, np.finfo(outputs.dtype).tiny)
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
