"""What the bits of a model are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from larq_ext.commands._common import MODEL_HELP, in_terminal, load_model, print_json, read_inputs
from larq_ext.commands._options import DEFAULT_SAMPLES, file_option, input_options, json_option


@click.command("inspect", epilog=MODEL_HELP)
@click.argument("model")
@input_options
@click.option("--before", help="The same network earlier: how many bits have flipped since?")
@file_option(
    "--picture",
    suffixes=(".png",),
    help="Also draw it to this .png file, with histograms of the latent weights.",
)
@json_option
def command(
    model: str,
    inputs: Path | None,
    samples: int | None,
    seed: int,
    before: str | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Show what the bits of MODEL are: balance, entropy, scales, flips.

    Of each binary layer: the share of +1 among its weights and its inputs, their entropy (1 is
    what one bit can hold), the share of latent weights that no gradient reaches any more, and
    what is likely wrong. Random inputs say little of real ones: give some with --inputs.

    \b
    Examples:
      larq-ext inspect model.keras
      larq-ext inspect model.keras --inputs images.npy --picture bits.png
      larq-ext inspect runs/last.keras --before runs/first.keras --json
    """
    network = load_model(model, "training")
    earlier = None if before is None else load_model(before, "training")
    from larq_ext.inspection import inspect

    arrays = None if inputs is None else read_inputs(inputs, network, samples)
    report = inspect(
        network,
        earlier,
        arrays,
        samples=samples or DEFAULT_SAMPLES,
        seed=seed,
        verbose=int(in_terminal()),
    )
    # Two states of one network have one name; the files tell them apart.
    report = dataclasses.replace(report, before=before)
    if inputs is not None:
        report = dataclasses.replace(report, source=f"{report.samples} samples of {inputs}")
    if picture is not None:
        report.draw(picture)
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(str(report))
        if picture is not None:
            click.echo(f"\nWrote {picture}.")
