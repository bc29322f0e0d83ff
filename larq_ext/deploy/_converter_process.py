"""Runs Larq Compute Engine's converter in a process of its own, where a crash does no harm.

Started by path: `python _converter_process.py SAVED_MODEL_DIR OUT_FILE TARGET`. The last line of
standard output names the stage that was reached.
"""

import os
import sys
from pathlib import Path

# Python puts the folder of the script first; its files must not shadow anybody's modules.
sys.path.pop(0)
os.environ["TF_USE_LEGACY_KERAS"] = "1"


def main(saved_model_dir: str, flatbuffer_path: str, target: str) -> None:
    """Converts, writes the result, loads it and runs it once."""
    _enter("import")
    import larq_compute_engine as lce
    import numpy as np

    _enter("convert")
    flatbuffer = lce.convert_saved_model(saved_model_dir, target=target)
    Path(flatbuffer_path).write_bytes(flatbuffer)

    _enter("load")
    # The kernels with indirection accept what the default ones refuse (grouped convolutions).
    interpreter = lce.testing.Interpreter(flatbuffer, use_indirect_bgemm=True)
    _enter("run")
    native = interpreter.interpreter
    native.predict(
        [
            np.zeros(shape, dtype)
            for shape, dtype in zip(native.input_shapes, native.input_types, strict=True)
        ]
    )
    _enter("done")


def _enter(stage: str) -> None:
    print(stage, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
