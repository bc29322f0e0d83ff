"""The training loop: one step after another, and everything a run of many hours needs around it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext._files import atomic
from larq_ext.quantizers._base import copy_hyperparameters
from larq_ext_recipes import datasets
from larq_ext_recipes._averaging import WeightAverage
from larq_ext_recipes._base_experiment import BaseExperiment
from larq_ext_recipes._checkpoints import Checkpoints, Position, saved
from larq_ext_recipes._diagnosis import first_not_finite
from larq_ext_recipes._errors import TrainingError, TrainingInterrupted
from larq_ext_recipes._files import read_json, write_json
from larq_ext_recipes._logs import CsvLog, EpochRecord, TensorBoardLog, draw_learning_curve
from larq_ext_recipes._order import batch_positions
from larq_ext_recipes._progress import Display
from larq_ext_recipes._run_folder import RunFolder
from larq_ext_recipes._signals import StopRequest
from larq_ext_recipes._start import (
    check_start,
    check_teacher,
    compile_model,
    precision,
    quantizer_schedules,
    step_options,
)
from larq_ext_recipes._strategy import Placement, place
from larq_ext_recipes._training_step import with_step
from larq_ext_recipes._two_step import load_source, take_over
from larq_ext_recipes.datasets import Dataset

Callbacks = Sequence[tf.keras.callbacks.Callback]
_TO_CONTINUE = "To continue, give the same command with --resume (in Python: resume=True)."


def run_experiment(
    experiment: BaseExperiment,
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
        TrainingError: if the loss, a gradient or a weight is not finite, or nothing can be written.
        TrainingInterrupted: after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    return _run(experiment, resume, overwrite, callbacks, command)[0]


def _run(
    experiment: BaseExperiment,
    resume: bool,
    overwrite: bool,
    callbacks: Callbacks,
    command: Sequence[str] | None,
    dataset: Dataset | None = None,
) -> tuple[dict[str, Any], str | None]:
    """As `run_experiment`, and the signal that came when nothing was left to stop.

    The first of two steps gets the data of the second.
    """
    # TensorFlow wants it before anything else.
    placement = place(experiment.strategy, quiet=experiment.progress == "none")
    if experiment.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(experiment.seed)
    command = list(command if command is not None else sys.argv)
    dataset = experiment.load_data() if dataset is None else dataset
    folder = RunFolder(experiment, writes=placement.is_chief)
    folder.start(experiment, dataset.fingerprint(), resume, overwrite)
    with (
        folder.lock(),
        datasets.readable_errors(dataset, training=True),
        placement.lost_workers(folder.describe_last),
        lq.context.quantized_scope(False),
    ):
        folder.check_agreement(placement)
        finished = placement.from_chief(
            read_json(folder.metrics) if resume and folder.metrics.exists() else None
        )
        if finished is not None:
            if experiment.progress != "none" and placement.is_chief:
                print(f"The run in {folder.path} is already finished.")
            return finished, None
        first_step = None
        if experiment.first_step_epochs:
            first = experiment.first_step(folder.first_step)
            check_start(experiment, dataset, starts=not resume and placement.is_chief)
            with _disk_errors(folder):
                folder.record()
            started = placement.from_chief((folder.first_step / "run.json").exists())
            first_step, signal = _run(first, started, False, callbacks, command, dataset)
            if placement.any([signal])[0]:  # it came while the first step was finishing
                raise TrainingInterrupted(
                    f"Stopped by {signal or 'another worker'}. The first step is finished. "
                    f"{_TO_CONTINUE}"
                )
            tf.keras.utils.set_random_seed(experiment.seed)
        with precision(experiment):
            trainer = _Trainer(
                experiment, dataset, folder, placement, callbacks, resume, first_step
            )
            with _disk_errors(folder):
                folder.record()  # only now: a start that fails on a wrong setting leaves no run
            trainer.train()
        return trainer.finish(command), trainer.signal


class _Trainer:
    """One run in one process."""

    def __init__(
        self,
        experiment: BaseExperiment,
        dataset: Dataset,
        folder: RunFolder,
        placement: Placement,
        callbacks: Callbacks,
        resume: bool,
        first_step: dict[str, Any] | None,
    ) -> None:
        self.experiment, self.dataset, self.folder = experiment, dataset, folder
        self.placement, self.first_step = placement, first_step
        check_teacher(experiment, dataset)
        shard = (placement.worker, placement.workers)
        self.data = dataset.training(
            experiment.batch_size,
            experiment.seed,
            experiment.augmentation,
            shard=shard,
            replicas=placement.replicas,
        )
        test_batch = experiment.evaluation_batch(dataset)
        self.test_batches = dataset.evaluation(test_batch, shard=shard)
        positions = batch_positions(dataset.test_size, test_batch, shard=shard, keep_all=True)
        self.test_steps = math.ceil(len(positions) / placement.replicas)
        self.learning_rate = experiment.make_learning_rate(self.data.steps_per_epoch)
        # The other workers get all values from the chief below, as does a run that goes on.
        begins = placement.is_chief and not (resume and saved(folder.checkpoints))
        # Not in the scope, where all workers have to do the same.
        values = self._initial_values() if begins else None
        with placement.strategy.scope():
            network = experiment.build_model(dataset)
            if values is not None:
                placement.put(network.weights, values)
            self.model = with_step(network, step_options(experiment, network))
            compile_model(experiment, self.model, self.learning_rate)
            self.average = None
            if experiment.weight_average:
                self.average = WeightAverage(self.model, experiment.weight_average)
        self.checkpoints = Checkpoints(
            folder.checkpoints, self.model, average=self.average, writes=placement.is_chief
        )
        self.position = self._start(resume)
        self.last_saved = self.position.epoch, self.position.step
        self.log = CsvLog(
            folder.log, self.position.epoch, dataset.evaluated, writes=placement.is_chief
        )
        self.recorder = _Recorder()
        self.schedules = quantizer_schedules(experiment, self.model)
        self.callbacks = tf.keras.callbacks.CallbackList(
            [*self.schedules, *callbacks, self.recorder],
            model=self.model,
            epochs=experiment.epochs,
            steps=self.data.steps_per_epoch,
            verbose=0,
        )
        self.started = time.monotonic() - self.position.total_seconds
        self.signal: str | None = None

    def _initial_values(self) -> list[np.ndarray] | None:
        """The weights to begin with, if they are not new ones."""
        experiment = self.experiment
        if self.first_step is None and experiment.initial_weights is None:
            return None
        network = experiment.build_model(self.dataset)
        if self.first_step is None:
            experiment.initialize(network)
        else:
            take_over(load_source(self.folder.first_step), network, "The first step")
        tf.keras.utils.set_random_seed(experiment.seed)  # as if no other network had been made
        return network.get_weights()

    def _start(self, resume: bool) -> Position:
        """Where to go on, with all variables as they were there; one worker has the files."""
        chief = self.placement.is_chief
        position = self.checkpoints.restore() if resume and chief else Position()
        position = Position(**self.placement.from_chief(dataclasses.asdict(position)))
        self.placement.share(self.checkpoints.variables)
        return position

    def _batches(self, epoch: int, step: int) -> Iterator:
        """All batches of the rest of the run."""

        def stream(context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
            return self.data.stream(epoch, self.experiment.epochs, step)

        if not self.placement.distributed:
            return iter(stream())
        return iter(self.placement.strategy.distribute_datasets_from_function(stream))

    def train(self) -> None:
        """Trains up to the last epoch, or to the step after which a signal arrived."""
        epochs, steps = self.experiment.epochs, self.data.steps_per_epoch
        start = self.position
        batches = self._batches(start.epoch, start.step)
        chief = self.placement.is_chief
        tensorboard = TensorBoardLog(self.folder.tensorboard) if chief else None
        self.model.stop_training = False
        self.callbacks.on_train_begin()
        with (
            StopRequest() as stop,
            Display(
                self.experiment.progress if chief else "none",
                epochs,
                steps,
                start.epoch * steps + start.step,
            ) as self.display,
        ):
            ends = start.epoch if start.stopped else epochs
            if start.epoch == ends:
                # Stopped in the scores at the end: not all that schedules set is in checkpoints.
                for schedule in self.schedules:
                    schedule.on_epoch_begin(ends - 1)
            for remark in self.experiment.unreached():
                self.display.say(remark)
            if ends > start.epoch and (start.epoch or start.step):
                self.display.say(f"Resumed in epoch {start.epoch + 1} after step {start.step}.")
            for epoch in range(start.epoch, ends):
                self._train_epoch(epoch, batches, stop)
                row = self._finish_epoch(epoch)
                if tensorboard:
                    tensorboard.append(row, self.dataset.evaluated, self.recorder.added)
                if self.placement.any([stop.received])[0] and self.position.epoch < epochs:
                    self._stop(stop)
                if self.model.stop_training:
                    break
        self.signal = stop.received
        with self._averaged():  # a callback may put others in their place
            self.callbacks.on_train_end()
            self.weights = self.model.get_weights()
        if self.position.stopped:
            self._save()  # with what a callback has put back, which a later one would not know

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
            self._check_finite(logs, epoch, step)
            if self.average:
                self.average.update()
            self.callbacks.on_train_batch_end(step, logs)
            now = time.monotonic()
            self.position = Position(epoch, step + 1, now - began, now - self.started)
            images = min((step + 1) * self.data.batch_size, self.data.size)
            self.display.step(epoch, step + 1, images, logs)
            due = self._is_time_to_save(step + 1, now - saved)
            stopping, due = self.placement.any([stop.received, due])  # all save together
            if stopping or due:
                self._save()
                saved = time.monotonic()
            if stopping:
                self._stop(stop)

    def _is_time_to_save(self, step: int, seconds: float) -> bool:
        if self.experiment.checkpoint_steps is not None:
            return step % self.experiment.checkpoint_steps == 0
        return self.placement.is_chief and seconds > 60 * self.experiment.checkpoint_minutes

    def _finish_epoch(self, epoch: int) -> EpochRecord:
        """Evaluates, writes the row of the epoch and saves a checkpoint."""
        logs = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        done = epoch + 1
        test: dict[str, float] = {}
        meanwhile = None
        if done % self.experiment.evaluate_every == 0 or done == self.experiment.epochs:
            if not self._is_saved:  # it may take long; what is stopped in it is not the epoch
                meanwhile = self._save()
            with self._averaged():
                test = self._evaluate()
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
        with _disk_errors(self.folder):
            self.log.append(row)
        self.display.epoch(row, self.dataset.evaluated)
        logs.update({f"val_{name}": value for name, value in test.items()})
        self.recorder.known = frozenset(logs)
        with self._averaged():  # which the evaluation is of
            self.callbacks.on_epoch_end(epoch, logs)
        total = time.monotonic() - self.started
        self.position = Position(done, 0, 0.0, total, bool(self.model.stop_training))
        self._save(replaces=meanwhile)
        return row

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """The weights that count are in the network: their average, if the run has one."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def _evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the images to evaluate on; each worker and replica has its part."""
        place = self.placement
        if not place.distributed:
            return self.model.evaluate(self.test_batches, verbose=0, return_dict=True)
        # Keras' own way would split the batches once more, and count images twice.
        batches = place.strategy.distribute_datasets_from_function(
            lambda context: self.test_batches
        )
        return self.model.evaluate(batches, steps=self.test_steps, verbose=0, return_dict=True)

    def _learning_rate_at(self, epoch: int) -> float:
        rate = self.learning_rate
        if callable(self.experiment.optimizer):  # which may take the schedule or leave it
            rate = _rate_of(self.model.optimizer, rate)
        rate = rate(epoch * self.data.steps_per_epoch) if callable(rate) else rate
        return float(f"{float(tf.convert_to_tensor(rate)):.7g}")  # the digits that float32 has

    @property
    def _is_saved(self) -> bool:
        return self.last_saved == (self.position.epoch, self.position.step)

    def _save(self, replaces: pathlib.Path | None = None) -> pathlib.Path:
        with _disk_errors(self.folder):
            path = self.checkpoints.save(self.position, replaces)
        self.last_saved = self.position.epoch, self.position.step
        return path

    def _check_finite(self, logs: dict[str, float], epoch: int, step: int) -> None:
        what = next((k for k in ("loss", "gradient_norm") if not math.isfinite(logs.get(k, 0))), "")
        if not what:
            return
        where = first_not_finite(self.model, next(iter(self.data.batches(epoch, step))))
        raise TrainingError(
            f"The {what.replace('_', ' ')} became {logs[what]} in epoch {epoch + 1}, "
            f"step {step + 1}{where}. Try a lower learning_rate or gradient_clip_norm=1, with "
            f"--overwrite or another output_dir. {self.folder.describe_last()}"
        )

    def _stop(self, stop: StopRequest) -> None:
        raise _interrupted(stop.received, self.folder)

    def finish(self, command: list[str]) -> dict[str, Any]:
        """Writes the model, the numbers that belong to it and the learning curve."""
        metrics = self._write(self.weights, command) if self.placement.is_chief else None
        return self.placement.from_chief(metrics)

    def _draw(self) -> bool:
        labels = self.experiment.curve_labels
        try:
            return draw_learning_curve(
                self.folder.curve, self.log.rows, self.dataset.evaluated, labels
            )
        except OSError:
            raise
        except Exception as error:  # a picture is not worth the numbers of the run
            warnings.warn(f"The learning curve could not be drawn: {error}", stacklevel=2)
            return True

    def _write(self, weights: list, command: list[str]) -> dict[str, Any]:
        model = self.experiment.build_model(self.dataset)  # no optimizer, no strategy, float32
        model.set_weights(weights)
        copy_hyperparameters(self.model, model)
        with _disk_errors(self.folder), atomic(self.folder.model) as temporary:
            # Before the scores: whatever goes wrong there, the network of many hours is safe.
            tf.keras.Model(model.inputs, model.outputs, name=model.name).save(temporary)
        earlier = self.first_step["seconds"] if self.first_step else 0.0
        metrics = {
            "experiment": self.experiment.name,
            **self.experiment.score(model, self.dataset),
            "epochs": self.position.epoch,
            "seconds": round(self.position.total_seconds + earlier, 1),
            "seed": self.experiment.seed,
            "weights": model.count_params(),
            "configuration": self.experiment.to_dict(),
            "changed": self.experiment.changed(),
            "data": self.dataset.fingerprint(),
            "command": command,
            "sources": self.folder.sources,
            **self.folder.sessions[-1],
            "sessions": self.folder.sessions,
            "workers": self.placement.workers,
            "replicas": self.placement.strategy.num_replicas_in_sync,
        }
        with _disk_errors(self.folder):
            drawn = self._draw()
            write_json(self.folder.metrics, metrics)  # the last one: it says that all is there
        if not drawn:
            self.display.say("No learning curve: type `pip install matplotlib` to have it drawn.")
        self.display.say(
            f"{self.dataset.evaluated} {self.experiment.headline(metrics)}: {self.folder.path}"
        )
        return metrics


