"""The result of an inspection, and the table it is printed as."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from larq_ext._text import for_json, shorten, table, wrap

_NAME_WIDTH = 22
STARVED = 0.9


@dataclass(frozen=True)
class KernelInspection:
    """The bits of a kernel.

    # Arguments
        shape: Shape of the kernel, as Keras has it.
        positive: Share of +1.
        entropy: Entropy of all bits together, in bits per weight.
        filter_entropy: Mean of the filters' entropies, in bits per weight.
        uniform_filters: How many filters have equal bits throughout.
        outside: Share of latent weights outside of the quantizer's window, whose surrogate
            gradient is 0.
        outside_exact: Whether all weights were looked at, or a sample.
        scale: Least, mean and largest scale of the output channels: of the kernel, times the
            learned one behind the convolution.
        zero_scales: How many output channels have scale 0, or none that is finite.
        flipped: Share of bits that differ from those before.
    """

    shape: tuple[int, ...]
    positive: float
    entropy: float
    filter_entropy: float
    uniform_filters: int
    outside: float
    outside_exact: bool
    scale: tuple[float, float, float]
    zero_scales: int
    flipped: float | None = None

    @property
    def weights(self) -> int:
        """How many weights there are."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class InputInspection:
    """The bits that enter a layer.

    # Arguments
        positive: Share of +1 (of ones where the bits are 0 and 1).
        entropy: Entropy of all bits together, in bits.
        channel_entropy: Mean of the channels' entropies, in bits.
        channels: How many channels there are.
        always_positive: How many channels are +1 at all inputs.
        always_negative: How many channels are never +1.
    """

    positive: float
    entropy: float
    channel_entropy: float
    channels: int
    always_positive: int
    always_negative: int


@dataclass(frozen=True)
class LayerInspection:
    """What a binary layer is made of.

    # Arguments
        name: Name of the layer, with the models it is in, and the part of its kernel if it has
            several.
        layer_type: Its class.
        kernel: Its kernel, `None` if that is float.
        inputs: Its inputs, `None` if they are float or were not seen.
        warnings: What is likely wrong.
        histogram: Counts and edges of the latent weights.
    """

    name: str
    layer_type: str
    kernel: KernelInspection | None
    inputs: InputInspection | None
    warnings: tuple[str, ...] = ()
    histogram: tuple[np.ndarray, np.ndarray] | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values for JSON, without the histogram."""
        return {
            "name": self.name,
            "layer_type": self.layer_type,
            "kernel": None if self.kernel is None else asdict(self.kernel),
            "inputs": None if self.inputs is None else asdict(self.inputs),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class InspectReport:
    """What the binary layers of a model are made of.

    # Arguments
        model: Name of the model.
        layers: A row for each binary kernel or input.
        samples: How many inputs were looked at.
        source: What they were.
        before: Name of the model that bits were compared with.
        notes: What else is worth knowing.
    """

    model: str
    layers: tuple[LayerInspection, ...]
    samples: int
    source: str
    before: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def totals(self) -> dict[str, Any]:
        """Numbers of all binary kernels together, each weight counting the same."""
        kernels = [layer.kernel for layer in self.layers if layer.kernel is not None]
        weights = sum(kernel.weights for kernel in kernels)

        def mean(name: str) -> float | None:
            known = [k for k in kernels if getattr(k, name) is not None]
            if not known:
                return None
            return float(
                np.average([getattr(k, name) for k in known], weights=[k.weights for k in known])
            )

        means = ("positive", "filter_entropy", "outside", "flipped")
        return {"weights": weights, **{name: mean(name) for name in means}}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        values = {
            "model": self.model,
            "samples": self.samples,
            "source": self.source,
            "before": self.before,
            "totals": self.totals,
            "layers": [layer.to_dict() for layer in self.layers],
            "notes": list(self.notes),
        }
        return for_json(values)

    def draw(self, path: str | Path) -> Path:
        """Draws the report: a row for each layer, with a histogram of its latent weights.

        # Arguments
            path: The `.png` file to write.

        # Returns
            The path.

        # Raises
            ImportError: if matplotlib is missing, with the line to type.
        """
        from larq_ext.inspection._picture import draw

        return draw(self, Path(path))

    def __str__(self) -> str:
        return "\n".join(_render(self))


def _percent(share: float | None, mark: str = "") -> str:
    return "-" if share is None else f"{mark}{100 * share:.1f}"


def _number(value: float) -> str:
    return f"{value:.2g}"


def _row(layer: LayerInspection, flips: bool) -> list[str]:
    kernel, inputs = layer.kernel, layer.inputs
    cells = [shorten(layer.name, _NAME_WIDTH)]
    if kernel is None:
        cells += ["float", "-", "-", "-", "-"] + ["-"] * flips
    else:
        low, mean, high = map(_number, kernel.scale)
        cells += [
            "x".join(map(str, kernel.shape)),
            _percent(kernel.positive),
            f"{kernel.filter_entropy:.3f}",
            _percent(kernel.outside, "" if kernel.outside_exact else "~"),
            mean if low == high else f"{mean} ({low}..{high})",
        ]
        cells += [_percent(kernel.flipped)] * flips
    if inputs is None:
        cells += ["-", "-"]
    else:
        cells += [_percent(inputs.positive), f"{inputs.channel_entropy:.3f}"]
    return [*cells, str(len(layer.warnings) or "")]


def _render(report: InspectReport) -> Iterator[str]:
    flips = report.before is not None
    header = ["Layer", "Kernel", "+1 %", "H/filter", "Out %", "Scale"]
    header += ["Flips %"] * flips + ["In +1 %", "H/chan.", "!"]
    yield from table(header, [_row(layer, flips) for layer in report.layers], left=2)
    yield ""
    yield from wrap(
        "+1: share of +1 among the bits of kernel and inputs. H: their entropy in bits, the mean "
        "over filters or channels. Out: latent weights whose surrogate gradient is 0 (~ from a "
        "sample). Scale: mean (least..largest) of the output channels."
        + (f" Flips: kernel bits that differ from {report.before}." if flips else "")
    )
    yield from wrap(f"Inputs: {report.source}.")
    for layer in report.layers:
        for warning in layer.warnings:
            yield from wrap(f"! {layer.name}: {warning}")
    for note in report.notes:
        yield from wrap(f"Note: {note}")
    yield from wrap(_summary(report))


def _summary(report: InspectReport) -> str:
    totals = report.totals
    if not totals["weights"]:
        return f"{report.model}: no binary kernel."
    text = (
        f"{report.model}: {totals['weights']:,} binary weights in "
        f"{sum(layer.kernel is not None for layer in report.layers)} kernels, "
        f"{_percent(totals['positive'])} % of them +1, {totals['filter_entropy']:.3f} bits of "
        f"entropy each, {_percent(totals['outside'])} % outside of their window"
    )
    if totals["flipped"] is not None:
        text += f", {_percent(totals['flipped'])} % flipped"
    return f"{text}."
