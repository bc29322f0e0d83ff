"""The command `inspect`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from larq_ext import cli


@click.command(epilog=cli._MODEL_HELP)
@click.argument("model")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A .npy file of shape (samples, height, width, channels), preprocessed.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="How many random inputs to take without --data, or how many of --data at most.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random inputs.")
@click.option("--before", help="The same network earlier: how many bits have flipped since?")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw it to this .png file, with histograms of the latent weights.",
)
@cli._json_option
@click.pass_context
def inspect(
    context: click.Context,
    model: str,
    data: Path | None,
    samples: int,
    seed: int,
    before: str | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Show what the bits of MODEL are: balance, entropy, scales, flips.

    Of each binary layer: the share of +1 among its weights and its inputs, their entropy (1 is
    what one bit can hold), the share of latent weights that no gradient reaches any more, and
    what is likely wrong. Random inputs say little of real ones: give some with --data.

    \b
    Examples:
      larq-ext inspect model.keras
      larq-ext inspect model.keras --data images.npy --picture bits.png
      larq-ext inspect runs/last.keras --before runs/first.keras --json
    """
    network = cli.load_model(model, "training")
    earlier = None if before is None else cli.load_model(before, "training")
    from larq_ext.inspection import inspect as inspect_model

    inputs = None if data is None else cli._read_array(data)
    if inputs is not None and _given(context, "samples"):
        inputs = inputs[:samples]
    report = inspect_model(
        network, earlier, inputs, samples=samples, seed=seed, verbose=int(sys.stderr.isatty())
    )
    # Two states of one network have one name; the files tell them apart.
    report = dataclasses.replace(report, before=before)
    if data is not None:
        report = dataclasses.replace(report, source=f"{report.samples} samples of {data}")
    if picture is not None:
        report.draw(picture)
    if as_json:
        cli._print_json(report.to_dict())
    else:
        click.echo(str(report))
        if picture is not None:
            click.echo(f"\nWrote {picture}.")


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
