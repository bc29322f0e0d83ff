"""Runs Larq Compute Engine's converter in a process of its own, where a crash does no harm.

Started by path: `python _converter_process.py SAVED_MODEL_DIR OUT_FILE TARGET`. The last line of
standard output names the stage that was reached.
"""

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Python puts the folder of the script first; its files must not shadow anybody's modules.
sys.path.pop(0)
os.environ["TF_USE_LEGACY_KERAS"] = "1"


def main(saved_model_dir: str, flatbuffer_path: str, target: str) -> None:
    """Converts, writes the result, loads it and runs it once."""
    _enter("import")
    import numpy as np

    try:
        convert, make_interpreter = _import_binaries()
    except ImportError:
        convert, make_interpreter = _import_packages()

    _enter("convert")
    flatbuffer = convert(saved_model_dir, target)
    Path(flatbuffer_path).write_bytes(flatbuffer)

    _enter("load")
    native = make_interpreter(flatbuffer)
    _enter("run")
    native.predict(
        [
            np.zeros(shape, dtype)
            for shape, dtype in zip(native.input_shapes, native.input_types, strict=True)
        ]
    )
    _enter("done")


# The kernels with indirection accept what the default ones refuse (grouped convolutions).
_INDIRECT = {"use_reference_bconv": False, "use_indirect_bgemm": True, "use_xnnpack": False}


def _import_binaries() -> tuple[Callable[[str, str], bytes], Callable[[bytes], Any]]:
    """The converter and the interpreter alone.

    They need TensorFlow's libraries, but none of its Python, which takes most of the time of a
    conversion to import.
    """
    packages = ("tensorflow", "larq_compute_engine")
    try:
        for package in packages:
            _bare_package(package)
        importlib.import_module("tensorflow.python.pywrap_tensorflow")  # loads the libraries
        from larq_compute_engine.mlir import _tf_tfl_flatbuffer as converter
        from larq_compute_engine.tflite.python.interpreter_wrapper_lite import LiteInterpreter

        run = converter.convert_saved_model_to_tflite_flatbuffer
    except (ImportError, AttributeError) as error:
        for name in [name for name in sys.modules if name.split(".")[0] in packages]:
            del sys.modules[name]
        raise ImportError(str(error)) from error

    def convert(saved_model_dir: str, target: str) -> bytes:
        tags, signatures, schema_version = ["serve"], ["serving_default"], 1
        return run(saved_model_dir, tags, signatures, schema_version, target, None)

    return convert, lambda flatbuffer: LiteInterpreter(flatbuffer, 1, *_INDIRECT.values())


def _bare_package(name: str) -> None:
    """Puts a package in place without running its `__init__.py`."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"There is no package {name}.")
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = package


def _import_packages() -> tuple[Callable[[str, str], bytes], Callable[[bytes], Any]]:
    """The same as Larq Compute Engine means them to be used."""
    import larq_compute_engine as lce

    def convert(saved_model_dir: str, target: str) -> bytes:
        return lce.convert_saved_model(saved_model_dir, target=target)

    return convert, lambda flatbuffer: lce.testing.Interpreter(flatbuffer, **_INDIRECT).interpreter


def _enter(stage: str) -> None:
    print(stage, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
