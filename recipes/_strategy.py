"""Where a training runs: one device, all GPUs of a machine, several machines, a TPU."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext_recipes._errors import TrainingError, UsageError

# Seconds to wait for the answer of a TPU.
_REACH = 10

_EXAMPLE = (
    'TF_CONFIG=\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}\''
)

# What TensorFlow says when another worker is gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
)


@dataclasses.dataclass(frozen=True)
class Placement:
    """TensorFlow's strategy and this process's part in it.

    # Arguments
        strategy: The strategy.
        worker: Number of this process, from 0; the first one writes the results.
        workers: Number of processes.
        replicas: Devices of this process that compute side by side.
    """

    strategy: tf.distribute.Strategy
    worker: int = 0
    workers: int = 1
    replicas: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the results."""
        return self.worker == 0

    @property
    def distributed(self) -> bool:
        """Whether there is more than Keras' usual one device."""
        return not isinstance(self.strategy, type(tf.distribute.get_strategy()))

    def from_chief(self, value: Any) -> Any:
        """What the first worker gives here, for all workers; it must fit into JSON."""
        if self.workers == 1:
            return value
        text = json.dumps(value).encode() if self.is_chief else b""
        size = int(self._first([np.int64(len(text))])[0])
        letters = np.frombuffer(text or bytes(size), np.uint8).astype(np.int64)
        return json.loads(self._first([letters])[0].numpy().astype(np.uint8).tobytes())

    def share(self, variables: Iterable[tf.Variable]) -> None:
        """Gives all workers the first one's values of variables."""
        variables = list(variables)
        if self.workers == 1 or not variables:
            return
        parts = [self.strategy.experimental_local_results(variable) for variable in variables]
        self.put(variables, self._first([part[0] for part in parts]))

    def put(self, variables: Iterable[tf.Variable], values: Iterable[Any]) -> None:
        """Assigns values in this worker alone."""
        for variable, value in zip(variables, values, strict=True):
            # Part by part, as what is a sum of all replicas' parts would be divided by an
            # assignment, and others are exchanged between workers by one.
            whole = self.workers == 1
            parts = [variable] if whole else self.strategy.experimental_local_results(variable)
            for part in parts:
                part.assign(value)

    def any(self, flags: Iterable[bool]) -> list[bool]:
        """For each flag whether it is set on any worker."""
        flags = [bool(flag) for flag in flags]
        if self.workers == 1:
            return flags
        counts = self._sum([tf.constant(flags, tf.int64)])[0]
        return [bool(count) for count in counts.numpy()]

    @contextlib.contextmanager
    def lost_workers(self, last: Callable[[], str]) -> Iterator[None]:
        """Turns what TensorFlow says when a worker is gone into one sentence.

        # Arguments
            last: Says which checkpoint is the last one.

        # Raises
            TrainingError: if that happens in the block.
        """
        try:
            yield
        except _LOST as error:
            if self.workers == 1:
                raise
            tasks = re.findall(r"/job:\w+(?:/replica:\d+)?/task:(\d+)", str(error))
            others = sorted({int(task) for task in tasks} - {self.worker})
            who = f"Worker {others[0]}" if len(others) == 1 else "Another worker"
            raise TrainingError(
                f"{who} was lost: see what it said last, then start all {self.workers} workers "
                f"again with --resume. {last()}"
            ) from error

    def _first(self, values: list) -> list[tf.Tensor]:
        """What the first worker has."""
        if not self.is_chief:
            values = [tf.zeros_like(value) for value in values]
        return self._sum([tf.convert_to_tensor(value) for value in values])

    @functools.cached_property
    def _sum(self) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
        """Adds up what the workers have."""

        @functools.partial(tf.function, autograph=False)
        def total(values):
            def of_replica():
                replica = tf.distribute.get_replica_context()
                counts = replica.replica_id_in_sync_group % self.replicas == 0
                mine = [tf.where(counts, value, tf.zeros_like(value)) for value in values]
                # One by one: together they would have to be of one type.
                return [replica.all_reduce(tf.distribute.ReduceOp.SUM, value) for value in mine]

            sums = self.strategy.run(of_replica)
            return [self.strategy.experimental_local_results(value)[0] for value in sums]

        return total


def place(name: str, *, quiet: bool = False) -> Placement:
    """Makes the strategy of this name. It must come before any other work with TensorFlow.

    # Arguments
        name: `"none"`, `"mirrored"`, `"multiworker"` or `"tpu"`.
        quiet: Whether to leave out whom it waits for.

    # Raises
        UsageError: if the machine or the environment has not what it needs.
    """
    if name == "none":
        return Placement(tf.distribute.get_strategy())
    if name == "mirrored":
        return _mirrored()
    if name == "tpu":
        return _tpu()
    return _multiworker(os.environ.get("TF_CONFIG", ""), quiet)


@functools.cache  # a second one would take the keys of the first one's exchanges for its own
def _mirrored() -> Placement:
    strategy = tf.distribute.MirroredStrategy()
    return Placement(strategy, replicas=strategy.num_replicas_in_sync)


@functools.cache  # a process joins a cluster once, and may train twice
def _multiworker(config: str, quiet: bool) -> Placement:
    worker, addresses = read_cluster(config)
    if not quiet:
        print(
            f"Worker {worker} of {len(addresses)} at {addresses[worker]} waits for the others: "
            f"{', '.join(a for i, a in enumerate(addresses) if i != worker)}.",
            flush=True,
        )
    try:
        with _default_interrupt():
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UsageError(
            "strategy=multiworker must come before all other work with TensorFlow: start the "
            "training first in a new process."
        ) from error
    except tf.errors.OpError as error:
        raise UsageError(
            f"Worker {worker} cannot join the others as {addresses[worker]}: "
            f"{str(error).splitlines()[0]}. Is the port taken, or another name or port meant?"
        ) from error
    count = len(addresses)
    return Placement(strategy, worker, count, strategy.num_replicas_in_sync // count)


def read_cluster(text: str) -> tuple[int, list[str]]:
    """This worker's number and the addresses of all, of the variable that TensorFlow reads.

    # Arguments
        text: The content of `TF_CONFIG`. Workers of the type `chief` come first.

    # Raises
        UsageError: if it is empty or cannot be read.
    """
    if not text:
        raise UsageError(
            "strategy=multiworker needs TF_CONFIG, on each machine with its own index: "
            f"export {_EXAMPLE}"
        )
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        tasks = [
            (kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))
        ]
        addresses = [cluster[kind][i] for kind, i in tasks]
        index = tasks.index((task["type"], int(task["index"])))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"TF_CONFIG cannot be read ({error!r}); it looks like {_EXAMPLE}"
        ) from error
    return index, addresses


@contextlib.contextmanager
def _default_interrupt() -> Iterator[None]:
    """Lets Ctrl-C end the process while TensorFlow waits, where Python would not get to it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@functools.cache  # starting the TPU again would empty its memory
def _tpu() -> Placement:
    name = os.environ.get("TPU_NAME", "local")
    if "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS" in os.environ:
        name = ""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_REACH)  # neither looking up a name nor connecting has one
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        for address in resolver.cluster_spec().as_dict().get("worker", []):
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port))).close()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # each kind of environment without a TPU fails in its own way
        raise UsageError(
            "strategy=tpu found no TPU: run it on a machine that has one, with TPU_NAME set as "
            f"its provider says, now {name or 'KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS'!r} "
            f"({str(error).splitlines()[0]:.200})."
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    strategy = tf.distribute.TPUStrategy(resolver)
    return Placement(strategy, replicas=strategy.num_replicas_in_sync)
