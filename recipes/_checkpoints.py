"""Checkpoints of a training run: complete or absent, and the last two kept."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import tempfile
import warnings

import numpy as np
import tensorflow as tf

from larq_ext._files import sync
from larq_ext_recipes._errors import TrainingError
from larq_ext_recipes._files import read_json, write_json

KEPT = 2


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a run is.

    # Arguments
        epoch: Epochs completed.
        step: Steps taken in the current epoch.
        epoch_seconds: Training time spent in the current epoch.
        total_seconds: Time spent in the whole run, evaluations included.
        stopped: Whether a callback has ended the run here.
    """

    epoch: int = 0
    step: int = 0
    epoch_seconds: float = 0.0
    total_seconds: float = 0.0
    stopped: bool = False


class Checkpoints:
    """Saves and restores weights, optimizer, running metrics and position.

    Each checkpoint is a folder that gets its name when all of it is written.

    # Arguments
        folder: Where the checkpoints are.
        model: The compiled network; its optimizer and metrics must have their variables.
        average: The moving average of the weights, if there is one.
        writes: Whether this process keeps what is saved. Of several workers all have to save, as
            variables are read together, but only the first one keeps it.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        model: tf.keras.Model,
        *,
        average: tf.Module | None = None,
        writes: bool = True,
    ) -> None:
        self._folder = folder
        self._model = model
        self._writes = writes
        self._checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=model.optimizer,
            metrics=[variable for metric in model.metrics for variable in metric.variables],
            **({"average": average} if average else {}),
        )

    @property
    def variables(self) -> list[tf.Variable]:
        """All that is saved."""
        parts = tf.train.TrackableView(self._checkpoint).descendants()
        found = [part for part in parts if isinstance(part, tf.Variable)]
        for part in parts:
            if isinstance(part, tf.keras.optimizers.legacy.Optimizer):
                found += part.variables()  # which are no children of it
        return list({id(variable): variable for variable in found}.values())

    def save(self, position: Position, replaces: pathlib.Path | None = None) -> pathlib.Path:
        """Writes a checkpoint and deletes all but the last two.

        # Arguments
            position: Where the run is.
            replaces: An earlier one of the same weights, which is not one of the two.

        # Returns
            Its folder.

        # Raises
            TrainingError: if a weight is not finite; nothing is written then.
        """
        for variable in self._model.weights:
            if variable.dtype.is_floating and not np.isfinite(_float32(variable)).all():
                raise TrainingError(
                    f"The weight {variable.name} is no longer finite in epoch "
                    f"{position.epoch + 1}, after step {position.step}."
                )
        target = self._folder / f"epoch-{position.epoch:05d}-step-{position.step:06d}"
        if not self._writes:
            with tempfile.TemporaryDirectory() as elsewhere:
                self._checkpoint.write(os.path.join(elsewhere, "state"))  # noqa: PTH118
            return target
        temporary = self._folder / f".{target.name}.{os.getpid()}"
        replaced = self._folder / f"{temporary.name}.replaced"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            self._checkpoint.write(str(temporary / "state"))
            write_json(temporary / "position.json", dataclasses.asdict(position))
            for part in (*temporary.iterdir(), temporary):
                sync(part)
            if target.exists():  # the same position again, after a resume: that one may be damaged
                target.rename(replaced)
            temporary.rename(target)
            sync(self._folder)  # before an older one is deleted
        finally:
            if replaced.exists() and not target.exists():
                replaced.rename(target)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)
        if replaces is not None:
            shutil.rmtree(replaces)
        for old in saved(self._folder)[:-KEPT]:
            shutil.rmtree(old)
        return target

    def restore(self) -> Position:
        """Restores the last checkpoint, or the one before if that is damaged.

        # Returns
            Its position, or the start if there is no checkpoint.

        # Raises
            TrainingError: if there are checkpoints and all are damaged.
        """
        for unfinished in self._folder.glob(".epoch-*"):  # of a process that was killed
            shutil.rmtree(unfinished, ignore_errors=True)
        existing = saved(self._folder)
        if not existing:
            return Position()
        for path in reversed(existing):
            try:
                position = Position(**read_json(path / "position.json"))
                status = self._checkpoint.read(str(path / "state"))
                status.assert_existing_objects_matched()
            except Exception as error:  # a damaged file fails in ways of its own
                first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                warnings.warn(f"The checkpoint {path} is damaged: {first_line}", stacklevel=2)
            else:
                return position
        raise TrainingError(
            f"No checkpoint in {self._folder} can be read. Start again with --overwrite."
        )


def saved(folder: pathlib.Path) -> list[pathlib.Path]:
    """The complete checkpoints in a folder, oldest first."""
    return sorted(folder.glob("epoch-*"))


def _float32(variable: tf.Variable) -> np.ndarray:
    return tf.cast(variable, tf.float32).numpy()
