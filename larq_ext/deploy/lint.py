"""Says before conversion which layers will be binary, and why the others will not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import tensorflow as tf

from larq_ext._rebuild import obstacle
from larq_ext._text import shorten, table, wrap
from larq_ext.deploy._causes import Why
from larq_ext.deploy._expected import (
    Kernel,
    _leaf_layers,
    _quantized_kernels,
    binary_kernels,
    expected_kernels,
    input_shape,
)
from larq_ext.deploy._probe import CONVERTERS_TOLERANCE, is_binary_input, jitter
from larq_ext.deploy._reasons import find_cause
from larq_ext.deploy._traced import Traced, trace
from larq_ext.deploy.bake import bake, float_reasons
from larq_ext.deploy.errors import DeploymentError
from larq_ext.deploy.layers import BinaryConv2D

# `float`: the layer would run in float, or the model be refused. `mended`: so it would be with
# Larq Compute Engine's own converter, not with `larq_ext.deploy.convert`. `note`: no error.
Severity = Literal["float", "mended", "note"]
_HEADINGS = {"float": "Float", "mended": "Mended", "note": "Note"}


@dataclass(frozen=True)
class Finding:
    """Something about one layer that keeps it from being binary, or makes it slower.

    # Arguments
        layer: the layer's name; `""` for the model.
        severity: `float` if it has to be changed, `mended` if `larq_ext.deploy.convert` does that
            by itself and Larq Compute Engine's own converter does not, `note` if nothing is wrong.
        cause: a name from the table of causes.
        offender: the operation at fault in the traced graph; `""` if it is none.
        reason: what was found, in words.
        advice: what to change.
    """

    layer: str
    severity: Severity
    cause: str
    offender: str
    reason: str
    advice: str

    def __str__(self) -> str:
        where = f" Operation: {self.offender}." if self.offender else ""
        advice = (
            "larq_ext.deploy.convert mends it; nothing to do."
            if self.severity == "mended"
            else self.advice
        )
        place = f"{self.layer}: " if self.layer else ""
        return f"{_HEADINGS[self.severity]}: {place}{self.reason} [{self.cause}].{where} {advice}"


@dataclass(frozen=True)
class LayerLint:
    """What a layer that is meant to be binary will become.

    # Arguments
        name: the layer's name.
        type: its class.
        kernel: the shape of its kernel.
        binary: whether `larq_ext.deploy.convert` makes an `LceBconv2d` of it.
        by_engine: whether Larq Compute Engine's own converter does.
        cause: why not, for the first that does not; else `""`.
    """

    name: str
    type: str
    kernel: tuple[int, ...]
    binary: bool
    by_engine: bool
    cause: str = ""


@dataclass(frozen=True)
class LintReport:
    """What a conversion would make of a model.

    # Arguments
        layers: a row for each layer that is meant to be binary.
        findings: what was found, in the order of the layers.
    """

    layers: tuple[LayerLint, ...]
    findings: tuple[Finding, ...]

    @property
    def binary(self) -> int:
        """How many layers will be binary."""
        return sum(layer.binary for layer in self.layers)

    @property
    def ok(self) -> bool:
        """Whether `larq_ext.deploy.convert` will find every layer binary that is meant to be."""
        return self.binary == len(self.layers) > 0 and not any(
            finding.severity == "float" for finding in self.findings
        )

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if not self.layers and not self.findings:
            return "no layer is meant to be binary"
        if any(finding.cause == "not-rebuildable" for finding in self.findings):
            return "the model cannot be rebuilt"
        return f"{self.binary}/{len(self.layers)} layers will be binary"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return {"ok": self.ok, "verdict": self.verdict, **asdict(self)}

    def __str__(self) -> str:
        return "\n".join(_render(self))


def lint(model: tf.keras.Model) -> LintReport:
    """Tells of each binary layer whether it will be binary in the file, without converting.

    The graph of the model is traced twice, as it is and baked, and read as Larq Compute Engine's
    converter reads it; quantizers are run on numbers of both signs. So it holds for quantizers of
    your own too. The engine need not be installed.

    !!! example
        ```python
        report = lqx.deploy.lint(model)
        assert report.ok, report
        ```

    # Arguments
        model: a Keras model with Larq's layers, as trained or baked.

    # Returns
        The report, a table with findings when printed.

    # Raises
        DeploymentError: for anything but a Keras model.
    """
    if not isinstance(model, tf.keras.Model):
        raise DeploymentError(str(obstacle(model)))
    try:
        baked = bake(model)
    except DeploymentError as error:
        why = Why("not-rebuildable", detail=" ".join(str(error).split()))
        return LintReport((), (_finding("", "float", why),))
    unknown = [tensor for tensor in model.inputs if None in tensor.shape[1:]]
    if unknown:
        return LintReport(
            tuple(_layers_of_unknown_size(model)),
            tuple(_finding("", "float", _unknown_size(tensor)) for tensor in unknown),
        )
    ours = _verdicts(baked, float_reasons(baked))
    theirs = ours if baked is model else _verdicts(model, {})
    layers: list[LayerLint] = []
    findings: dict[str, list[Finding]] = defaultdict(list)
    for name, theirs_of_layer in theirs.verdicts.items():
        row, found = _judge(*theirs_of_layer, *ours.verdicts.get(name, theirs_of_layer))
        layers.extend(row)
        findings[name].extend(found)
    deployed = dict(_leaf_layers(baked))
    for name, layer in _leaf_layers(model):
        notes = _why_notes(layer, deployed.get(name), model)
        findings[name].extend(_finding(name, "note", why) for why in notes)
    known = {f.layer for rows in findings.values() for f in rows if f.cause == "sign-of-sign"}
    for node in ours.traced.wrong_signs:
        # Wherever it stands, the whole model is refused.
        name = "/".join(node.split("/")[1:-1]) or node
        if not any(name == layer or name.startswith(f"{layer}/") for layer in known):
            findings[name].append(_finding(name, "float", Why("sign-of-sign", node)))
    return LintReport(tuple(layers), tuple(f for rows in findings.values() for f in rows))


@dataclass(frozen=True)
class _Verdicts:
    """The cause of each kernel by its name, `None` for what will be binary."""

    traced: Traced
    verdicts: dict[str, tuple[Kernel, Why | None]]


def _verdicts(model: tf.keras.Model, reasons: dict[str, str]) -> _Verdicts:
    kernels = list(expected_kernels(model, reasons))
    traced = trace(model, kernels)
    return _Verdicts(traced, {kernel.name: (kernel, _why(traced, kernel)) for kernel in kernels})


def _why(traced: Traced, kernel: Kernel) -> Why | None:
    dtype = getattr(kernel.layer, "compute_dtype", "float32")
    if dtype != "float32":
        return Why("dtype-policy", facts={"dtype": dtype})
    if kernel.cause and kernel.binary_input:
        return Why(kernel.cause)
    # A layer that is used several times has several operations.
    operations = traced.users.get(kernel.name, [])
    if not operations:
        return Why(kernel.cause or "not-in-file")
    causes = (find_cause(traced.graph, op, kernel) for op in operations)
    return next((cause for cause in causes if cause is not None), None)


def _judge(
    kernel: Kernel, by_engine: Why | None, baked: Kernel, by_ours: Why | None
) -> tuple[list[LayerLint], list[Finding]]:
    """The row of a layer and what there is to say, of the verdicts on it as it is and baked."""
    if not kernel.binary_input and by_ours is not None and by_ours.cause == "float-input":
        # Nothing in the model takes the sign of its input: that is how it was meant.
        return [], [_finding(kernel.name, "note", by_ours)]
    if by_ours is not None and baked.reason:
        by_ours = replace(by_ours, detail=f"when the model is baked: {baked.reason}")
    why = by_ours or by_engine
    severity: Severity = "float" if by_ours is not None else "mended"
    row = LayerLint(
        kernel.name,
        type(kernel.layer).__name__,
        kernel.shape,
        by_ours is None,
        by_engine is None,
        "" if why is None else why.cause,
    )
    return [row], [] if why is None else [_finding(kernel.name, severity, why)]


def _finding(layer: str, severity: Severity, why: Why) -> Finding:
    return Finding(layer, severity, why.cause, why.offender, why.reason, why.advice)


def _unknown_size(tensor: Any) -> Why:
    return Why("unknown-size", facts={"input": tensor.name, "shape": tuple(tensor.shape)})


def _layers_of_unknown_size(model: tf.keras.Model) -> Iterator[LayerLint]:
    """The converter would take their sizes for 1, so the model is refused."""
    for kernel in expected_kernels(model, {}):
        if kernel.binary_input:
            kind = type(kernel.layer).__name__
            yield LayerLint(kernel.name, kind, kernel.shape, False, False, "unknown-size")


def _why_notes(
    layer: tf.keras.layers.Layer, deployed: tf.keras.layers.Layer | None, model: tf.keras.Model
) -> Iterator[Why]:
    """What leaves a layer as binary or as float as it was meant to be."""
    quantizer = getattr(layer, "input_quantizer", None)
    if quantizer is None:
        return
    kernels = list(binary_kernels(layer))
    binary_input = is_binary_input(quantizer, input_shape(layer))
    if not kernels and not list(_quantized_kernels(layer)):
        yield Why("unused-input-quantizer")
    elif not kernels or not binary_input:
        yield Why("several-bits")
    elif type(deployed) is BinaryConv2D:
        yield from _slow(deployed)
    for _, _, values in kernels:
        if 1e-5 < (share := jitter(values)) <= CONVERTERS_TOLERANCE:
            yield Why("uneven-scale", facts={"percent": 100 * share})
    if not isinstance(layer, BinaryConv2D):
        yield from _shared(layer, model)


def _slow(layer: BinaryConv2D) -> Iterator[Why]:
    """Why a binary convolution is slower than it could be."""
    padded = layer.padding == "same" and max(layer.kernel_size) > 1
    if padded and layer.pad_values == 0.0:
        yield Why("zero-padding")
    channels = input_shape(layer)[-1]
    if channels is not None and channels % 32:
        yield Why("odd-channels", facts={"channels": channels})


def _shared(layer: tf.keras.layers.Layer, model: tf.keras.Model) -> Iterator[Why]:
    """Quantizers with state that other layers use too."""
    for role in ("input", "kernel"):
        quantizer = getattr(layer, f"{role}_quantizer", None)
        if not getattr(quantizer, "weights", None):
            continue
        others = [
            name
            for name, other in _leaf_layers(model)
            if other is not layer and quantizer in _quantizers(other)
        ]
        if others:
            yield Why("shared-quantizer", facts={"role": role, "others": ", ".join(others)})


def _quantizers(layer: tf.keras.layers.Layer) -> list[Any]:
    names = ("input", "kernel", "depthwise", "pointwise")
    return [getattr(layer, f"{name}_quantizer", None) for name in names]


def _render(report: LintReport) -> Iterator[str]:
    if report.layers:
        header = ("Layer", "Type", "Kernel", "Binary", "Cause")
        rows = [
            (
                shorten(layer.name, 36),
                layer.type,
                "x".join(map(str, layer.kernel)),
                "NO" if not layer.binary else "yes" if layer.by_engine else "mended",
                layer.cause,
            )
            for layer in report.layers
        ]
        yield from table(header, rows, left=5)
        yield ""
    for severity in _HEADINGS:
        for finding in report.findings:
            if finding.severity == severity:
                yield from wrap(str(finding))
    yield f"{'Binary' if report.ok else 'NOT BINARY'}: {report.verdict}."
