"""Classifies images in files with any form of a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from larq_ext._files import check_file
from larq_ext._images import load_image
from larq_ext._models_io import check_name, load_predictor, run_record
from larq_ext._text import numbers

_BATCH = 32


class Classifier:
    """A model with the preparation of its images and the names of its classes.

    # Arguments
        model: What `larq_ext._models_io.load_predictor` takes.
        like: Name of a model or a data set of the zoo, whose images are prepared the same way.
        given: `mean` and `std` as text with commas, `scale` and `resize`, each or `None`: how
            images are prepared, instead of `like`.
        classes: A file with the names of the classes; `None` takes those that the model's entry or
            run has, or else those of `like`.

    # Raises
        FileNotFoundError: if a file is missing.
        ValueError: if it is not said how images are prepared, or what is said does not fit.
    """

    def __init__(
        self, model: str, *, like: str | None, given: Mapping[str, Any], classes: Path | None
    ) -> None:
        given = {name: value for name, value in given.items() if value is not None}
        in_zoo = check_name(model) is None
        if like is not None and given:
            raise ValueError("--like says all of it: leave --mean, --std, --scale, --resize out.")
        trained_here = {} if in_zoo else run_record(model)
        trained_on = None
        if trained_here:
            trained_on = _classified(model, trained_here["configuration"]["dataset"])
            like = trained_on if like is None and not given else like
        says_all = like is not None or bool(given.keys() & {"mean", "std", "scale"})
        if in_zoo and given and not says_all:
            raise ValueError(
                f"{model} knows how its images are prepared: leave --resize out, or say all of it "
                "with --mean, --std or --scale."
            )
        if not in_zoo and not says_all:
            raise ValueError(
                f"How are images prepared for {model}? Say --like NAME (a model of the zoo or one "
                "of its data sets, such as cifar10), or --mean and --std: the input is "
                "(scale * pixel - mean) / std. If the model does it itself: --scale 1."
            )
        import larq_ext_zoo as zoo
        from larq_ext_zoo.preprocessing import preparation

        self._names: Any = zoo.entry(model).classes if in_zoo else trained_here.get("classes")
        if trained_on is not None:  # whose own names may be codes, as ImageNet's folders have them
            self._names = preparation(trained_on).classes or self._names
        known = None if given else preparation(like or model)
        if self._names is None and known is not None:
            self._names = known.classes
        if classes is not None:
            self._names = read_classes(classes)
        if known is None:
            preprocessing = zoo.Preprocessing(
                mean=numbers("--mean", given.get("mean", "0")),
                std=numbers("--std", given.get("std", "1")),
                scale=given.get("scale", 1.0),
                resize=given.get("resize"),
            )
        self._predictor = load_predictor(model)
        size = _input_size(model, self._predictor.input_shape, known.size if known else None)
        if known is not None:
            preprocessing = known.for_size(size)
        preprocessing.check_size(size)
        self._preprocessing, self._input_size = preprocessing, size

    def predict(self, paths: Sequence[Path], top: int) -> Iterator[dict[str, Any]]:
        """Classifies images, several at a time.

        # Arguments
            paths: The files.
            top: How many classes to give for each.

        # Returns
            For each file, in order, `image` and either `predictions` (`class` and `score`, the
            best first) or `error`.

        # Raises
            ValueError: if the model gives NaN.
        """
        for start in range(0, len(paths), _BATCH):
            yield from self._predict_batch(paths[start : start + _BATCH], top)

    def _predict_batch(self, paths: Sequence[Path], top: int) -> list[dict[str, Any]]:
        import numpy as np

        import larq_ext_zoo as zoo
        from larq_ext_zoo._preprocessing import apply

        results: list[dict[str, Any]] = [{"image": str(path)} for path in paths]
        good, inputs = [], []
        for path, result in zip(paths, results, strict=True):
            try:
                image = load_image(path, self._input_size[-1])
                inputs.append(apply(self._preprocessing, self._input_size, [image]))
            except ValueError as error:
                result["error"] = str(error)
            else:
                good.append(result)
        if good:
            outputs = np.asarray(self._predictor.predict(np.concatenate(inputs)))
            # Whatever it saw: weights are NaN, or the file does not go with what runs it.
            if np.isnan(outputs).any():
                raise ValueError("The model gives NaN: its training failed, or it is damaged.")
            decoded = zoo.decode_predictions(outputs, self._names, top)
            for result, rows in zip(good, decoded, strict=True):
                result["predictions"] = [{"class": name, "score": score} for name, score in rows]
        return results


def read_classes(path: Path) -> list[str]:
    """Names of classes from a file: one a line, or a JSON list.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if it is neither.
    """
    check_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        names = json.loads(text) if text.startswith("[") else text.splitlines()
    except ValueError as error:  # not UTF-8, or no JSON
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{path} has no names of classes: one a line, or a JSON list of texts.")
    return [name.strip() for name in names]


def _classified(model: str, dataset: str) -> str | None:
    """The data set of a run, if it is one of images to classify that the zoo knows."""
    from larq_ext_zoo._data import DATASETS

    known = DATASETS.get(dataset)
    if known is not None and known.task != "classification":
        raise ValueError(f"{model} finds poses: type `larq-ext pose {model} IMAGE -o OUT.png`.")
    return dataset if known is not None else None


def _input_size(
    model: str, shape: Sequence[int | None], size: Sequence[int | None] | None
) -> tuple[int, int, int]:
    """Height, width and channels: the model's own, or where any size goes those of `--like`."""
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise ValueError(
            f"{model} does not take grey or RGB images: its input has the shape {tuple(shape)}."
        )
    other = shape if size is None else size
    height = other[0] if shape[0] is None else shape[0]
    width = other[1] if shape[1] is None else shape[1]
    if height is None or width is None:
        raise ValueError(f"{model} takes images of any size: say which with --like NAME.")
    return height, width, shape[-1]
