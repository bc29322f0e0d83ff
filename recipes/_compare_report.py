"""What a comparison says: statistics over seeds, a table, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from larq_ext._files import atomic

LARQ_PAIR = "ste_sign is Larq's pair: approx_sign for the inputs, ste_sign for the kernels."


@dataclasses.dataclass(frozen=True)
class Statistics:
    """A number of several runs.

    # Arguments
        mean: Mean over the seeds.
        std: Sample standard deviation (n - 1); `None` for one seed.
        min: The smallest.
        max: The largest.
    """

    mean: float
    std: float | None
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistics:
        """The statistics of one value or more."""
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), std, min(values), max(values))


@dataclasses.dataclass(frozen=True)
class Row:
    """A method in the table.

    # Arguments
        method: Its name.
        recipe: `"one-step"`, `"two-step"`, `"distilled"` or both.
        epochs: Epochs of a run; with two steps as in `"100+200"`.
        seeds: Those of the finished runs.
        failed: Those of the failed runs.
        top1: Accuracy after the last epoch, from 0 to 1; `None` if no run is finished, as below.
        loss: Cross-entropy.
        seconds: Training and evaluation.
        top1_of_seeds: Accuracy by seed.
    """

    method: str
    recipe: str
    epochs: str
    seeds: list[int]
    failed: list[int]
    top1: Statistics | None
    loss: Statistics | None
    seconds: Statistics | None
    top1_of_seeds: dict[int, float]


def make_row(
    method: str, recipe: str, epochs: str, metrics: dict[int, dict[str, Any]], failed: list[int]
) -> Row:
    """The row of a method.

    # Arguments
        method: Its name.
        recipe: Class of its recipe.
        epochs: Epochs of a run.
        metrics: `top1`, `loss` and `seconds` of the finished runs by seed.
        failed: Seeds of the failed runs.
    """

    def of(name: str) -> Statistics | None:
        return Statistics.of([run[name] for run in metrics.values()]) if metrics else None

    numbers = {name: of(name) for name in ("top1", "loss", "seconds")}
    accuracies = {seed: run["top1"] for seed, run in metrics.items()}
    return Row(method, recipe, epochs, list(metrics), failed, **numbers, top1_of_seeds=accuracies)


def best_first(rows: Iterable[Row]) -> list[Row]:
    """The rows by mean accuracy, those without a finished run last."""
    return sorted(rows, key=lambda row: -row.top1.mean if row.top1 else 1)


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("method", "recipe"):
        result.add_column(name, no_wrap=True)
    for name in ("top-1 %", "min", "max", "loss", "epochs", "s/run", "seeds"):
        result.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        numbers = ["-"] * 3 if row.top1 is None else _percent(row.top1)
        result.add_row(
            row.method,
            row.recipe,
            *numbers,
            "-" if row.loss is None else _with_spread(row.loss, 4),
            row.epochs,
            "-" if row.seconds is None else f"{row.seconds.mean:.1f}",
            ",".join(map(str, row.seeds)) + (f" ({len(row.failed)} failed)" if row.failed else ""),
        )
    console = Console(width=1000, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(result)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _percent(top1: Statistics) -> list[str]:
    percent = Statistics(*(None if x is None else 100 * x for x in dataclasses.astuple(top1)))
    return [_with_spread(percent, 2), f"{percent.min:.2f}", f"{percent.max:.2f}"]


def _with_spread(numbers: Statistics, digits: int) -> str:
    spread = "" if numbers.std is None else f" ± {numbers.std:.{digits}f}"
    return f"{numbers.mean:.{digits}f}{spread}"


def headline(report: dict[str, Any]) -> str:
    """What was compared, on what, and what the numbers are.

    # Arguments
        report: The content of `comparison.json`.
    """
    recipe = "each with its own recipe" if report["own_recipes"] else "the same recipe for all"
    return (
        f"{report['experiment']}: {report['network']} on {report['dataset']}, {recipe}.\n"
        f"Trained on {report['trained_on']}; top-1 after the last epoch on "
        f"{report['evaluated_on']}; {spread(report['seeds'])}."
    )


def spread(seeds: Sequence[int]) -> str:
    """What stands behind the sign ±."""
    if len(seeds) == 1:
        return f"one seed ({seeds[0]}), no spread"
    numbers = ", ".join(map(str, seeds))
    return f"mean ± sample standard deviation over {len(seeds)} seeds ({numbers})"


def write_csv(path: pathlib.Path, rows: Sequence[Row], seeds: Sequence[int]) -> None:
    """Writes the table with all digits, and a column for each seed.

    # Arguments
        path: The file.
        rows: A row for each method.
        seeds: All seeds that were asked for.
    """
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        parts = [field.name for field in dataclasses.fields(Statistics)]
        writer.writerow(
            ["method", "recipe", "epochs", "finished", "failed"]
            + [f"{name}_{part}" for name in ("top1", "loss", "seconds") for part in parts]
            + [f"top1_seed_{seed}" for seed in seeds]
        )
        for row in rows:
            numbers = [
                None if values is None else getattr(values, part)
                for values in (row.top1, row.loss, row.seconds)
                for part in parts
            ]
            accuracies = [row.top1_of_seeds.get(seed) for seed in seeds]
            counts = [len(row.seeds), len(row.failed)]
            writer.writerow([row.method, row.recipe, row.epochs, *counts, *numbers, *accuracies])
