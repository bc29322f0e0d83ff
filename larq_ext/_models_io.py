"""Models by the words of a command line: file, folder, name in the zoo, or converted file.

TensorFlow takes seconds to import, so nothing here imports it before a model is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SUFFIXES = (".keras", ".h5", ".hdf5", ".tflite")


class Predictor(NamedTuple):
    """A model that only predicts.

    `predict` maps a batch of inputs to outputs, the shapes are those of one sample, with `None`
    where any size goes. One that `takes_integers`, without a scale that says what they stand for,
    prepares its images itself.
    """

    predict: Callable[[Any], Any]
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    takes_integers: bool


def load_model(name: str | Path, form: str = "deployable") -> Any:
    """Loads a model from a file or the zoo.

    # Arguments
        name: The path of a `.keras` or `.h5` file, of a SavedModel folder or of a run's folder,
            or a zoo name.
        form: Of a trained model of the zoo, as `larq_ext_zoo.get` takes it.

    # Returns
        The Keras model.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds no model, or there is no such name.
    """
    path = check_name(name)
    import_rooms()
    # Larq's advice on constraints is for training, and comes again for each layer loaded.
    with _level(logging.getLogger("larq"), logging.ERROR):
        return _load_model(name, path, form)


@contextlib.contextmanager
def _level(logger: logging.Logger, level: int) -> Iterator[None]:
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def _load_model(name: str | Path, path: Path | None, form: str) -> Any:
    import tensorflow as tf

    if path is None:
        import larq_ext_zoo as zoo

        return zoo.get(str(name), form=form)
    try:
        return tf.keras.models.load_model(path, compile=False)
    except Exception as error:  # each format fails in ways of its own
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        # Larq Zoo's networks have objects of their own, which only its import makes known.
        unknown = "nknown" in str(error) or "larq_zoo" in str(error)
        if unknown and "larq_ext_zoo" not in sys.modules:
            importlib.import_module("larq_ext_zoo")  # its layers that prepare images
            return load_model(name, form)
        if unknown and "larq_zoo" not in sys.modules:
            try:
                importlib.import_module("larq_zoo")
            except Exception:  # not there, or it does not go with what is installed
                pass
            else:
                return load_model(name, form)
        hint = ""
        if "larq_zoo" in first_line and "larq_zoo" not in sys.modules:
            hint = " Type `pip install 'larq-zoo>=2.4,<2.5'`."
        elif unknown:
            hint = (
                " A file with layers of your own is loaded in Python, where you import them: give "
                "the model to larq_ext there."
            )
        raise ValueError(
            f"{name} is not a model that Keras can load (.keras, .h5 or SavedModel): "
            f"{first_line}{hint}"
        ) from error


def import_rooms() -> None:
    """Imports what a model file may name."""
    for room in ("quantizers", "layers", "deploy"):
        importlib.import_module(f"larq_ext.{room}")


def note_of(name: str | Path) -> str | None:
    """What to know about a name of the zoo whose model is not trained.

    # Raises
        ValueError: if it is neither a file nor in the zoo, with the names that come near.
    """
    if check_name(name) is not None:
        return None
    import larq_ext_zoo as zoo

    try:
        entry = zoo.entry(str(name))
    except ValueError as error:
        raise ValueError(f"There is no file {name}. {error}") from error
    if entry.pretrained:
        return None
    return f"Note: {name} is not trained: its weights are random and mean nothing."


def run_record(name: str | Path) -> dict[str, Any]:
    """What the run that wrote a model recorded beside it; empty for any other model."""
    path = check_name(name)
    record = None if path is None else path.with_name("metrics.json")
    if record is None or not record.is_file():
        return {}
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:  # of somebody else
        return {}
    known = isinstance(values, dict) and isinstance(values.get("configuration"), dict)
    return values if known and "dataset" in values["configuration"] else {}


def check_name(name: str | Path) -> Path | None:
    """The path that a name is, or `None` if it is for the zoo; looks no further than the disk.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder without a SavedModel.
    """
    path = Path(name)
    is_path = path.suffix in SUFFIXES or path.exists() or os.sep in str(name)
    if is_path and not path.exists():
        raise FileNotFoundError(f"There is no file {name}.")
    if (path / "model.keras").is_file():  # the folder of a run
        return path / "model.keras"
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        raise ValueError(
            f"The folder {name} is neither a SavedModel nor a finished run: it holds no "
            "saved_model.pb and no model.keras."
        )
    return path if is_path else None


def load_predictor(model: Any, num_threads: int = 2) -> Predictor:
    """Makes any form of a model predict.

    # Arguments
        model: A Keras model, a name as `load_model` takes it, or the path of a `.tflite` file.
        num_threads: Number of threads for a `.tflite` file.

    # Returns
        A `Predictor`.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds no model, or the model has several inputs or outputs.
    """
    name = model if isinstance(model, str | Path) else model.name
    if str(name).endswith(".tflite") and isinstance(model, str | Path):
        from larq_ext.runtime import Interpreter

        interpreter = Interpreter(Path(model), num_threads)
        _check_single(name, len(interpreter.input_shapes), len(interpreter.output_shapes))
        (before,), (behind,) = interpreter.input_quantization, interpreter.output_quantization
        (of_file,) = interpreter.input_types

        def run(inputs: Any) -> Any:
            """In numbers, also where the file takes or gives integers."""
            quantized = before.quantize(inputs) if before else _whole(inputs, of_file)
            outputs: Any = interpreter.predict(quantized)
            return outputs if behind is None else behind.dequantize(outputs)

        (input_shape,), (output_shape,) = interpreter.input_shapes, interpreter.output_shapes
        takes_integers = before is None and of_file.kind in "iu"
        return Predictor(run, input_shape[1:], output_shape[1:], takes_integers)
    if isinstance(model, str | Path):
        model = load_model(model)

    from larq_ext._scope import quantized_scope

    _check_single(name, len(model.inputs), len(model.outputs))

    def predict(inputs: Any) -> Any:
        with quantized_scope(False):
            return model.predict_on_batch(inputs)

    (before,), (behind,) = model.inputs, model.outputs
    shapes = tuple(before.shape[1:]), tuple(behind.shape[1:])
    return Predictor(predict, *shapes, before.dtype.is_integer)


def _whole(inputs: Any, dtype: Any) -> Any:
    """Pixels as the integers that a file takes, or as they are for one that takes floats.

    As an image is prepared they are floats, also where the model does all of that itself.
    """
    import numpy as np

    if dtype.kind not in "iu":
        return inputs
    limits = np.iinfo(dtype)
    return np.clip(np.rint(inputs), limits.min, limits.max).astype(dtype)


def _check_single(name: Any, inputs: int, outputs: int) -> None:
    if (inputs, outputs) != (1, 1):
        raise ValueError(
            f"{name} has {inputs} inputs and {outputs} outputs: only models with one of each "
            "can be used here."
        )
