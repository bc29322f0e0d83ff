"""Small networks of each method that are saved by one process and read by another.

Run as a program, `python saved_networks.py FOLDER` reads all that lies in the folder and writes
what came of it to `read.json` and `read.npz` there.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import larq_ext as lqx  # isort: skip
import numpy as np
import tensorflow as tf

METHODS = ("fda", "learnable_scale", "siman", "mlp_classifier")
FORMATS = (".keras", ".h5", ".weights.h5", ".savedmodel", ".checkpoint")

# Filters of 27 and 45 weights: sums of an odd number of +-1 are never zero, whose sign would
# depend on the last bit of a scale.
SHAPE = (5, 5, 3)


def network(name: str) -> tf.keras.Model:
    arguments = lqx.quantizers.network_arguments(name)
    return tf.keras.Sequential(
        [
            tf.keras.Input(SHAPE),
            lqx.layers.QuantConv2D(5, 3, padding="same", name="one", **arguments()),
            tf.keras.layers.BatchNormalization(name="norm"),
            lqx.layers.QuantConv2D(7, 3, name="two", **arguments()),
            tf.keras.layers.GlobalAveragePooling2D(name="pool"),
            lqx.layers.QuantDense(3, name="three", **arguments()),
        ],
        name=name,
    )


def trained(name: str) -> tf.keras.Model:
    """A network with weights of its own and hyperparameters off their start values."""
    tf.keras.utils.set_random_seed(1)
    model = network(name)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if "kernel:0" in variable.name:
            continue
        values = generator.uniform(0.2, 1.0, variable.shape)
        if name == "learnable_scale" and "scale" in variable.name:
            values *= generator.choice([-1, 1], variable.shape)
        variable.assign(values.astype("float32"))
    set_hyperparameters(model)
    return model


def set_hyperparameters(model):
    for layer in model.layers:
        for holder in holders(layer):
            for name, value in {"n": 13, "alpha": 0.03, "percent": 7.5}.items():
                if name in lqx.quantizers.hyperparameters(holder):
                    setattr(holder, name, value)


def holders(layer):
    parts = ("input_quantizer", "kernel_quantizer", "kernel_constraint")
    return [getattr(layer, part) for part in parts if getattr(layer, part, None) is not None]


def hyperparameters(model) -> list:
    return [
        [layer.name, name, getattr(holder, name)]
        for layer in model.layers
        for holder in holders(layer)
        for name in lqx.quantizers.hyperparameters(holder)
    ]


def pictures() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(6, *SHAPE)).astype("float32")


def save(model, path: pathlib.Path) -> None:
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    elif path.suffix == ".checkpoint":
        tf.train.Checkpoint(model=model).write(str(path))
        path.write_text("")
    elif path.suffix == ".savedmodel":
        model.save(path, save_format="tf")
    else:
        model.save(path)


def load(path: pathlib.Path) -> tf.keras.Model:
    name = path.name.split(".")[0].split("-")[0]
    if path.name.endswith(".weights.h5"):
        model = network(name)
        model.load_weights(path)
    elif path.suffix == ".checkpoint":
        model = network(name)
        tf.train.Checkpoint(model=model).read(str(path)).assert_consumed()
    else:
        model = tf.keras.models.load_model(path, compile=False)
    return model


def read(folder: pathlib.Path) -> None:
    answers, arrays = {}, {}
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(FORMATS):
            continue
        model = load(path)
        arrays[path.name] = model(pictures(), training=False).numpy()
        answers[path.name] = {
            "hyperparameters": hyperparameters(model),
            "quantizers": len({id(x.kernel_quantizer) for x in model.layers
                               if hasattr(x, "kernel_quantizer")}),
            "weights": len(model.weights),
            "scheduled": [c.attribute for c in lqx.callbacks.method_schedules(model.name, 2)],
        }  # fmt: skip
    np.savez(folder / "read.npz", **arrays)
    (folder / "read.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    read(pathlib.Path(sys.argv[1]))
