"""Accuracy and loss of any form of a classifier: zoo name, Keras file or converted model."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext._models_io import Predictor, load_predictor
from larq_ext_recipes import datasets
from larq_ext_recipes._errors import UsageError


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
    name = getattr(model, "name", None) if isinstance(model, tf.keras.Model) else str(model)
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
        raise UsageError(
            f"{name} gives outputs of shape {outputs.shape[1:]} per image, but {dataset} has "
            f"{len(data.classes)} classes."
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
