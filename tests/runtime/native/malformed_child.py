"""Runs malformed models from a given one on and prints what became of each, for `test_malformed`.

A process of its own, because a crash must not end the tests: `python malformed_child.py LIBRARY
FIRST KERNEL` prints `N start` before model N and `N ran` or `N refused MESSAGE` after it.
"""

from __future__ import annotations

import os
import pathlib
import resource
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from harness import Library
from malformed import all_malformed

MEMORY = 3 << 30  # bytes that a model may ask for before it is refused


def run(library: Library, model: bytes, kernel: str) -> None:
    interpreter = library.interpreter(model, kernel, threads=2)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        zeros = np.zeros(details["shape"], details["dtype"])
        interpreter.set_tensor(details["index"], zeros)
    interpreter.invoke()


def main(path: str, first: str, kernel: str) -> None:
    library = Library(pathlib.Path(path))
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for index, malformed in enumerate(all_malformed()):
        if index < int(first):
            continue
        print(index, "start", flush=True)
        try:
            run(library, malformed.model, kernel)
        except (RuntimeError, ValueError) as error:
            print(index, "refused", " ".join(str(error).split()), flush=True)
        else:
            print(index, "ran", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
