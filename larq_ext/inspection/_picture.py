"""Draws an inspection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from larq_ext._files import atomic
from larq_ext._text import shorten
from larq_ext.inspection._report import InspectReport, LayerInspection

_KERNEL, _INPUT, _BAD = "tab:blue", "tab:orange", "tab:red"
_NAME_WIDTH = 28


def draw(report: InspectReport, path: Path) -> Path:
    """Draws a row for each layer and a column for each kind of number."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError as error:
        raise ImportError("The picture needs matplotlib: type `pip install matplotlib`.") from error
    layers = report.layers
    flips = report.before is not None
    figure = Figure(figsize=(12 + 2 * flips, 1.9 + 0.3 * max(4, len(layers))), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's default backend
    columns = figure.subplots(
        1, 4 + flips, sharey=True, width_ratios=[2.2, 1.4, 1.4, 1.2, 1.2][: 4 + flips]
    )
    _histograms(columns[0], layers)
    _dots(columns[1], layers, "positive", "positive")
    columns[1].axvline(0.5, color="0.6", linewidth=0.8, zorder=0)
    columns[1].set(title="Share of +1", xlim=(-0.04, 1.04), xticks=(0, 0.5, 1))
    _dots(columns[2], layers, "filter_entropy", "channel_entropy")
    columns[2].set(title="Entropy, bits", xlim=(-0.04, 1.04), xticks=(0, 0.5, 1))
    kernels = [layer.kernel for layer in layers]
    _bars(columns[3], [None if k is None else k.outside for k in kernels])
    columns[3].set(title="Weights without gradient", xlim=(0, 1.2), xticks=(0, 0.5, 1))
    if flips:
        flipped = [None if k is None else k.flipped for k in kernels]
        _bars(columns[4], flipped)
        highest = max((f for f in flipped if f is not None), default=0)
        columns[4].set(title="Flipped bits", xlim=(0, 1.3 * highest or 1))
    for column in (columns[1], *columns[3:]):
        column.xaxis.set_major_formatter(PercentFormatter(1.0))
    for column in columns:
        column.title.set_fontsize("medium")
        column.grid(axis="x", alpha=0.25)
        column.spines[["top", "right", "left"]].set_visible(False)
        column.tick_params(axis="y", length=0)
    columns[0].set_yticks(
        range(len(layers)), [shorten(la.name, _NAME_WIDTH) for la in layers], parse_math=False
    )
    columns[0].set_ylim(len(layers) - 0.4, -0.95)
    for label, layer in zip(columns[0].get_yticklabels(), layers, strict=True):
        label.set_color(_BAD if layer.warnings else "black")
    handles, labels = columns[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False)
    figure.suptitle(_title(report), x=0.01, ha="left", fontsize="medium", parse_math=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    return path


def _title(report: InspectReport) -> str:
    totals = report.totals
    text = f"{report.model}: {totals['weights']:,} binary weights. Inputs: {report.source}."
    if report.before is not None:
        text += f" Flips against {report.before}."
    if any(layer.warnings for layer in report.layers):
        text += " Red: see the warnings."
    return text


def _histograms(axes: Any, layers: tuple[LayerInspection, ...]) -> None:
    """One above the other, each as high as its row."""
    for row, layer in enumerate(layers):
        if layer.histogram is None:
            continue
        counts, edges = layer.histogram
        density = counts / max(1, counts.max())
        axes.stairs(
            row + 0.42 - 0.9 * density,
            edges,
            baseline=row + 0.42,
            fill=True,
            color=_KERNEL,
            alpha=0.75,
            linewidth=0,
        )
        axes.axhline(row + 0.42, color="0.85", linewidth=0.6, zorder=0)
    # What a few stray weights reach would leave the others no room.
    reach = [_reach(layer) for layer in layers if layer.histogram is not None]
    limit = max(reach, default=1.0)
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set(title="Latent weights", xlim=(-1.05 * limit, 1.05 * limit))


def _reach(layer: LayerInspection) -> float:
    """What 99.9 % of the weights do not exceed."""
    assert layer.histogram is not None
    counts, edges = layer.histogram
    share = np.cumsum(counts) / max(1, counts.sum())
    first, last = (int(np.searchsorted(share, at)) for at in (0.0005, 0.9995))
    low, high = edges[first], edges[min(last + 1, len(edges) - 1)]
    return max(abs(low), abs(high), 1e-12)


def _dots(axes: Any, layers: tuple[LayerInspection, ...], of_kernel: str, of_inputs: str) -> None:
    for part, name, color, marker, label in (
        ("kernel", of_kernel, _KERNEL, "o", "kernels"),
        ("inputs", of_inputs, _INPUT, "D", "inputs"),
    ):
        known = [(row, getattr(layer, part)) for row, layer in enumerate(layers)]
        points = [(getattr(found, name), row) for row, found in known if found is not None]
        x, y = zip(*points, strict=True) if points else ((), ())
        size = 34 if marker == "o" else 18
        axes.scatter(x, y, s=size, color=color, marker=marker, label=label, zorder=3, linewidths=0)


def _bars(axes: Any, shares: list[float | None]) -> None:
    for row, share in enumerate(shares):
        if share is None:
            continue
        axes.barh(row, share, height=0.55, color=_KERNEL, alpha=0.75)
        axes.annotate(
            f"{share:.1%}", (share, row), (3, 0), textcoords="offset points", va="center", size=8
        )
