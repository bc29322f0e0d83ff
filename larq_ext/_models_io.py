"""Models by the words of a command line: file, folder, name in the zoo, or converted file.

TensorFlow takes seconds to import, so nothing here imports it before a model is asked for.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_SUFFIXES = (".keras", ".h5", ".hdf5", ".tflite")


class Predictor(NamedTuple):
    """A model that only predicts.

    `predict` maps a batch of inputs to outputs, `input_shape` is that of one sample, with `None`
    where any size goes.
    """

    predict: Callable[[Any], Any]
    input_shape: tuple[int | None, ...]


def load_model(name: str | Path, form: str = "deployable") -> Any:
    """Loads a model from a file or the zoo.

    # Arguments
        name: The path of a `.keras` or `.h5` file or of a SavedModel folder, or a zoo name.
        form: Of a trained model of the zoo, as `larq_ext_zoo.get` takes it.

    # Returns
        The Keras model.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds no model, or there is no such name.
    """
    path = check_name(name)
    # What a model file may name.
    for room in ("quantizers", "layers", "deploy"):
        importlib.import_module(f"larq_ext.{room}")
    import tensorflow as tf

    # Larq's advice on constraints is for training, and comes again for each layer loaded.
    logging.getLogger("larq").setLevel(logging.ERROR)
    if path is None:
        import larq_ext_zoo as zoo

        return zoo.get(str(name), form=form)
    try:
        return tf.keras.models.load_model(path, compile=False)
    except Exception as error:  # each format fails in ways of its own
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"{name} is not a model that Keras can load (.keras, .h5 or SavedModel): {first_line}"
        ) from error


def check_name(name: str | Path) -> Path | None:
    """The path that a name is, or `None` if it is for the zoo; looks no further than the disk.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder without a SavedModel.
    """
    path = Path(name)
    is_path = path.suffix in _SUFFIXES or path.exists() or os.sep in str(name)
    if is_path and not path.exists():
        raise FileNotFoundError(f"There is no file {name}.")
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        raise ValueError(f"The folder {name} is no SavedModel: it holds no saved_model.pb.")
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

        def run(inputs: Any) -> Any:
            """In numbers, also where the file takes or gives integers."""
            outputs: Any = interpreter.predict(
                inputs if before is None else before.quantize(inputs)
            )
            return outputs if behind is None else behind.dequantize(outputs)

        return Predictor(run, interpreter.input_shapes[0][1:])
    if isinstance(model, str | Path):
        model = load_model(model)

    from larq_ext._scope import quantized_scope

    _check_single(name, len(model.inputs), len(model.outputs))

    def predict(inputs: Any) -> Any:
        with quantized_scope(False):
            return model.predict_on_batch(inputs)

    return Predictor(predict, tuple(model.inputs[0].shape[1:]))


def _check_single(name: Any, inputs: int, outputs: int) -> None:
    if (inputs, outputs) != (1, 1):
        raise ValueError(
            f"{name} has {inputs} inputs and {outputs} outputs: only models with one of each "
            "can be used here."
        )
