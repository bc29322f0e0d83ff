"""Every trained model of the package: whole files, one-bit layers, the outputs it always had.

After a model was added or trained again: `python tests/zoo/test_shipped.py` stores its outputs.
"""

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import json
import pathlib

import numpy as np
import pytest

import larq_ext_zoo as zoo
from larq_ext_zoo import registry

GOLDEN = pathlib.Path(__file__).with_name("golden.json")
# A rounding in another order may turn a sign here and there, and then a sample is another one.
SAMPLES, EQUAL = 16, 14

# Not from the registry, which would read a developer's own entries when this is imported.
SHIPPED = sorted(path.stem for path in registry.SHIPPED.glob("*.json"))


def inputs(name):
    """Noise, as the network sees it after preparation."""
    shape = (SAMPLES, *zoo.entry(name).input_size)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def samples_that_agree(one, other):
    return np.isclose(one, other, rtol=1e-3, atol=1e-4).all(axis=1).sum()


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
    assert samples_that_agree(outputs, json.loads(GOLDEN.read_text())[name]) >= EQUAL
    assert np.ptp(outputs, axis=0).max() > 0.1, "outputs that do not depend on the image"

    conversion = lqx.deploy.convert(model)
    kinds = (lqx.layers.QuantConv2D, lqx.layers.QuantDense)
    binary = [x for x in entry.network(**entry.arguments).layers if isinstance(x, kinds)]
    assert conversion.report.ok
    assert conversion.report.binary == conversion.report.expected == len(binary) > 0
    deployed = lqx.runtime.Interpreter(conversion.flatbuffer).predict(x)
    assert samples_that_agree(outputs, deployed) >= EQUAL

    assert entry.accuracy is not None and entry.recipe["experiment"]
    assert entry.weights["deployable"].bytes < 200_000
    for file in ("log", "curve"):
        assert (entry.folder / entry.recipe[file]).is_file()


if __name__ == "__main__":
    stored = {
        name: zoo.get(name)(inputs(name), training=False).numpy().round(6).tolist()
        for name in SHIPPED
    }
    GOLDEN.write_text(json.dumps(stored) + "\n")
    print(f"{GOLDEN}: {', '.join(stored)}")
