"""Every operator against the engine's own kernels, in a stock interpreter, for every kernel."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import Case, Conv, all_cases
from chains import Chain, all_chains
from harness import Library, invoke, invoke_resized
from lce_models import SAME, VALID, Graph
from random_graphs import random_graph
from truth import (
    FLOAT_TOLERANCE,
    batched,
    difference,
    engine_outputs,
    numpy_output,
    run_engine,
)

CASES = int(os.environ.get("LARQ_EXT_TEST_CASES", "3000"))
SEED = int(os.environ.get("LARQ_EXT_TEST_SEED", "0"))
TOGETHER = 20

Known = tuple[Case, np.ndarray]


@pytest.fixture(scope="module")
def known() -> list[Known]:
    """The cases with the engine's outputs."""
    cases = all_cases(CASES, SEED)
    return list(zip(cases, engine_outputs(cases), strict=True))


@pytest.fixture(scope="module")
def known_chains() -> list[tuple[Chain, list[np.ndarray]]]:
    graphs = (random_graph(SEED + index) for index in range(CASES // 10))
    return [(c, run_engine(c.model(), c.inputs, "reference")) for c in (*all_chains(), *graphs)]


def run_together(
    library: Library, kernel: str, threads: int, cases: Sequence[Case]
) -> list[np.ndarray]:
    """Runs many cases as one model; all of them are resized, or none is."""
    graph = Graph()
    outputs = [case.add_to(graph, resized=False) for case in cases]
    inputs = [array for case in cases for array in case.inputs()]
    interpreter = library.interpreter(graph.build(outputs), kernel, threads)
    if cases[0].first is not None:
        return invoke_resized(interpreter, inputs)
    interpreter.allocate_tensors()
    return invoke(interpreter, inputs)


def failures_of(library: Library, kernel: str, threads: int, known: Sequence[Known]):
    """The cases that fail with a description, and the largest difference of the others."""
    failures, largest = [], 0.0
    for resized in (False, True):
        for batch in batched([k for k in known if (k[0].first is not None) == resized], TOGETHER):
            try:
                found = run_together(library, kernel, threads, [case for case, _ in batch])
            except (RuntimeError, ValueError) as error:
                if len(batch) == 1:
                    failures.append(f"{batch[0][0]}: {error}")
                    continue
                for one in batch:  # which of them is it?
                    failures += failures_of(library, kernel, threads, [one])[0]
                continue
            for (case, expected), output in zip(batch, found, strict=True):
                error = difference(output, expected)
                # The engine corrects borders of zeros in floats; all else is equal to the last bit.
                if error > (FLOAT_TOLERANCE if getattr(case, "zero_padded", False) else 0.0):
                    failures.append(f"{case}: differs by {error}")
                else:
                    largest = max(largest, error)
    return failures, largest


def check(failures: Sequence[str], record_property, largest: float) -> None:
    record_property("largest_relative_difference", largest)
    print(f"largest relative difference {largest:.2g}")
    assert not failures, f"{len(failures)} cases, the first:\n" + "\n".join(failures[:5])


def test_numpy_agrees_with_the_engine(known):
    """The truth is checked twice: on every third case NumPy must say what the engine says."""
    for case, expected in known[::3]:
        assert difference(expected, numpy_output(case)) <= FLOAT_TOLERANCE, case


@pytest.mark.parametrize("threads", [1, 2])
def test_the_grid(library, kernel, threads, known, record_property):
    failures, largest = failures_of(library, kernel, threads, known)
    check(failures, record_property, largest)


def test_the_kernels_of_this_cpu_are_there(library):
    """The portable kernel always runs; a build that lost the AVX2 kernel would be slow."""
    assert "portable" in library.kernels()
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    needs = {"avx2": {"avx2"}, "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}}
    needs["avx512vpopcnt"] = {*needs["avx512"], "avx512_vpopcntdq"}
    if platform.machine() == "x86_64":
        for kernel, needed in needs.items():
            assert (kernel in library.kernels()) == needed.issubset(flags)
    if platform.machine() == "aarch64":
        assert "neon" in library.kernels()


@pytest.mark.parametrize("threads", [1, 2])
def test_chains(library, kernel, threads, known_chains):
    """All numbers in them are exact, so must the results be."""
    for chain, expected in known_chains:
        interpreter = library.interpreter(chain.model(), kernel, threads)
        interpreter.allocate_tensors()
        for found, one in zip(invoke(interpreter, chain.inputs), expected, strict=True):
            where = f"{chain.name}, input {chain.inputs[0].shape}"
            np.testing.assert_array_equal(found, one, err_msg=where)


LARGE = Conv(
    seed=5,
    batch=1,
    size=(28, 28),
    channels_in=128,
    channels_out=128,
    kernel=(3, 3),
    stride=(1, 1),
    dilation=(1, 1),
    padding=SAME,
    pad_value=1,
    groups=1,
    activation="NONE",
    output="float32",
    numbers="normal",
    bits="random",
    scale=0.1,
    zero_point=0,
)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": (56, 56), "channels_in": 64, "channels_out": 64, "output": "int32"},
        {"size": (14, 14), "channels_in": 256, "channels_out": 256, "pad_value": 0},
        {"size": (7, 7), "channels_in": 512, "channels_out": 512, "output": "int8"},
        {"size": (1, 1), "channels_in": 1024, "channels_out": 1000, "kernel": (1, 1)},
        {"size": (57, 31), "channels_in": 96, "channels_out": 200, "stride": (2, 2)},
        {"batch": 5, "size": (9, 8), "channels_in": 256, "groups": 4, "padding": VALID},
        {"size": (120, 3), "channels_in": 32, "channels_out": 33, "dilation": (4, 1)},
        # Counts beyond 8, 15 and 16 bits.
        {"size": (1, 1), "channels_in": 2048, "kernel": (1, 1), "bits": "opposite"},
        {"size": (4, 3), "channels_in": 4096, "channels_out": 40, "bits": "opposite"},
        {"size": (4, 3), "channels_in": 4096, "channels_out": 40, "output": "int8"},
        {"size": (3, 3), "channels_in": 8192, "channels_out": 70, "bits": "opposite"},
    ],
    ids=str,
)
def test_layers_of_real_networks(library, kernel, threads, changes):
    """Large enough that every kernel has full tiles and every thread has work."""
    case = replace(LARGE, **changes)
    (found,) = run_together(library, kernel, threads, [case])
    assert difference(found, numpy_output(case)) <= FLOAT_TOLERANCE
