"""From the outputs of a classifier to names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from larq_ext_zoo._class_lists import CLASS_LISTS
from larq_ext_zoo._entry import Entry
from larq_ext_zoo.registry import entry


def class_names(classes: str | Entry | Sequence[str] | None, count: int) -> Sequence[str]:
    """The names of the outputs of a network.

    # Arguments
        classes: Name of a class list or of a model of the zoo, an entry, the names themselves, or
            `None` for `"class 0"`, `"class 1"` ...
        count: Number of outputs.

    # Raises
        ValueError: if there is no such list, or it has another number of names.
    """
    names: Sequence[str] | None
    if isinstance(classes, str):
        classes = CLASS_LISTS[classes] if classes in CLASS_LISTS else _entry(classes)
    if isinstance(classes, Entry):
        classes.check_task("classification", "larq_ext.pose decodes its heatmaps")
        names = classes.class_names
    else:
        names = classes
    if names is None:
        return [f"class {index}" for index in range(count)]
    if len(names) != count:
        raise ValueError(
            f"There are {len(names)} names of classes ({', '.join(list(names)[:3])} ...) for "
            f"{count} outputs per image."
        )
    return names


def _entry(name: str) -> Entry:
    try:
        return entry(name)
    except ValueError as error:
        known = ", ".join(sorted(CLASS_LISTS))
        raise ValueError(f"There is no class list {name!r}, only {known}. {error}") from error


def decode_predictions(
    predictions, classes: str | Entry | Sequence[str] | None, top: int = 5
) -> list[list[tuple[str, float]]]:
    """Names the best classes of each sample, as Keras' functions of this name do.

    # Arguments
        predictions: Array `(samples, classes)`.
        classes: Name of a model of the zoo or of a class list (`"cifar10"`), an entry, or the
            names; `None` gives numbers.
        top: How many classes to give, the best first.

    # Returns
        For each sample a list of `(class name, score)`.

    # Raises
        ValueError: if the predictions have another form or another number of classes.
    """
    scores = np.asarray(predictions)
    if scores.ndim != 2:
        advice = " larq_ext.pose decodes the heatmaps of pose networks." if scores.ndim == 4 else ""
        raise ValueError(
            f"Predictions have the shape (samples, classes), received {scores.shape}.{advice}"
        )
    if top < 1:
        raise ValueError(f"`top` is 1 or more, received {top}.")
    names = class_names(classes, scores.shape[1])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(names[index], float(row[index])) for index in indices]
        for row, indices in zip(scores, best, strict=True)
    ]
