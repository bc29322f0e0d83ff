"""A SavedModel that cannot be converted is an error; the engine alone takes another way then."""

import importlib

import pytest

from larq_ext.deploy.convert import convert
from larq_ext.deploy.errors import DeploymentError

convert_module = importlib.import_module("larq_ext.deploy.convert")

# What the engine's binary converter is replaced by: one way fails, the other leaves a trace.
_CONVERTER = """
import pathlib

def convert_saved_model_to_tflite_flatbuffer(*arguments):
    raise RuntimeError("this SavedModel is broken")

def convert_graphdef_to_tflite_flatbuffer(*arguments):
    pathlib.Path({trace!r}).touch()
    return b"from a GraphDef"
"""
_CHILD = """
import importlib.util, runpy, sys
from importlib.machinery import SourceFileLoader

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "larq_compute_engine.mlir._tf_tfl_flatbuffer":
            return importlib.util.spec_from_loader(name, SourceFileLoader(name, {converter!r}))

sys.meta_path.insert(0, Finder)
if {packages}:
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name: None if "larq" in name else find(name)
sys.path.insert(0, "")  # the child removes one
runpy.run_path({child!r}, run_name="__main__")
"""


def write_converter(folder):
    trace, converter = folder / "trace", folder / "converter.py"
    converter.write_text(_CONVERTER.format(trace=str(trace)))
    return trace, converter


@pytest.mark.parametrize("packages", [False, True], ids=["binaries", "packages"])
def test_a_broken_saved_model_is_an_error(classifier, tmp_path, monkeypatch, packages):
    trace, converter = write_converter(tmp_path)
    child = tmp_path / "child.py"
    child.write_text(
        _CHILD.format(converter=str(converter), packages=packages, child=str(convert_module._CHILD))
    )
    monkeypatch.setattr(convert_module, "_CHILD", child)
    with pytest.raises(DeploymentError, match=r"'convert'(.|\n)*this SavedModel is broken"):
        convert(classifier)
    assert not trace.exists()


@pytest.mark.slow
def test_the_engine_alone_would_go_on(classifier, tmp_path, monkeypatch):
    """So that the test above does not pass because the trace is never left."""
    import larq_compute_engine as lce

    trace, converter = write_converter(tmp_path)
    functions: dict = {}
    exec(converter.read_text(), functions)
    module = importlib.import_module("larq_compute_engine.mlir.python.converter")
    for name in (
        "convert_saved_model_to_tflite_flatbuffer",
        "convert_graphdef_to_tflite_flatbuffer",
    ):
        monkeypatch.setattr(module, name, functions[name])
    with pytest.warns(UserWarning):
        flatbuffer = lce.convert_keras_model(classifier)
    assert bytes(flatbuffer) == b"from a GraphDef"
    assert trace.exists()
