"""Runs of a comparison in processes of their own.

A run that needs too much memory, or breaks TensorFlow, ends itself and nothing else; and each one
starts as `larq-ext train` starts, whatever ran before it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pathlib
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import tensorflow as tf

from larq_ext_recipes._base_experiment import configure
from larq_ext_recipes._environment import hardware, versions
from larq_ext_recipes._errors import TrainingError, TrainingInterrupted, UsageError
from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._run_folder import RunFolder
from larq_ext_recipes._signals import StopRequest
from larq_ext_recipes._start import check_start
from larq_ext_recipes._trainer import run_experiment
from larq_ext_recipes.datasets import DatasetError

_PROGRESS_SECONDS = 0.3

# What is sent to a process: zookeeper's instances cannot be pickled, their classes and values can.
Sent = tuple[type[Experiment], dict[str, Any]]


def sent(experiment: Experiment) -> Sent:
    """The experiment in the form that another process can read.

    # Raises
        UsageError: if its class, or a function among its settings, is in no module.
    """
    form = type(experiment), experiment.values()
    try:
        pickle.dumps(form)
    except Exception as error:
        raise UsageError(
            f"{experiment.name} cannot be sent to another process: {error}. Define the class and "
            "the functions in its settings at the top of a module that can be imported."
        ) from error
    return form


def check(experiments: list[Sent]) -> dict[str, Any]:
    """Loads the data and makes each run's parts once: what is wrong shows before the first one.

    # Arguments
        experiments: One for each contender.

    # Returns
        `data` (its fingerprint), `evaluated_on`, `trained_on`, `hardware` and `versions`.

    # Raises
        UsageError: if a network, a teacher or weights cannot be had, or the data are not the same.
        DatasetError: if the data is missing or damaged.
    """
    facts: list[tuple[str, str, str]] = []
    loaded = dataset = None
    for kind, values in experiments:
        experiment = configure(kind, values)
        fields = ("dataset", "data_dir", "image_size", "holdout", "limit")
        wanted = [values[field] for field in fields]
        if wanted != loaded:
            dataset, loaded = experiment.load_data(), wanted
            images = f"{dataset.test_size} {dataset.evaluated} images of {dataset.name}"
            facts.append((dataset.fingerprint(), images, f"{dataset.train_size} images"))
        check_start(experiment, dataset)
        tf.keras.backend.clear_session()
    if len(set(facts)) > 1:
        images = "; ".join(sorted({f"{trained} and {tested}" for _, tested, trained in facts}))
        raise UsageError(
            f"These cannot be compared, their data are not the same ({images}): give the same "
            "dataset, image_size, holdout and limit to all."
        )
    data, evaluated_on, trained_on = facts[0]
    return {
        "data": data,
        "evaluated_on": evaluated_on,
        "trained_on": trained_on,
        "hardware": hardware(),
        "versions": versions(),
    }


def train(experiment: Sent, command: list[str], *, report: Callable[[float, str], None]) -> None:
    """Trains from the start, or on from the last checkpoint.

    # Arguments
        experiment: What to train; its output folder was checked.
        command: The command line to record.
        report: Gets the share of the run that is done and a text.
    """
    run = configure(*experiment)
    folder = RunFolder(run)
    callbacks = [_Progress(run, folder, report)]
    run_experiment(run, resume=folder.run.exists(), callbacks=callbacks, command=command)


class _Progress(tf.keras.callbacks.Callback):
    """Reports the share of both steps of a run that is done."""

    def __init__(
        self, run: Experiment, folder: RunFolder, report: Callable[[float, str], None]
    ) -> None:
        super().__init__()
        self._first, self._all = run.first_step_epochs, run.first_step_epochs + run.epochs
        self._folder, self._report = folder, report
        self._last = 0.0

    def on_train_begin(self, logs=None):
        first_is_done = (self._folder.first_step / self._folder.metrics.name).exists()
        self._before = self._first if first_is_done else 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = self._before + epoch
        self._send(0)

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self._last > _PROGRESS_SECONDS:
            self._send(batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        self._send(self.params["steps"])

    def _send(self, steps: int) -> None:
        self._last = time.monotonic()
        share = (self._epoch + steps / self.params["steps"]) / self._all
        self._report(share, f"epoch {self._epoch + 1}/{self._all}")


def call(
    function: Callable[..., Any],
    *arguments: Any,
    stop: StopRequest,
    messages: pathlib.Path | None = None,
    report: Callable[[float, str], None] | None = None,
) -> Any:
    """Calls a function of this module in a new process and waits for it.

    # Arguments
        function: What to call.
        *arguments: Its arguments.
        stop: When a signal was received, the process is asked to save a checkpoint and end.
        messages: File that everything the process prints is added to; `None` drops it.
        report: Gets what the function reports, in this process.

    # Returns
        What the function returned.

    # Raises
        UsageError, DatasetError, TrainingError: what the function raised.
        TrainingError: if the process died or has a bug, too.
        TrainingInterrupted: if it was stopped.
    """
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, messages, function, arguments, report is not None)
    process = context.Process(target=_serve, args=arguments, daemon=True)
    asked = False
    try:
        process.start()  # in here: Ctrl-C ends the server that starts it, too
        sender.close()  # so that the end of the process is the end of the pipe
        while True:
            if stop.received and not asked:
                asked = True
                process.terminate()
            if not receiver.poll(0.2):
                continue
            kind, content = receiver.recv()
            if kind == "progress":
                report(*content)
            elif kind == "returned":
                return content
            else:
                raise content
    except (EOFError, ConnectionError):
        if process.pid is not None:
            process.join()
        if stop.received:
            raise TrainingInterrupted from None
        raise TrainingError(_last_words(process.exitcode, messages)) from None
    finally:
        receiver.close()
        if process.pid is not None:
            process.join(10)
            if process.is_alive():  # only after an error here, such as a second Ctrl-C
                process.kill()
                process.join()


def _serve(
    sender: Connection,
    messages: pathlib.Path | None,
    function: Callable[..., Any],
    arguments: tuple,
    reports: bool,
) -> None:
    """The new process: calls the function and sends what came of it."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C goes to the parent alone, which asks once
    # What ends a job sends SIGTERM to all its processes, and then the parent asks as well.
    StopRequest.second_acts = False

    def report(*content: Any) -> None:
        try:
            sender.send(("progress", content))
        except OSError:  # the parent is gone: save a checkpoint and end
            os.kill(os.getpid(), signal.SIGTERM)

    _redirect(messages)
    expected = (UsageError, DatasetError, TrainingError, TrainingInterrupted)
    try:
        reply = "returned", function(*arguments, **({"report": report} if reports else {}))
    except expected as error:
        reply = "raised", error
    except Exception as error:
        traceback.print_exc()
        first = str(error).strip().partition("\n")[0].rstrip(".")
        where = f" The traceback is in {messages}." if messages else ""
        reply = "raised", TrainingError(f"{type(error).__name__}: {first}.{where}")
    with contextlib.suppress(OSError):
        sender.send(reply)


def _redirect(messages: pathlib.Path | None) -> None:
    """Sends what this process prints, from native code too, to a file."""
    if messages is not None:
        messages.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(messages or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _last_words(code: int | None, messages: pathlib.Path | None) -> str:
    where = f" What it printed last is in {messages}." if messages else ""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        memory = ", as the system does where memory is short" if name == "SIGKILL" else ""
        return f"The process of the run was ended by {name}{memory}.{where}"
    return (
        f"The process of the run ended with exit code {code}.{where} A program that calls "
        '`compare` must do so below `if __name__ == "__main__":`.'
    )


def _context() -> multiprocessing.context.BaseContext:
    """How processes are started.

    On Linux a server imports TensorFlow once and forks for each run, before any operation of
    TensorFlow's was called; elsewhere each process imports it again.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["larq_ext_recipes"])
    with _no_stderr():
        multiprocessing.forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """The server keeps the standard error it is started with: none, for what the import writes."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
