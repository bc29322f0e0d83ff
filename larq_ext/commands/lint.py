"""Which layers of a model will be binary."""

from __future__ import annotations

import sys

import click

from larq_ext.commands._common import CHECK_FAILED, DONE, MODEL_HELP, load_model, print_json
from larq_ext.commands._options import json_option


@click.command("lint", epilog=MODEL_HELP)
@click.argument("model")
@json_option
def command(model: str, as_json: bool) -> None:
    """Show before conversion which layers of MODEL will be binary.

    Quantizers are run on numbers and the graph is read as the converter reads it, so it holds for
    quantizers of your own too. Of each layer that will not be binary it names the cause, the
    operation at fault and what to change; what convert mends by itself is marked. Larq Compute
    Engine need not be installed. The exit code is 1 if a layer that was meant to be binary would
    run in float.

    \b
    Example:
      larq-ext lint model.keras
    """
    network = load_model(model)
    from larq_ext.deploy.lint import lint

    report = lint(network)
    print_json(report.to_dict()) if as_json else click.echo(str(report))
    sys.exit(DONE if report.ok else CHECK_FAILED)
