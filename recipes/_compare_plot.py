"""The picture of a comparison: accuracy with spread, and learning curves."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from larq_ext._files import atomic
from larq_ext_recipes._compare_report import Row, spread

# M. Okabe and K. Ito's colours, which colour-blind people can tell apart; black is the text's.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw(
    path: pathlib.Path,
    report: dict[str, Any],
    rows: Sequence[Row],
    curves: dict[str, list[dict[int, float]]],
) -> bool:
    """Draws the accuracy of each method, every seed a dot, and the error over the epochs.

    # Arguments
        path: The PNG file to write.
        report: The content of `comparison.json`.
        rows: The rows of the table, the best one first.
        curves: For each method the accuracy by epoch of each finished run.

    # Returns
        Whether it was drawn; matplotlib is optional.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return False
    # A method keeps its looks whatever its place.
    looks = {
        name: {"color": _COLORS[i % len(_COLORS)], "marker": _MARKERS[i % len(_MARKERS)]}
        for i, name in enumerate(curves)
    }
    height = 1.6 + 0.46 * max(len(rows), 5)
    figure = Figure(figsize=(10, height), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's default backend
    accuracy, error = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_accuracy(accuracy, rows, looks)
    _draw_error(error, curves, looks)
    error.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (accuracy, error):
        axes.spines[["top", "right"]].set_visible(False)
    recipe = "own recipes" if report["own_recipes"] else "the same recipe for all"
    figure.suptitle(
        f"{report['experiment']}: {report['network']} on {report['dataset']}, {recipe}\n"
        f"trained on {report['trained_on']}, evaluated on {report['evaluated_on']}; "
        f"{spread(report['seeds'])}",
        fontsize=10,
    )
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return True


def _draw_accuracy(axes, rows: Sequence[Row], looks: dict[str, dict[str, str]]) -> None:
    shown = [row for row in rows if row.top1 is not None]
    for place, row in enumerate(shown):
        look = looks[row.method]
        mean, std = 100 * row.top1.mean, 100 * (row.top1.std or 0)
        bar = {"color": look["color"], "alpha": 0.3, "lw": 14, "solid_capstyle": "butt"}
        axes.plot([mean - std, min(mean + std, 100)], [place] * 2, **bar)
        axes.plot(mean, place, marker="|", color=look["color"], ms=20, mew=2.2)
        # Side by side: of some hundred images, two seeds often get equally many right.
        seeds = [100 * value for value in row.top1_of_seeds.values()]
        gap = min(0.14, 0.4 / len(seeds))
        lanes = [place + gap * (i - (len(seeds) - 1) / 2) for i in range(len(seeds))]
        axes.plot(seeds, lanes, ls="", ms=5.5, mec="white", mew=0.7, **look)
    axes.set_yticks(range(len(shown)), [_label(row) for row in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)  # the best one at the top
    axes.set(xlabel="%", title="Top-1 accuracy after the last epoch")
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)


def _label(row: Row) -> str:
    std = "" if row.top1.std is None else f" ± {100 * row.top1.std:.2f}"
    seeds = f", {len(row.failed)} failed" if row.failed else ""
    return f"{row.method}\n{100 * row.top1.mean:.2f}{std}{seeds}"


def _draw_error(
    axes, curves: dict[str, list[dict[int, float]]], looks: dict[str, dict[str, str]]
) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    lowest, highest = 100.0, 0.0
    for name, runs in curves.items():
        if not runs:
            continue
        epochs = sorted(set.intersection(*(set(run) for run in runs)))
        if not epochs:  # a log was deleted
            continue
        errors = [[100 * (1 - run[epoch]) for run in runs] for epoch in epochs]
        means = [statistics.fmean(values) for values in errors]
        stds = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in errors]
        few = len(epochs) <= 12
        look = {**looks[name], "marker": looks[name]["marker"] if few else ""}
        axes.plot(epochs, means, ms=5, mec="white", mew=0.7, lw=1.6, label=name, **look)
        low = [max(mean - std, 1e-9) for mean, std in zip(means, stds, strict=True)]
        high = [mean + std for mean, std in zip(means, stds, strict=True)]
        axes.fill_between(epochs, low, high, color=look["color"], alpha=0.15, lw=0)
        lowest, highest = min(lowest, *means), max(highest, *high)
    if 0 < lowest <= highest:
        axes.set_yscale("log")  # the differences are at the end, where errors are small
        axes.set_ylim(0.6 * lowest, 1.3 * highest)  # a band may reach down to zero
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="epoch", ylabel="%", title="Top-1 error")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