def _interrupted(signal: str | None, folder: RunFolder) -> TrainingInterrupted:
    return TrainingInterrupted(
        f"Stopped by {signal or 'another worker'}. {folder.describe_last()} {_TO_CONTINUE}"
    )


@contextlib.contextmanager
def _disk_errors(folder: RunFolder) -> Iterator[None]:
    """Says what to do where nothing can be written; what was written before is whole."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{error} {folder.describe_last()}") from error
    except (OSError, tf.errors.ResourceExhaustedError, tf.errors.UnknownError) as error:
        raise TrainingError(
            f"Cannot write to {folder.path}: {str(error).splitlines()[0]}. Make room there, then "
            f"give the same command with --resume. {folder.describe_last()}"
        ) from error


def _rate_of(optimizer: Any, otherwise: Any) -> Any:
    """The learning rate or schedule of an optimizer; one of several optimizers has none."""
    if isinstance(optimizer, lq.optimizers.CaseOptimizer):
        return otherwise
    if isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer):
        return optimizer._hyper.get("learning_rate", otherwise)
    return getattr(optimizer, "_learning_rate", otherwise)


class _Recorder(tf.keras.callbacks.Callback):
    """Last in the list, so it sees the values that the callbacks before it put into the logs."""

    known: frozenset[str] = frozenset()
    added: dict[str, float]

    def on_epoch_end(self, epoch, logs=None):
        self.added = {name: value for name, value in logs.items() if name not in self.known}
