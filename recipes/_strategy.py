"""Where a training runs: one device, all GPUs of a machine, several machines, a TPU."""

from __future__ import annotations

import dataclasses
import json
import os

import tensorflow as tf

from larq_ext_recipes._errors import UsageError

_EXAMPLE = (
    'TF_CONFIG=\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}\''
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


def place(name: str) -> Placement:
    """Makes the strategy of this name. It must come before any other work with TensorFlow.

    # Arguments
        name: `"none"`, `"mirrored"`, `"multiworker"` or `"tpu"`.

    # Raises
        UsageError: if the machine or the environment has not what it needs.
    """
    if name == "none":
        return Placement(tf.distribute.get_strategy())
    if name == "mirrored":
        strategy = tf.distribute.MirroredStrategy()
        return Placement(strategy, replicas=strategy.num_replicas_in_sync)
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
        except Exception as error:  # each kind of environment without a TPU fails in its own way
            raise UsageError(
                "strategy=tpu found no TPU: run it on a machine that has one, with TPU_NAME set "
                f"as its provider says ({str(error).splitlines()[0]})."
            ) from error
        strategy = tf.distribute.TPUStrategy(resolver)
        return Placement(strategy, replicas=strategy.num_replicas_in_sync)
    worker, workers = _read_cluster(os.environ.get("TF_CONFIG"))
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return Placement(strategy, worker, workers, strategy.num_replicas_in_sync // workers)


def _read_cluster(text: str | None) -> tuple[int, int]:
    """This worker's number and how many there are, of the variable that TensorFlow reads."""
    if not text:
        raise UsageError(
            "strategy=multiworker needs TF_CONFIG, on each machine with its own index: "
            f"export {_EXAMPLE}"
        )
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        index = int(task["index"])
        if task["type"] != "worker" or not 0 <= index < len(workers):
            raise ValueError(f"{task} is none of {len(workers)} workers")
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"TF_CONFIG cannot be read ({error!r}); it looks like {_EXAMPLE}"
        ) from error
    return index, len(workers)
