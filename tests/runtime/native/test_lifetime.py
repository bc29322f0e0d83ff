"""Delegates and interpreters come, change and go: nothing may leak, mix or crash."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from cases import Conv, conv_cases
from chains import (
    Chain,
    Maker,
    Size,
    bi_real,
    bi_real_prelu_first,
    bit_packed_between,
    int8_model,
    pooled,
    reactnet,
)
from harness import Library, feed, invoke, outputs_of, resize
from lce_models import Graph
from truth import run_engine

BUILDERS = [bit_packed_between, pooled, bi_real, bi_real_prelu_first, reactnet, int8_model]


def expected_of(chain) -> list[np.ndarray]:
    return run_engine(chain.model(), chain.inputs, "reference")


def assert_equal(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_batches_and_sizes_change_back_and_forth(library, kernel, builder):
    chain = builder(Size(), seed=0)
    interpreter = library.interpreter(chain.model(), kernel, threads=2)
    interpreter.allocate_tensors()
    assert_equal(invoke(interpreter, chain.inputs), expected_of(chain))
    for size in [Size(3), Size(2, 9, 4), Size(1, 1, 1), Size(1, 20, 21), Size(), Size(5, 3, 3)]:
        # The same seed draws the same constants, whatever the size of the image.
        other = builder(size, seed=0)
        resize(interpreter, other.inputs)
        assert_equal(invoke(interpreter, other.inputs), expected_of(other))


IMAGE = (1, 6, 5, 32)


def sum_with(shortcut: tuple[int, ...]) -> Chain:
    """A convolution plus another input; the constants do not depend on the shape."""
    make = Maker(Size(), seed=8)
    graph = make.graph
    x, y = graph.input(IMAGE), graph.input(shortcut)
    total = graph.add(make.conv(graph.quantize(x), 32, 32), y)
    return Chain("sum", graph, [total], [make.images(*IMAGE), make.images(*shortcut)])


@pytest.mark.parametrize("shape", [(1, 1, 1, 32), (1, 6, 1, 32), (1, 6, 5, 1), (3, 6, 5, 32)])
def test_a_shortcut_changes_its_shape(library, kernel, shape):
    """What was a plain sum becomes a broadcast: it may be refused, but not be wrong."""
    interpreter = library.interpreter(sum_with(IMAGE).model(), kernel)
    interpreter.allocate_tensors()
    chain = sum_with(shape)
    try:
        resize(interpreter, chain.inputs)
        found = invoke(interpreter, chain.inputs)
    except RuntimeError:
        return
    assert_equal(found, expected_of(chain))


def test_a_shortcut_that_fits_no_more_is_refused(library, kernel):
    interpreter = library.interpreter(sum_with(IMAGE).model(), kernel)
    chain = sum_with(IMAGE)
    with pytest.raises(RuntimeError):
        resize(interpreter, [chain.inputs[0], np.zeros((1, 5, 5, 32), np.float32)])


def test_two_delegates_in_two_interpreters(library, kernel):
    """Each has its own kernel, threads and sizes; they run in turns, one outlives the other."""
    chains = [bi_real(Size(channels=64), 1), int8_model(Size(batch=2), 2)]
    interpreters = [
        library.interpreter(chain.model(), one, threads)
        for chain, one, threads in zip(chains, [kernel, "portable"], [1, 2], strict=True)
    ]
    for interpreter in interpreters:
        interpreter.allocate_tensors()
    for _ in range(3):
        for chain, interpreter in zip(chains, interpreters, strict=True):
            assert_equal(invoke(interpreter, chain.inputs), expected_of(chain))
    del interpreters[0]
    assert_equal(invoke(interpreters[0], chains[1].inputs), expected_of(chains[1]))


def test_one_model_in_several_interpreters(library, kernel):
    chain = bi_real(Size(channels=96), 3)
    model, expected = chain.model(), expected_of(chain)
    interpreters = [library.interpreter(model, kernel, threads) for threads in (1, 2, 4)]
    for interpreter in interpreters:
        interpreter.allocate_tensors()
        feed(interpreter, chain.inputs)
    for interpreter in interpreters:
        interpreter.invoke()
    for interpreter in interpreters:
        assert_equal(outputs_of(interpreter), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_interpreters_in_parallel(library, kernel, threads):
    """Four threads of Python, each with an interpreter of its own."""
    chains = [builder(Size(2, 12, 12, 64), 4) for builder in BUILDERS[:4]]
    failures: list[BaseException] = []
    start = threading.Barrier(len(chains))

    def work(chain, expected) -> None:
        try:
            start.wait()
            for _ in range(5):
                interpreter = library.interpreter(chain.model(), kernel, threads)
                interpreter.allocate_tensors()
                for _ in range(10):
                    assert_equal(invoke(interpreter, chain.inputs), expected)
        except BaseException as error:  # reported by the main thread
            failures.append(error)

    workers = [threading.Thread(target=work, args=(chain, expected_of(chain))) for chain in chains]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("invoked", [True, False], ids=["invoked", "only loaded"])
def test_a_thousand_interpreters_leave_nothing_behind(library, invoked):
    chain = bi_real(Size(1, 8, 8, 128), 5)
    model = chain.model()

    def live() -> None:
        interpreter = library.interpreter(model, threads=2)
        if invoked:
            interpreter.allocate_tensors()
            feed(interpreter, chain.inputs)
            interpreter.invoke()

    for _ in range(200):
        live()
    before = _resident_kilobytes()
    for _ in range(800):
        live()
    # One leaked set of packed filters would be 55 kB an interpreter, a thread's stack more.
    assert _resident_kilobytes() - before < 8_000


def _resident_kilobytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def test_many_runs_leave_nothing_behind(library, kernel):
    chain = bi_real(Size(1, 8, 8, 64), 6)
    interpreter = library.interpreter(chain.model(), kernel, threads=2)
    interpreter.allocate_tensors()
    expected = expected_of(chain)
    before = _resident_kilobytes()
    for _ in range(2000):
        interpreter.invoke()
    assert_equal(invoke(interpreter, chain.inputs), expected)
    assert _resident_kilobytes() - before < 2_000


def test_the_batch_of_every_kind_of_convolution(library, kernel):
    """A batch gives what its images give one by one."""
    for case in [c for c in conv_cases(150, seed=9) if c.first is None and c.batch > 1]:
        together = _run(library, kernel, case, case.inputs()[0])
        for index, image in enumerate(case.inputs()[0]):
            np.testing.assert_array_equal(
                _run(library, kernel, case, image[None])[0], together[index], err_msg=str(case)
            )


def _run(library: Library, kernel: str, case: Conv, images: np.ndarray) -> np.ndarray:
    graph = Graph()
    interpreter = library.interpreter(graph.build([case.add_to(graph)]), kernel)
    resize(interpreter, [images])
    return invoke(interpreter, [images])[0]


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": "none"},
        {"kernel": ""},
        {"num_threads": "0"},
        {"num_threads": "-1"},
        {"num_threads": "two"},
        {"num_threads": "2x"},
        {"num_threads": ""},
        {"num_threads": "99999999999999999999"},
        {"threads": "2"},
        {"num_threads": "1", "kernel": "AVX2 "},
    ],
    ids=str,
)
def test_wrong_options_are_refused(library, options):
    """The runtime reports a delegate that was not created as a ValueError."""
    with pytest.raises(ValueError):
        library.delegate(**options)


def test_options_may_be_left_out(library):
    for options in ({}, {"kernel": "auto"}, {"num_threads": "3"}):
        library.delegate(**options)


CHILD = """
import os, sys
from pathlib import Path
import numpy as np
from harness import Library, invoke
from lce_models import Graph

graph = Graph()
model = graph.build([graph.quantize(graph.input((1, 64, 64, 64)))])
interpreter = Library(Path(sys.argv[1])).interpreter(model, "auto", 4)
interpreter.allocate_tensors()
images = np.random.default_rng(0).standard_normal((1, 64, 64, 64)).astype("float32")
expected, = invoke(interpreter, [images])
child = os.fork()
if child == 0:  # has the interpreter, but none of its threads
    found, = invoke(interpreter, [images])
    del interpreter
    os._exit(0 if np.array_equal(found, expected) else 1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_can_run_and_release(library):
    here = Path(__file__).parent
    command = [sys.executable, "-c", CHILD, str(library.path)]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
