"""The command `python -m larq_ext_zoo.publish`: from the folder of a run to an entry of the zoo."""

from __future__ import annotations

import sys

import click


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option("--name", required=True, help="architecture.tag, such as resnet20.fda_cifar10.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False),
    help="Where to write; without it ~/.larq_ext/entries, which the zoo always knows.",
)
@click.option("--description", help="One line; without it one is made.")
@click.option(
    "--recipe-class",
    type=click.Choice(["one-step", "two-step", "distilled"]),
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
    help="A file with what `larq-ext evaluate NAME --json` printed for the stored form.",
)
@click.option("--mirror", "mirrors", multiple=True, help="Address of a folder with the files.")
@click.option("--licence", default="Apache-2.0", show_default=True, help="Of the weights.")
@click.option("--overwrite", is_flag=True, help="Replace an entry of this name in the folder.")
def main(runs: tuple[str, ...], name: str, **options) -> None:
    """Make an entry of the zoo from RUNS, folders that `larq-ext train` wrote.

    Several folders are one experiment with several seeds: the weights of the first are stored, and
    mean and spread are over all.

    \b
    Examples:
      python -m larq_ext_zoo.publish runs/ResNet20FDA --name resnet20.fda_mine
      larq-ext predict resnet20.fda_mine cat.png
    \b
    A smaller file, whose accuracy has to be measured as it is stored:
      python -m larq_ext_zoo.publish runs/ResNet20FDA --name resnet20.fda_mine --floats float16
      larq-ext evaluate resnet20.fda_mine --data-dir DIR --json > measured.json
      python -m larq_ext_zoo.publish runs/ResNet20FDA --name resnet20.fda_mine --floats float16 \\
          --evaluation measured.json --overwrite
    """
    import larq_ext_zoo as zoo

    try:
        entry = zoo.add_entry(runs, name, **options)
    except (ValueError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    for form, file in entry.weights.items():
        click.echo(f"{form:11} {file.bytes:>12,} bytes  {entry.folder / file.file}")
    if entry.accuracy is None:
        click.echo(
            "No accuracy yet: float16 rounds, so measure what was stored with `larq-ext evaluate "
            f"{name} --json > measured.json` and add --evaluation measured.json --overwrite."
        )
    else:
        click.echo(f"accuracy    {entry.accuracy.value:.2%} ({entry.accuracy.how})")
    click.echo(f"{entry.name}: {entry.folder / entry.name}.json")


if __name__ == "__main__":
    main()
