"""The examples of README and of the guide to own networks do what they say."""

import re

import numpy as np
import pytest

import larq_ext as lqx
from larq_ext.deploy._flatbuffer import load_flatbuffer, read_graph


@pytest.mark.slow
def test_the_ten_lines(request, tmp_path, monkeypatch):
    text = (request.config.rootpath / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"## In ten lines\n\n```python\n(.*?)```", text, re.DOTALL)
    assert sum(bool(line) for line in lines.splitlines()) == 10
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    names = {
        "pixels": generator.integers(0, 256, (16, 32, 32, 3), np.uint8),
        "labels": generator.integers(0, 10, 16),
    }
    exec(lines.replace("epochs=60", "epochs=2"), names)
    assert names["conversion"].report.ok
    operators = read_graph(load_flatbuffer("resnet20.tflite")).op_counts()
    assert operators["LceBconv2d"] == 18
    expected = names["conversion"].model.predict(names["images"], verbose=0)
    assert names["outputs"].shape == expected.shape == (16, 10)
    # What is so little trained has sums near 0, whose signs a rounding error turns.
    assert np.median(np.abs(names["outputs"] - expected)) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("method", lqx.quantizers.METHODS)
def test_a_network_of_your_own(request, tmp_path, monkeypatch, method):
    text = (request.config.rootpath / "docs" / "own_network.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    names = {
        "images": generator.normal(size=(16, 32, 32, 3)).astype("float32"),
        "labels": generator.integers(0, 10, 16),
    }
    code = "".join(blocks).replace("epochs=60", "epochs=1").replace('"siman"', repr(method))
    exec(code, names)
    assert lqx.deploy.lint(names["model"]).ok
    operators = read_graph(load_flatbuffer("model.tflite")).op_counts()
    assert operators["LceBconv2d"] == 2
