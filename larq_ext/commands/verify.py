"""Whether a converted file computes what its model does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from larq_ext._files import check_file
from larq_ext.commands._common import (
    CHECK_FAILED,
    DONE,
    MODEL_HELP,
    in_terminal,
    load_model,
    print_json,
    read_inputs,
)
from larq_ext.commands._options import DEFAULT_SAMPLES, input_options, json_option


@click.command("verify", epilog=MODEL_HELP)
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path))
@input_options
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="The largest difference allowed, relative to the largest output; 0.001 if not given.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "native", "lce"]),
    default="auto",
    show_default=True,
    help="What runs FILE: our native kernels or Larq Compute Engine.",
)
@json_option
def command(
    model: str,
    file: Path,
    inputs: Path | None,
    samples: int | None,
    seed: int,
    tolerance: float | None,
    engine: Any,
    as_json: bool,
) -> None:
    """Compare FILE (.tflite) with MODEL on the same inputs.

    The exit code is 1 if they differ.

    \b
    Example:
      larq-ext verify model.keras model.tflite --inputs images.npy
    """
    check_file(file)
    network = load_model(model)
    from larq_ext.deploy.verify import DEFAULT_TOLERANCE, verify

    if inputs is None:
        arrays, source = _random_inputs(network, samples or DEFAULT_SAMPLES, seed)
    else:
        arrays, source = read_inputs(inputs, network, samples), str(inputs)
    report = verify(
        network,
        file,
        arrays,
        tolerance=DEFAULT_TOLERANCE if tolerance is None else tolerance,
        verbose=int(in_terminal()),
        engine=engine,
    )
    if as_json:
        print_json({"inputs": source, **report.to_dict()})
    else:
        click.echo(f"Inputs               {source}\n{report}")
    sys.exit(DONE if report.ok else CHECK_FAILED)


def _random_inputs(model: Any, samples: int, seed: int) -> tuple[list[Any], str]:
    """Inputs, and what they are in words."""
    from larq_ext.runtime._inputs import described, random_inputs

    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                f"The input {tensor.name} has the shape {tuple(tensor.shape)}, of which random "
                "inputs cannot be made: give inputs of the size that you want with --inputs FILE."
            )
    shapes = [(samples, *tensor.shape[1:]) for tensor in model.inputs]
    dtypes = [tensor.dtype.as_numpy_dtype for tensor in model.inputs]
    return (
        random_inputs(shapes, dtypes, seed),
        f"{samples} random inputs, {described(dtypes, seed)}",
    )
