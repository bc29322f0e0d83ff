"""The training loop: Keras' own train step, and everything a run of many hours needs around it."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import larq as lq
import tensorflow as tf

import larq_ext
from larq_ext_recipes._checkpoints import Checkpoints, Position
from larq_ext_recipes._environment import hardware, versions
from larq_ext_recipes._errors import TrainingError, TrainingInterrupted
from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._files import atomic, read_json, write_json
from larq_ext_recipes._logs import CsvLog, EpochRecord, TensorBoardLog, draw_learning_curve
from larq_ext_recipes._pipeline import TrainingData, evaluation_batches
from larq_ext_recipes._progress import Display
from larq_ext_recipes._run_folder import RunFolder
from larq_ext_recipes._signals import StopRequest
from larq_ext_recipes.datasets import Dataset

Callbacks = Sequence[tf.keras.callbacks.Callback]


def run_experiment(
    experiment: Experiment,
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks = (),
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Trains an experiment from its start, or on from its last checkpoint, to its end.

    # Arguments
        experiment: What to train.
        resume: Whether to continue the run in the output folder.
        overwrite: Whether to delete the run in the output folder.
        callbacks: Further Keras callbacks.
        command: The command line to record.

    # Returns
        The content of `metrics.json`.

    # Raises
        UsageError: if a setting is wrong or the output folder does not allow the run.
        DatasetError: if the data is missing or damaged.
        TrainingError: if the loss or a weight is not finite.
        TrainingInterrupted: after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    if experiment.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(experiment.seed)
    dataset = experiment.load_data()
    folder = RunFolder(experiment)
    folder.start(experiment, dataset.fingerprint(), resume, overwrite)
    if resume and folder.metrics.exists():
        if experiment.progress != "none":
            print(f"The run in {folder.path} is already finished.")
        return read_json(folder.metrics)
    with _precision(experiment), lq.context.quantized_scope(False):
        trainer = _Trainer(experiment, dataset, folder, callbacks)
        folder.record()  # only now: a start that fails on a wrong setting leaves no run behind
        trainer.train()
    with lq.context.quantized_scope(False):
        return trainer.finish(list(command if command is not None else sys.argv))


class _Trainer:
    """One run in one process."""

    def __init__(
        self, experiment: Experiment, dataset: Dataset, folder: RunFolder, callbacks: Callbacks
    ) -> None:
        self.experiment, self.dataset, self.folder = experiment, dataset, folder
        self.data = TrainingData(
            dataset, experiment.batch_size, experiment.seed, experiment.augmentation
        )
        self.test_batches = evaluation_batches(dataset)
        self.learning_rate = experiment.make_learning_rate(self.data.steps_per_epoch)
        self.model = experiment.build_model(dataset)
        self._compile()
        self.checkpoints = Checkpoints(folder.checkpoints, self.model)
        self.position = self.checkpoints.restore()
        self.log = CsvLog(folder.log, self.position.epoch, dataset.evaluated)
        schedules = larq_ext.callbacks.method_schedules(experiment.quantizer, experiment.epochs)
        self.recorder = _Recorder()
        self.callbacks = tf.keras.callbacks.CallbackList(
            [*schedules, *callbacks, self.recorder],
            model=self.model,
            epochs=experiment.epochs,
            steps=self.data.steps_per_epoch,
            verbose=0,
        )
        self.started = time.monotonic() - self.position.total_seconds

    def _compile(self) -> None:
        """Compiles, and makes all variables exist that a checkpoint has to restore."""
        model = self.model
        optimizer = self.experiment.make_optimizer(model, self.learning_rate)
        accuracy = tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        model.compile(optimizer, loss=self.experiment.loss, metrics=[accuracy])
        model.optimizer.build(model.trainable_variables)
        labels = tf.zeros([1], tf.int64)
        probabilities = tf.ones([1, len(self.dataset.classes)])
        model.compiled_loss(labels, probabilities)
        model.compiled_metrics.update_state(labels, probabilities)
        model.reset_metrics()

    def train(self) -> None:
        """Trains up to the last epoch, or to the step after which a signal arrived."""
        epochs, steps = self.experiment.epochs, self.data.steps_per_epoch
        start = self.position
        batches = iter(self.data.stream(start.epoch, epochs, start.step))
        tensorboard = TensorBoardLog(self.folder.tensorboard)
        self.model.stop_training = False
        self.callbacks.on_train_begin()
        with (
            StopRequest() as stop,
            Display(
                self.experiment.progress, epochs, steps, start.epoch * steps + start.step
            ) as self.display,
        ):
            if start.epoch or start.step:
                self.display.say(f"Resumed in epoch {start.epoch + 1} after step {start.step}.")
            for epoch in range(start.epoch, epochs):
                self._train_epoch(epoch, batches, stop)
                row = self._finish_epoch(epoch)
                tensorboard.append(row, self.dataset.evaluated, self.recorder.added)
                self._stop_if_asked(stop)
                if self.model.stop_training:
                    break
        self.callbacks.on_train_end()

    def _train_epoch(self, epoch: int, batches: Iterator, stop: StopRequest) -> None:
        steps = self.data.steps_per_epoch
        train_step = self.model.make_train_function()
        if self.position.step == 0:
            self.model.reset_metrics()
        self.callbacks.on_epoch_begin(epoch)
        began = time.monotonic() - self.position.epoch_seconds
        saved = time.monotonic()
        for step in range(self.position.step, steps):
            self.callbacks.on_train_batch_begin(step)
            logs = {name: float(value) for name, value in train_step(batches).items()}
            self._check_finite(logs["loss"], epoch, step)
            self.callbacks.on_train_batch_end(step, logs)
            now = time.monotonic()
            self.position = Position(epoch, step + 1, now - began, now - self.started)
            images = min((step + 1) * self.data.batch_size, self.data.size)
            self.display.step(epoch, step + 1, images, logs)
            if stop.received:
                self._save()
                self._stop_if_asked(stop)
            if now - saved > 60 * self.experiment.checkpoint_minutes:
                self._save()
                saved = time.monotonic()

    def _finish_epoch(self, epoch: int) -> EpochRecord:
        """Evaluates, writes the row of the epoch and saves a checkpoint."""
        logs = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        done = epoch + 1
        test: dict[str, float] = {}
        if done % self.experiment.evaluate_every == 0 or done == self.experiment.epochs:
            test = self.model.evaluate(self.test_batches, verbose=0, return_dict=True)
        seconds = self.position.epoch_seconds
        row = EpochRecord(
            epoch=done,
            learning_rate=self._learning_rate_at(epoch),
            loss=logs["loss"],
            accuracy=logs["accuracy"],
            test_loss=test.get("loss"),
            test_accuracy=test.get("accuracy"),
            seconds=round(seconds, 3),
            images_per_second=round(self.data.size / seconds, 1),
        )
        self.log.append(row)
        self.display.epoch(row, self.dataset.evaluated)
        logs.update({f"val_{name}": value for name, value in test.items()})
        self.recorder.known = frozenset(logs)
        self.callbacks.on_epoch_end(epoch, logs)
        self.position = Position(done, 0, 0.0, time.monotonic() - self.started)
        self._save()
        return row

    def _learning_rate_at(self, epoch: int) -> float:
        rate = float(self.learning_rate(epoch * self.data.steps_per_epoch))
        return float(f"{rate:.7g}")  # the digits that float32 has

    def _save(self) -> None:
        try:
            self.checkpoints.save(self.position)
        except TrainingError as error:
            raise TrainingError(f"{error} {self.folder.describe_last()}") from error

    def _check_finite(self, loss: float, epoch: int, step: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} in epoch {epoch + 1}, step {step + 1}. Try a lower "
                "learning_rate or gradient_clip_norm=1, with --overwrite or another output_dir. "
                f"{self.folder.describe_last()}"
            )

    def _stop_if_asked(self, stop: StopRequest) -> None:
        if stop.received and self.position.epoch < self.experiment.epochs:
            raise TrainingInterrupted(
                f"Stopped by {stop.received}. {self.folder.describe_last()} To continue, give the "
                "same command with --resume (in Python: resume=True)."
            )

    def finish(self, command: list[str]) -> dict[str, Any]:
        """Writes the model, the numbers that belong to it and the learning curve."""
        model = self.experiment.build_model(self.dataset)  # without optimizer, in float32
        model.set_weights(self.model.get_weights())
        with atomic(self.folder.model) as temporary:
            model.save(temporary)
        model.compile(loss=self.experiment.loss, metrics=["accuracy"])
        test = model.evaluate(self.test_batches, verbose=0, return_dict=True)
        metrics = {
            "experiment": self.experiment.name,
            "evaluated_on": f"{len(self.dataset.test[1])} {self.dataset.evaluated} images",
            "top1": test["accuracy"],
            "loss": test["loss"],
            "epochs": self.position.epoch,
            "seconds": round(self.position.total_seconds, 1),
            "seed": self.experiment.seed,
            "weights": model.count_params(),
            "configuration": self.experiment.to_dict(),
            "data": self.dataset.fingerprint(),
            "command": command,
            "hardware": hardware(),
            "versions": versions(),
        }
        write_json(self.folder.metrics, metrics)
        if not draw_learning_curve(self.folder.curve, self.log.rows, self.dataset.evaluated):
            self.display.say("No learning curve: type `pip install matplotlib` to have it drawn.")
        self.display.say(
            f"{self.dataset.evaluated} accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}: "
            f"{self.folder.path}"
        )
        return metrics


class _Recorder(tf.keras.callbacks.Callback):
    """Last in the list, so it sees the values that the callbacks before it put into the logs."""

    known: frozenset[str] = frozenset()
    added: dict[str, float]

    def on_epoch_end(self, epoch, logs=None):
        self.added = {name: value for name, value in logs.items() if name not in self.known}


@contextlib.contextmanager
def _precision(experiment: Experiment) -> Iterator[None]:
    """Sets Keras' global precision for the layers built inside, and puts it back."""
    before = tf.keras.mixed_precision.global_policy()
    if experiment.mixed_precision:
        tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
