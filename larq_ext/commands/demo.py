"""The whole way of a network in one command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from larq_ext.commands._common import CHECK_FAILED, given, import_library, print_json
from larq_ext.commands._options import METHODS, json_option


@click.command("demo")
@click.option(
    "--quantizer",
    type=click.Choice(METHODS),
    default="fda",
    show_default=True,
    help="Method of binarization.",
)
@click.option("--pretrained", is_flag=True, help="Take the trained network of the zoo instead.")
@click.option("--epochs", type=click.IntRange(1), default=30, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("larq-ext-demo"),
    show_default=True,
    help="Folder for the results; those of an earlier demo are replaced.",
)
@json_option
def command(
    quantizer: str,
    pretrained: bool,
    epochs: int,
    seed: int,
    output_dir: Path,
    as_json: bool,
) -> None:
    """Train a binarized network and run it on one-bit kernels, in about a minute.

    Uses scikit-learn's 1,797 handwritten digits, so it needs no network and no files. Trains on
    1,437 of them, converts the network for the Larq Compute Engine, proves that each binary layer
    became a one-bit convolution, and compares the predictions for the other 360 with Keras.

    \b
    Examples:
      larq-ext demo --quantizer siman --output-dir demo-siman
      larq-ext demo --pretrained
    """
    if pretrained:
        for name in ("epochs", "seed"):
            if given(name):
                raise click.UsageError(f"--pretrained trains nothing: leave --{name} out.")
    import_library()
    from larq_ext_recipes import demo

    report = demo.run(
        quantizer,
        epochs=None if pretrained else epochs,
        seed=seed,
        output_dir=output_dir,
        quiet=as_json,
    )
    if as_json:
        print_json(report)
    if not report["verify"]["ok"]:
        sys.exit(CHECK_FAILED)
