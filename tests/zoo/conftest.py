"""What the tests of the zoo share: a local folder of their own, and a run to make entries from."""

import json
import statistics
from types import SimpleNamespace

import numpy as np
import pytest

import larq_ext  # noqa: F401  isort: skip  (Keras 2, before anything uses tf.keras)
import tensorflow as tf

import larq_ext_zoo as zoo
from larq_ext_zoo import registry

METHOD = "siman"  # its kernels cannot be told from their signs


@pytest.fixture(scope="session", autouse=True)
def local_folder(tmp_path_factory):
    """`LARQ_EXT_HOME` for these tests: a developer's own entries must not be seen."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("home")
        patch.setenv("LARQ_EXT_HOME", str(path))
        yield path


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """An empty `LARQ_EXT_HOME`, and the registry as it was afterwards."""
    entries, folders = dict(registry._ENTRIES), dict(registry._FOLDERS)
    monkeypatch.setenv("LARQ_EXT_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    registry._ENTRIES.clear()
    registry._ENTRIES.update(entries)
    registry._FOLDERS.clear()
    registry._FOLDERS.update(folders)


@pytest.fixture(scope="session")
def digits():
    """Pixels of 0 to 16 and labels."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    return SimpleNamespace(pixels=data.images[..., None], labels=data.target)


@pytest.fixture(scope="session")
def write_run(digits):
    """A function that writes the folder of a run as recipes do, and gives back its record."""

    def write(folder, model, images, *, seed=0, **configuration):
        folder.mkdir(parents=True)
        model.save(folder / "model.keras")
        right = model(images, training=False).numpy().argmax(-1) == digits.labels
        metrics = {
            "experiment": "Digits",
            "evaluated_on": f"{len(right)} test images",
            "top1": statistics.fmean(map(float, right)),
            "loss": 0.5,
            "epochs": 2,
            "seconds": 1.0,
            "seed": seed,
            "weights": model.count_params(),
            "configuration": {
                "name": "Digits",
                "network": "DigitsNet",
                "quantizer": METHOD,
                "dataset": "digits",
                "data_dir": "/somewhere/of/mine",
                "output_dir": str(folder),
                "epochs": 2,
                "seed": seed,
                "network_options": "pad_values=1.0",
                **configuration,
            },
            "changed": ["data_dir", "epochs", "network_options"],
            "data": "0" * 64,
            "command": ["larq-ext", "train", "Digits", f"output_dir={folder}"],
            "hardware": {"cpu": "a cpu"},
            "versions": {"python": "3"},
        }
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "log.csv").write_text("epoch,loss\n1,2.0\n2,0.5\n")
        (folder / "learning_curve.png").write_bytes(b"a picture")
        return metrics

    return write


@pytest.fixture(scope="session")
def run(tmp_path_factory, digits, write_run):
    """A network trained for seconds: folder, model, inputs and record."""
    tf.keras.utils.set_random_seed(0)
    images = ((digits.pixels / 16 - 0.5) / 0.5).astype("float32")
    model = zoo.DigitsNet(quantizer=METHOD, pad_values=1.0)
    model.compile(tf.keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(images, digits.labels, epochs=1, batch_size=32, verbose=0)
    folder = tmp_path_factory.mktemp("runs") / "Digits"
    metrics = write_run(folder, model, images)
    return SimpleNamespace(folder=folder, model=model, images=images, metrics=metrics)


@pytest.fixture(scope="session")
def published(run, local_folder, tmp_path_factory):
    """The entry of that run, in a folder of its own."""
    return zoo.add_entry(run.folder, "digits_net.siman_test", tmp_path_factory.mktemp("entries"))


@pytest.fixture(scope="session")
def inputs(run):
    return run.images[:100]


def randomised(model, seed=0):
    """The same model with random weights; variances above zero."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        values = [generator.normal(size=w.shape).astype("float32") for w in layer.get_weights()]
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            values[-1] = 1.0 + np.abs(values[-1])
        layer.set_weights(values)
    return model


@pytest.fixture(scope="session")
def randomise():
    return randomised
