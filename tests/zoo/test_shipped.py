"""Every trained model of the package: whole files, one-bit layers, the outputs it always had.

After a model was added or trained again: `python tests/zoo/test_shipped.py` stores its outputs.
"""

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import json
import pathlib

import numpy as np
import pytest

import larq_ext_recipes as recipes
import larq_ext_zoo as zoo
from larq_ext_zoo import registry

GOLDEN = pathlib.Path(__file__).with_name("golden.json")
SAMPLES, STABLE = 32, 8

# Not from the registry, which would read a developer's own entries when this is imported.
SHIPPED = sorted(path.stem for path in registry.SHIPPED.glob("*.json"))


def inputs(name):
    """Squares of noise, as the network sees them after preparation: single pixels are all alike."""
    height, width, channels = zoo.entry(name).input_size
    coarse = (SAMPLES, height // 4, width // 4, channels)
    noise = np.random.default_rng(0).normal(size=coarse).astype("float32")
    return noise.repeat(4, axis=1).repeat(4, axis=2)


def agree(one, other):
    return np.isclose(one, other, rtol=1e-3, atol=1e-4).all(axis=1)


def stable(model, x, outputs):
    """Samples in which a rounding in another order, as elsewhere, turns no sign that matters."""
    changed = [model(x * np.float32(1 + change), training=False) for change in (1e-5, -1e-5)]
    return np.logical_and.reduce([agree(outputs, other) for other in changed])


def test_the_outputs_of_every_model_are_stored():
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(SHIPPED)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model(name):
    entry = zoo.entry(name)
    # Its file is there and has the hash of the entry, or `get` would say so.
    model = zoo.get(name)
    x = inputs(name)
    outputs = model(x, training=False).numpy()
    sure = stable(model, x, outputs)
    assert sure.sum() >= STABLE
    stored = agree(outputs, json.loads(GOLDEN.read_text())[name])
    assert stored[sure].mean() > 0.9
    assert np.ptp(outputs, axis=0).max() > 0.1, "outputs that do not depend on the image"

    is_float = entry.arguments["quantizer"] is None
    conversion = lqx.deploy.convert(model, allow_float=is_float)
    kinds = (lqx.layers.QuantConv2D, lqx.layers.QuantDense)
    binary = [x for x in entry.network(**entry.arguments).layers if isinstance(x, kinds)]
    assert conversion.report.ok != is_float, "ok is a proof of binary layers"
    assert conversion.report.binary == conversion.report.expected == len(binary)
    assert bool(binary) != is_float
    deployed = lqx.runtime.Interpreter(conversion.flatbuffer).predict(x)
    assert agree(outputs, deployed)[sure].mean() > 0.9

    assert entry.accuracy is not None and entry.recipe["experiment"]
    assert entry.weights["deployable"].bytes < (1_200_000 if is_float else 200_000)
    for file in ("log", "curve"):
        assert (entry.folder / entry.recipe[file]).is_file()


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.endswith("_digits")])
def test_the_accuracy_of_a_shipped_model(name):
    """Measured again on all test images; one image is for rounding on another machine."""
    found = recipes.evaluate(name)
    accuracy = zoo.entry(name).accuracy
    assert accuracy.data == f"{found['n']} test images of digits"
    assert found["top1"] == pytest.approx(accuracy.value, abs=1.5 / found["n"])


if __name__ == "__main__":
    stored = {
        name: zoo.get(name)(inputs(name), training=False).numpy().round(6).tolist()
        for name in SHIPPED
    }
    GOLDEN.write_text(json.dumps(stored) + "\n")
    print(f"{GOLDEN}: {', '.join(stored)}")
