"""Which layers of a converted file are binary."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from larq_ext._files import check_file
from larq_ext.commands._common import (
    CHECK_FAILED,
    DONE,
    MODEL_HELP,
    import_library,
    load_model,
    print_json,
    write_report,
)
from larq_ext.commands._options import json_option, report_option


@click.command("audit", epilog=MODEL_HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", help="The model that FILE was made from: compares bit by bit.")
@report_option
@json_option
def command(file: Path, model: str | None, report: Path | None, as_json: bool) -> None:
    """Show which layers of FILE (.tflite) are binary.

    Of each that is not it names the cause, the operator at fault and what to change. The exit
    code is 1 if one that was meant to be binary is not.

    \b
    Example:
      larq-ext audit model.tflite --model model.keras
      larq-ext audit model.tflite --model model.keras --report model.html
    """
    check_file(file)
    network = None if model is None else load_model(model)
    import_library()
    from larq_ext.deploy.audit import audit

    found = audit(file, network)
    write_report(report, found, file.name)
    print_json(found.to_dict()) if as_json else click.echo(str(found))
    sys.exit(DONE if found.ok else CHECK_FAILED)
