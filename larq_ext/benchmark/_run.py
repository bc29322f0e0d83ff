"""Runs a comparison: loads what can run the network, times it in turns, reads the profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext._files import load_flatbuffer
from larq_ext.benchmark import _native
from larq_ext.benchmark._contenders import (
    CONTENDERS,
    NATIVE,
    NEED_MODEL,
    Contender,
    check_against,
    lce_contender,
    tflite_contender,
)
from larq_ext.benchmark._machine import machine
from larq_ext.benchmark._report import BenchmarkReport, Contest, NativeDetails, read_operations
from larq_ext.benchmark._timing import Spread, Turn, ratios, take_turns
from larq_ext.benchmark._twin import convert_twin, float_twin
from larq_ext.deploy._filters import BINARY_OP
from larq_ext.deploy._flatbuffer import read_graph
from larq_ext.deploy._macs import macs_of
from larq_ext.deploy.convert import convert
from larq_ext.runtime import EngineError
from larq_ext.runtime.delegate import checked_threads, chosen_kernel

DEFAULT_ROUNDS = 30
_PAUSE = 0.05


def benchmark(
    model: tf.keras.Model | None = None,
    flatbuffer: bytes | str | Path | None = None,
    *,
    against: Sequence[str] | None = None,
    num_threads: int | Sequence[int] = 1,
    rounds: int = DEFAULT_ROUNDS,
    kernel: str = "auto",
) -> BenchmarkReport:
    """Measures the latency of one network in everything that can run it, in one run.

    The contenders take turns, so that they share whatever else the machine does; ratios compare
    turns of the same round. All get random inputs, one sample at a time, and only the inference
    counts, not the copying of inputs and outputs.

    - `native`: the converted file in TensorFlow Lite with our delegate.
    - `lce`: the same file in Larq Compute Engine's interpreter. Its Python wrapper always copies
      too; what that takes is measured with an empty model in the same turns and subtracted.
    - `float32`, `int8`: the network without binarization (`float_twin`) in TensorFlow Lite, which
      hands what it can to XNNPACK. `int8` has 8-bit inputs and outputs, and ranges from random
      data, which do for latency and not for accuracy.

    # Arguments
        model: the Keras model; without it there is no float32 and int8.
        flatbuffer: the converted file or its path; by default the model is converted, and
            layers that cannot be binary stay float.
        against: what to compare `native` with; by default all that can be.
        num_threads: the number of threads, or several to compare.
        rounds: how often each contender has its turn.
        kernel: the delegate's kernel; `"auto"` takes the best one.

    # Returns
        The times, those of the delegate's operators, and what they were measured on.

    # Raises
        ValueError: if a contender or kernel is unknown or needs the model, or if none can run.
        DeploymentError: if the model cannot be converted.
    """
    # NumPy's integers are as good as Python's.
    several: Any = [num_threads] if isinstance(num_threads, Integral) else num_threads
    threads = tuple(map(checked_threads, several))
    if rounds < 1 or not threads:
        raise ValueError("rounds must be at least 1, and num_threads name one number or several.")
    opponents = _opponents(against, model is not None)
    reason = _native_missing(kernel)
    conditions = machine()  # before our own work loads it
    notes: tuple[str, ...] = ()
    if flatbuffer is not None:
        binary = load_flatbuffer(flatbuffer)
        _check_one_sample(binary)
        if model is not None:
            _check_same(model, binary)
    elif model is not None:
        conversion = convert(model, allow_float=True)
        binary = conversion.flatbuffer
        if not conversion.report.ok:
            notes = (f"{conversion.report.verdict}: `larq-ext lint` says why.",)
    else:
        raise ValueError("Nothing to measure: pass a model, a converted file, or both.")

    files = {NATIVE: binary, "lce": binary}
    failed = {NATIVE: reason} if reason else {}
    for name, made in _float_files(model, opponents).items():
        if isinstance(made, bytes):
            files[name] = made
        else:
            failed[name] = made
    keys = [(name, count) for count in threads for name in (NATIVE, *opponents)]
    loaded: dict[tuple[str, int], Contender] = {}
    missing = {key: failed[key[0]] for key in keys if key[0] in failed}
    for name, count in keys:
        if (name, count) in missing:
            continue
        try:
            loaded[name, count] = _load(name, files[name], count, kernel)
        except (EngineError, ValueError, RuntimeError) as error:
            missing[name, count] = _first_line(error)
    if not loaded:
        raise ValueError(
            "\n".join(f"{name} cannot run: {why}" for (name, _), why in missing.items())
        )

    base = next(iter(loaded))
    peaks: list[float] = []
    turns = take_turns(
        {key: contender.timed for key, contender in loaded.items()},
        rounds,
        lambda: None if reason else peaks.append(_native.peak(chosen_kernel(kernel))),
        pause=_PAUSE if max(threads) > 1 else 0.0,
    )
    macs = binary_macs(binary)
    contests = [
        Contest(*key, unavailable=missing[key])
        if key in missing
        else _contest(key, turns, base, len(files[key[0]]))
        for key in keys
    ]
    return BenchmarkReport(
        contests=tuple(contests),
        base=base,
        rounds=rounds,
        machine=conditions,
        binary_macs=macs,
        difference=_difference(loaded, threads[0]),
        notes=notes + _notes(files),
        native=_details(binary, threads[0], kernel, macs, turns[base], peaks)
        if base == (NATIVE, threads[0])
        else None,
    )


def binary_macs(flatbuffer: bytes) -> int:
    """Counts the multiply-adds of the binary convolutions in one inference.

    # Arguments
        flatbuffer: a converted model.

    # Returns
        The number; 0 without a binary convolution.
    """
    graph = read_graph(flatbuffer)
    return sum(macs_of(graph, op) for op in graph.ops if op.name == BINARY_OP)


def _check_one_sample(flatbuffer: bytes) -> None:
    """Raises a `ValueError` if a file takes several samples at once."""
    graph = read_graph(flatbuffer)
    shapes = [tuple(map(int, graph.tensors[place].shape)) for place in graph.inputs]
    if any(shape[:1] not in ((), (1,)) for shape in shapes):
        raise ValueError(
            f"The file takes inputs of the shapes {shapes}, and latency is that of one sample: "
            "convert the model for a batch of 1, as larq_ext.deploy.convert does."
        )


def _check_same(model: tf.keras.Model, flatbuffer: bytes) -> None:
    """Raises a `ValueError` if a file is that of another network."""
    graph = read_graph(flatbuffer)
    for kind, tensors, places in (
        ("inputs", model.inputs, graph.inputs),
        ("outputs", model.outputs, graph.outputs),
    ):
        shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
        if any(None in shape for shape in shapes):
            continue
        wanted = sorted(shapes)
        found = sorted(tuple(map(int, graph.tensors[place].shape[1:])) for place in places)
        if found != wanted:
            raise ValueError(
                f"The file is not that of {model.name!r}: its {kind} have the shapes {found}, and "
                f"the model's {wanted}."
            )


def _opponents(against: Sequence[str] | None, has_model: bool) -> tuple[str, ...]:
    if against is None:
        return CONTENDERS if has_model else tuple(n for n in CONTENDERS if n not in NEED_MODEL)
    names = check_against(against)
    needing = [name for name in names if name in NEED_MODEL]
    if needing and not has_model:
        raise ValueError(
            f"{' and '.join(needing)} cannot be made from a converted file alone: it does not "
            "hold the float network. Pass the Keras model too (on the command line: --model)."
        )
    return names


def _native_missing(kernel: str) -> str | None:
    """Why the delegate cannot run here, `None` if it can."""
    try:
        _native.check_kernel(kernel)
    except EngineError as error:
        return str(error)
    return None


def _float_files(model: tf.keras.Model | None, names: Sequence[str]) -> dict[str, bytes | str]:
    """The files without binarization, or why TensorFlow Lite has none."""
    needed = [name for name in names if name in NEED_MODEL]
    if not needed:
        return {}
    try:
        twin = float_twin(model)
    except Exception as error:  # layers of others raise anything
        return dict.fromkeys(needed, _first_line(error))
    made: dict[str, bytes | str] = {}
    for name in needed:
        try:
            made[name] = convert_twin(twin, int8=name == "int8")
        except Exception as error:  # its converter has many, and the others are still of use
            made[name] = _first_line(error)
    return made


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _load(name: str, flatbuffer: bytes, num_threads: int, kernel: str) -> Contender:
    if name == NATIVE:
        return _native.native_contender(flatbuffer, num_threads, kernel)
    if name == "lce":
        return lce_contender(flatbuffer, num_threads)
    return tflite_contender(flatbuffer, num_threads)


def _contest(
    key: tuple[str, int],
    turns: Mapping[tuple[str, int], Sequence[Turn]],
    base: tuple[str, int],
    file_bytes: int,
) -> Contest:
    own, beside = turns[key], turns.get((base[0], key[1]))
    seconds = [value for turn in own for value in turn.seconds]
    return Contest(
        *key,
        seconds=Spread.of(seconds),
        ratio=ratios(own, turns[base]),
        ratio_of_threads=None if beside is None else ratios(own, beside),
        samples=len(seconds),
        copying=Spread.of([turn.overhead for turn in own]).median,
        file_bytes=file_bytes,
    )


def _difference(loaded: dict[tuple[str, int], Contender], num_threads: int) -> float | None:
    """The largest difference of native and lce, relative to the largest output of lce."""
    pair = [loaded.get((name, num_threads)) for name in (NATIVE, "lce")]
    if pair[0] is None or pair[1] is None:
        return None
    differences = [
        np.max(np.abs(ours.astype("float64") - theirs), initial=0.0)
        / max(np.max(np.abs(theirs.astype("float64")), initial=0.0), 1e-30)
        for ours, theirs in zip(pair[0].outputs(), pair[1].outputs(), strict=True)
    ]
    return float(max(differences))


def _notes(files: dict[str, bytes]) -> tuple[str, ...]:
    if "int8" in files and "PRELU" in read_graph(files["int8"]).op_counts():
        return (
            "int8 has PReLUs, which XNNPACK does not run in 8 bits: TensorFlow Lite's own kernels "
            "for them are slow. With ReLUs int8 would be faster.",
        )
    return ()


def _details(
    flatbuffer: bytes,
    num_threads: int,
    kernel: str,
    macs: int,
    turns: Sequence[Turn],
    peaks: Sequence[float],
) -> NativeDetails:
    profile = _native.profile(flatbuffer, num_threads, kernel)
    rates = [macs / turn.median for turn in turns]
    fractions = [r / (num_threads * p) for r, p in zip(rates, peaks, strict=True) if p]
    return NativeDetails(
        kernel=profile.values["kernel"],
        threads=num_threads,
        operations=read_operations(profile, [t.name for t in read_graph(flatbuffer).tensors]),
        macs_per_second=Spread.of(rates).median,
        peak=Spread.of(peaks).median,
        fraction_of_peak=Spread.of(fractions) if fractions else None,
    )
