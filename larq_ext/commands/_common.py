"""What several commands share: exit codes, loading without noise, arrays, JSON."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from larq_ext._files import atomic, check_file
from larq_ext._keras import require_training

DONE, CHECK_FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

MODEL_HELP = (
    "MODEL is a zoo name, a .keras or .h5 file, a SavedModel folder, or the folder of a run."
)


def print_json(values: Any) -> None:
    click.echo(json.dumps(values, indent=2))


def in_terminal() -> bool:
    """Whether somebody sees what goes to standard error: progress bars are for them."""
    return sys.stderr is not None and sys.stderr.isatty()


def given(option: str) -> bool:
    """Whether an option of the running command was typed."""
    source = click.get_current_context().get_parameter_source(option)
    return source not in (click.core.ParameterSource.DEFAULT, None)


def import_library() -> None:
    """Imports TensorFlow without its messages, then what a model file may name."""
    require_training()
    # TensorFlow itself leaves oneDNN off where the CPU has no AVX-512: training took 1.4 times as
    # long there. It reads this once, when it is imported.
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    _import_quietly("tensorflow")
    from larq_ext import _models_io

    _models_io.import_rooms()


def _import_quietly(name: str) -> None:
    """Imports a package that writes messages from native code; shows them if it fails."""
    if name in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with captured_stderr():
        importlib.import_module(name)


@contextlib.contextmanager
def captured_stderr() -> Iterator[None]:
    """Keeps what is written to file descriptor 2, and shows it only if the block fails.

    An error of our own says all there is to say; what native code wrote explains others.
    """
    if sys.stderr is None:  # started without one, as some supervisors do
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    show = False
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException as error:
            ours = isinstance(error, ValueError | KeyboardInterrupt) or hasattr(error, "exit_code")
            show = not ours
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            if show:
                file.seek(0)
                os.write(2, file.read())


def load_model(name: str, form: str = "deployable") -> Any:
    """Loads a model from a file or the zoo, without the messages of TensorFlow's import."""
    from larq_ext import _models_io

    introduce(name)
    return _models_io.load_model(name, form)


def introduce(name: str) -> None:
    """Imports what a model needs, and says if it is one of the zoo that is not trained."""
    from larq_ext import _models_io

    # A wrong name should not wait for TensorFlow.
    _models_io.check_name(name)
    import_library()
    note = _models_io.note_of(name)
    if note:
        import tensorflow as tf

        click.echo(note, err=True)
        # Random weights, but the same for the command that looks at them next.
        tf.keras.utils.set_random_seed(0)


def read_arrays(path: Path, model: Any) -> list[Any]:
    """The inputs of a model: the array in a `.npy` file, or those in an `.npz` file.

    Arrays with the names of the model's inputs go there, others (`arr_0`, ...) in their order.
    """
    import numpy as np

    check_file(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"it": loaded}
        else:
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npy or .npz file of numbers: {error}") from error
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{path}: {key} holds {array.dtype}, not real numbers.")
        if not array.ndim:
            raise ValueError(f"{path}: {key} is a single number, not an array of inputs.")
    names = model.input_names if set(arrays) == set(model.input_names) else list(arrays)
    return [arrays[name] for name in names]


def read_inputs(path: Path, model: Any, samples: int | None) -> list[Any]:
    """The inputs in a file, or only the first of them."""
    if given("seed"):
        raise ValueError("--seed is for random inputs: leave it out beside --inputs.")
    arrays = read_arrays(path, model)
    return [array[:samples] for array in arrays]


def write_report(path: Path | None, report: Any, title: str) -> None:
    """Writes an audit as the suffix says."""
    if path is None:
        return
    if path.suffix == ".html":
        report.to_html(path, title)
        return
    text = json.dumps(report.to_dict(), indent=2) if path.suffix == ".json" else str(report)
    with atomic(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
