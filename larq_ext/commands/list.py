"""What the zoo has."""

from __future__ import annotations

from typing import Any

import click

from larq_ext.commands._common import import_library, print_json
from larq_ext.commands._options import json_option


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--pretrained", is_flag=True, help="Only models with trained weights.")
@click.option("--names", "only_names", is_flag=True, help="Print only names, one a line.")
@json_option
def command(pattern: str, pretrained: bool, only_names: bool, as_json: bool) -> None:
    """List the models of the zoo whose names match PATTERN.

    \b
    Example:
      larq-ext list "resnet20*"
      larq-ext list --pretrained --json
      larq-ext list "*.siman" --names
    """
    import_library()
    import larq_ext_zoo as zoo

    names = zoo.list_models(pattern, pretrained=pretrained)
    entries = [zoo.entry(name) for name in names]
    if as_json:
        print_json([entry.to_dict() for entry in entries])
    elif only_names:
        click.echo("".join(f"{name}\n" for name in names), nl=False)
    elif entries:
        click.echo(_model_table(entries))
    else:
        which = "pretrained model" if pretrained else "model"
        click.echo(f"No {which} matches {pattern!r}; `larq-ext list` shows all.", err=True)


def _model_table(entries: list[Any]) -> str:
    """Name, accuracy, size of the file to deploy, and what it is."""
    rows = [("NAME", "ACCURACY", "SIZE", "WHAT")]
    for entry in entries:
        accuracy, file = entry.accuracy, entry.weights.get("deployable")
        share = "" if accuracy is None else f"{accuracy.mean:.2%}"
        if accuracy is not None and accuracy.spread is not None:
            share += f" +- {accuracy.spread:.2%}"
        if accuracy is not None and accuracy.metric != "top-1":
            share += f" ({accuracy.metric})"
        size = "" if file is None else f"{file.bytes / 1000:,.0f} kB"
        rows.append((entry.name, share, size, entry.description))
    if not any(row[1] or row[2] for row in rows[1:]):
        rows = [(name, "", "", what) for name, _, _, what in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width
        ).rstrip()
        for row in rows
    )
