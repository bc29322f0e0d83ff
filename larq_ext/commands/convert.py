"""From a model to a file that is proven binary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from larq_ext._files import atomic
from larq_ext._models_io import check_name
from larq_ext.commands._common import MODEL_HELP, load_model, print_json, read_arrays, write_report
from larq_ext.commands._options import file_option, json_option, report_option


@click.command("convert", epilog=MODEL_HELP)
@click.argument("model")
@file_option(
    "-o", "--output", suffixes=(".tflite",), required=True, help="The .tflite file to write."
)
@report_option
@file_option(
    "--save-model",
    suffixes=(".keras", ".h5"),
    help="Also write the model that was converted: with --int8 it is what verify compares with.",
)
@click.option("--allow-float", is_flag=True, help="Write the file even if layers stay float.")
@click.option(
    "--target",
    type=click.Choice(["arm", "xcore"]),
    default="arm",
    show_default=True,
    help="arm serves everything that Larq Compute Engine runs on.",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["dense", "zero_one", "transposed", "relu", "pool", "threshold"]),
    help="Leave out one of the rewrites, which change no output; may be repeated.",
)
@click.option(
    "--int8",
    "samples",
    type=click.Path(path_type=Path),
    help="First and last layers in 8 bits, with ranges found on the inputs in this .npy file "
    "(for several inputs .npz).",
)
@click.option(
    "--input-type",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="What the file takes; int8 needs a first layer in 8 bits.",
)
@click.option(
    "--output-type",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="What the file gives; int8 needs a last layer in 8 bits.",
)
@json_option
def command(
    model: str,
    output: Path,
    report: Path | None,
    save_model: Path | None,
    allow_float: bool,
    target: Any,
    without: tuple[str, ...],
    samples: Path | None,
    input_type: Any,
    output_type: Any,
    as_json: bool,
) -> None:
    """Convert MODEL for Larq Compute Engine and prove it binary.

    Nothing is written if a layer that was meant to be binary would run in float (exit code 1).

    Rewrites, which --without leaves out: dense layers become 1x1 convolutions (dense), layers of
    zeros and ones become signs (zero_one), transposed convolutions become ordinary ones
    (transposed), scales move behind ReLUs (relu), norms in front of max pooling (pool), and norms
    in front of signs become their thresholds (threshold).

    \b
    Example:
      larq-ext convert model.keras -o model.tflite --report model.html
    8-bit ends round, so what they compute is compared with the model that has them:
      larq-ext convert model.keras -o model.tflite --int8 images.npy --save-model ends.keras
      larq-ext verify ends.keras model.tflite --inputs images.npy
    """
    source = check_name(model)
    if save_model is not None and source is not None and save_model.resolve() == source.resolve():
        raise ValueError(
            f"--save-model would replace {source}, whose latent weights would be lost: give "
            "another name."
        )
    # What the zoo has in its deployed form is rewritten already.
    network = load_model(model, "training" if without else "deployable")
    from larq_ext.deploy.convert import convert
    from larq_ext.deploy.errors import DeploymentError

    if samples is not None:
        from larq_ext.deploy.int8 import int8_edges

        network = int8_edges(network, read_arrays(samples, network), without=without)
    try:
        conversion = convert(
            network,
            allow_float=allow_float,
            target=target,
            without=without,
            input_type=input_type,
            output_type=output_type,
        )
    except DeploymentError as error:
        if error.report is not None:
            write_report(report, error.report, output.name)
            if as_json:
                print_json(error.report.to_dict())
        raise
    conversion.save(output)
    if save_model is not None:
        _save_model(conversion.model, save_model)
    write_report(report, conversion.report, output.name)
    if as_json:
        print_json({"output": str(output), **conversion.report.to_dict()})
    else:
        click.echo(f"{conversion.report}\n\nWrote {output}.")


def _save_model(model: Any, path: Path) -> None:
    with atomic(path) as temporary:
        model.save(temporary)
