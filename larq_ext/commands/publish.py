"""From the folder of a run to an entry of the zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from larq_ext.commands._common import import_library, print_json
from larq_ext.commands._options import json_option


@click.command("publish")
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option("--name", required=True, help="architecture.tag, such as resnet20.mine.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False),
    help="Where to write; without it `entries` in LARQ_EXT_HOME (~/.larq_ext if not set), "
    "which the zoo always knows.",
)
@click.option("--description", help="One line; without it one is made.")
@click.option(
    "--recipe-class",
    type=click.Choice(["one-step", "two-step", "distilled", "two-step, distilled"]),
    help="Without it the configuration of the run tells.",
)
@click.option(
    "--floats",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="What the deployable form stores in that is not binary.",
)
@click.option(
    "--evaluation",
    type=click.Path(),
    help="A file with what `larq-ext evaluate --json` printed: of NAME as it is stored, or of a "
    ".tflite file made of it.",
)
@click.option("--mirror", "mirrors", multiple=True, help="Address of a folder with the files.")
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    help="A file with the names of the classes: one a line, or a JSON list.",
)
@click.option("--licence", default="Apache-2.0", show_default=True, help="Of the weights.")
@click.option("--overwrite", is_flag=True, help="Replace an entry of this name in the folder.")
@json_option
def command(
    runs: tuple[str, ...], name: str, classes: Path | None, as_json: bool, **options: Any
) -> None:
    """Make an entry of the zoo from RUNS, folders that `larq-ext train` wrote.

    Several folders are one experiment with several seeds: the weights of the first are stored, and
    mean and spread are over all.

    \b
    Examples:
      larq-ext publish runs/ResNet20FDA --name resnet20.fda_mine
      larq-ext predict resnet20.fda_mine cat.png
    \b
    A smaller file, whose accuracy has to be measured as it is stored:
      larq-ext publish runs/ResNet20FDA --name resnet20.fda_mine --floats float16
      larq-ext evaluate resnet20.fda_mine --data-dir DIR --json > measured.json
      larq-ext publish runs/ResNet20FDA --name resnet20.fda_mine --floats float16 \\
          --evaluation measured.json --overwrite
    """
    import_library()
    import larq_ext_zoo as zoo
    from larq_ext._predict import read_classes
    from larq_ext_zoo._store import home

    names = None if classes is None else read_classes(classes)
    entry = zoo.add_entry(runs, name, classes=names, **options)
    if as_json:
        print_json(entry.to_dict())
        return
    for form, file in entry.weights.items():
        click.echo(f"{form:11} {file.bytes:>12,} bytes  {entry.folder / file.file}")
    if entry.accuracy is None:
        click.echo(
            "No accuracy yet: float16 rounds, so measure what was stored with `larq-ext evaluate "
            f"{name} --json > measured.json` and add --evaluation measured.json --overwrite."
        )
    else:
        accuracy = entry.accuracy
        click.echo(f"{accuracy.metric:11} {accuracy.value:.2%} ({accuracy.how})")
    if entry.folder != home() / "entries":
        click.echo(
            "Commands know the names in the default folder alone: copy the entry's files there, "
            "or name this folder in Python, larq_ext_zoo.register_folder."
        )
    click.echo(f"{entry.name}: {entry.folder / entry.name}.json")
