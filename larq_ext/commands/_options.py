"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

# As the libraries have them, whose imports take time.
DECODINGS = ("argmax", "quarter", "dark")
DATASETS = ("cifar10", "coco_keypoints", "digits", "folder", "imagenet", "imagenette", "mnist")
METHODS = ("fda", "learnable_scale", "mlp_classifier", "siman", "ste_sign")
DEFAULT_SAMPLES = 16

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def file_option(*names: str, suffixes: tuple[str, ...], help: str, required: bool = False) -> Any:
    """An option for a file to write, whose suffix says what is written."""

    def check(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and path.suffix not in suffixes:
            raise click.BadParameter(
                f"the name must end in {' or '.join(suffixes)}, received {path.name!r}."
            )
        return path

    return click.option(
        *names,
        type=click.Path(dir_okay=False, path_type=Path),
        callback=check,
        required=required,
        help=help,
    )


def pixel_options(mean: str) -> Any:
    """The options `--mean` and `--std` of a command; `mean` is the help of the first."""

    def add(function: Any) -> Any:
        std = click.option("--std", metavar="R,G,B", help="What they are then divided by.")
        return click.option("--mean", metavar="R,G,B", help=mean)(std(function))

    return add


report_option = file_option(
    "--report",
    suffixes=(".html", ".json", ".txt"),
    help="Also write the audit to this file: .html with the graph drawn, .json, or .txt.",
)


def input_options(function: Any) -> Any:
    """The options `--inputs`, `--samples` and `--seed` of a command that runs a model."""
    for option in (
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Seed of the random inputs.",
        ),
        click.option(
            "--samples",
            type=click.IntRange(min=1),
            help="How many: random inputs (16 if not given), or of --inputs (all if not given).",
        ),
        click.option(
            "--inputs",
            type=click.Path(path_type=Path),
            help="A .npy file of shape (samples, height, width, channels), preprocessed; for "
            "several inputs .npz.",
        ),
    ):
        function = option(function)
    return function
