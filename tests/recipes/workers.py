"""Trainings on several workers or devices, as a program that the tests start as often as needed."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import tensorflow as tf
import zookeeper
from tiny import SignalAt, tiny_experiment

import larq_ext_recipes as recipes
from larq_ext_recipes.datasets import ArrayDataset
from larq_ext_recipes.datasets.cifar10 import CLASSES, MEAN, STD
from larq_ext_zoo import _common as common

HERE = pathlib.Path(__file__)


class Steps(tf.keras.callbacks.Callback):
    """Writes down what this worker hears of each step."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.path, self.logs = path, []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(logs)
        self.path.write_text(json.dumps(self.logs))


def mixed_network(*, input_shape, num_classes, quantizer):
    """A layer of each method, and two that share a classifier."""
    image = tf.keras.Input(input_shape)
    x = common.norm(common.real_conv(image, 16, 3, 2, "stem"), "stem_norm")
    classifier = common.BinaryLayers("mlp_classifier")
    layers = [common.BinaryLayers("fda"), common.BinaryLayers("siman"), classifier, classifier]
    for index, binary in enumerate(layers):
        y = common.norm(binary.conv(x, 16, name=f"conv{index}"), f"norm{index}")
        x = common.prelu(tf.keras.layers.add([x, y]), f"prelu{index}")
    x = common.classes(tf.keras.layers.GlobalAveragePooling2D()(x), num_classes)
    return tf.keras.Model(image, x, name="mixed")


def experiment(run: dict, pictures: str | None) -> recipes.Experiment:
    """An experiment from its fields; one of the package on a few pictures of CIFAR-10."""
    fields = dict(run)
    name = fields.pop("experiment", None)
    if name is None:
        return tiny_experiment(fields.pop("output_dir"), **fields)

    def load_data(self):
        with np.load(pictures) as file:
            train, test = ((file[f"{s}_images"], file[f"{s}_labels"]) for s in ("train", "test"))
        return ArrayDataset("cifar10", train, test, CLASSES, MEAN, STD)

    if fields.get("network") == "mixed":
        fields["network"] = mixed_network
    base = type(recipes.get_experiment(name))
    few = zookeeper.component(type(name, (base,), {"load_data": load_data, "__doc__": "A test."}))
    return recipes.configure(few, fields)


def main(plan: str, worker: int, steps: int, number: int, *options: str) -> None:
    """Does the runs of a plan; a signal may arrive after some steps of the last one."""
    plan = json.loads(pathlib.Path(plan).read_text())
    if plan.get("devices"):
        one = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * plan["devices"]
        tf.config.set_logical_device_configuration(one, parts)
    for run in plan["runs"]:
        path = pathlib.Path(f"{run['output_dir']}-{worker}{''.join(options)}.json")
        callbacks = [Steps(path)]
        if steps and run is plan["runs"][-1]:
            callbacks.append(SignalAt(steps, number))
        try:
            recipes.train(
                experiment(run, plan.get("pictures")),
                resume="--resume" in options,
                callbacks=callbacks,
            )
        except recipes.TrainingInterrupted as stop:
            print(stop)
            sys.exit(130)
        except (recipes.TrainingError, recipes.UsageError) as error:
            print(f"Error: {error}")
            sys.exit(1)


def start(
    plan: pathlib.Path,
    *options: str,
    workers: int = 0,
    signals: Mapping[int, tuple[int, int]] = MappingProxyType({}),
) -> list[subprocess.Popen]:
    """Starts this program, once or as several workers on ports that are free.

    # Arguments
        plan: The file with the runs.
        *options: `--resume`.
        workers: How many workers; 0 is no cluster.
        signals: For a worker, after how many steps of the last run it gets which signal.
    """
    environment = dict(os.environ)
    processes = []
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = [f"127.0.0.1:{port.getsockname()[1]}" for port in ports]
    for port in ports:
        port.close()
    for worker in range(max(workers, 1)):
        if workers:
            task = {"type": "worker", "index": worker}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        steps, number = signals.get(worker, (0, 0))
        numbers = [str(value) for value in (worker, steps, int(number))]
        command = [sys.executable, str(HERE), str(plan), *numbers, *options]
        output = plan.with_suffix(f".{worker}{''.join(options)}.txt").open("w")
        processes.append(
            subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        )
    return processes


def outputs(plan: pathlib.Path, *options: str, workers: int = 1) -> list[str]:
    """What the processes printed."""
    files = [plan.with_suffix(f".{worker}{''.join(options)}.txt") for worker in range(workers)]
    return [file.read_text() for file in files]


if __name__ == "__main__":
    main(sys.argv[1], *(int(number) for number in sys.argv[2:5]), *sys.argv[5:])
