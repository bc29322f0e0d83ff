"""All methods on one network."""

from __future__ import annotations

import sys

import click

from larq_ext.commands._common import CHECK_FAILED, import_library, print_json
from larq_ext.commands._options import METHODS, json_option


@click.command("compare")
@click.argument("experiment", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--methods", help=f"Of {', '.join(METHODS)} and float, with commas; default: all but float."
)
@click.option("--float", "floating_point", is_flag=True, help="Add the network in floating point.")
@click.option(
    "--seeds",
    default="3",
    show_default=True,
    help="How many, or the seeds themselves with commas: 0,1,2 (one: 7,).",
)
@click.option(
    "--own-recipes",
    is_flag=True,
    help="Each experiment on the network and data, with its own recipe.",
)
@click.option("--data-dir", type=click.Path(), help="Where the data is; the same as data_dir=.")
@click.option(
    "--output-dir",
    type=click.Path(),
    help="Where all is written; default: runs/compare-EXPERIMENT.",
)
@click.option("--resume", is_flag=True, help="Continue; with more methods or seeds, add them.")
@click.option("--overwrite", is_flag=True, help="Delete the runs that are there first.")
@click.option("--list", "list_all", is_flag=True, help="List the experiments, or the runs of one.")
@json_option
def command(
    experiment: str | None,
    overrides: tuple[str, ...],
    methods: str | None,
    floating_point: bool,
    seeds: str,
    own_recipes: bool,
    data_dir: str | None,
    output_dir: str | None,
    resume: bool,
    overwrite: bool,
    list_all: bool,
    as_json: bool,
) -> None:
    """Train EXPERIMENT with every method and several seeds; make one table and one picture.

    Network, data and recipe are those of EXPERIMENT, and only the method changes. Any setting can
    be changed with KEY=VALUE. Each run is an ordinary one, in OUTPUT/METHOD/seed-N. Ctrl-C saves
    a checkpoint; the same command with --resume continues and repeats nothing.

    The method ste_sign is Larq's pair: approx_sign for inputs, ste_sign for kernels. The exit
    code is 1 if a run failed; the table has the others.

    \b
    Examples:
      larq-ext compare Digits                          a quarter of an hour, no files needed
      larq-ext compare Digits --list                   the runs that this would be
      larq-ext compare Digits epochs=10 --methods fda,siman,ste_sign --float --seeds 5
      larq-ext compare ResNet20SteSign data_dir=cifar-10-batches-bin holdout=5000
      larq-ext compare ResNet20SteSign data_dir=cifar-10-batches-bin --own-recipes \\
          --output-dir runs/own-recipes
    """
    import_library()
    import larq_ext_recipes as recipes
    from larq_ext_recipes import _overrides
    from larq_ext_recipes._compare import Comparison

    if experiment is None:
        if not list_all:
            raise recipes.UsageError(
                "Which experiment? `larq-ext compare --list` shows them; for example "
                "`larq-ext compare Digits`."
            )
        known = {name: recipes.get_experiment(name) for name in recipes.list_experiments()}
        rows = {
            name: found.description
            for name, found in known.items()
            if isinstance(found, recipes.Experiment)
        }
        lines = "\n".join(f"{name:24}  {description}" for name, description in rows.items())
        print_json(rows) if as_json else click.echo(lines)
        return
    options = {"data_dir": data_dir, "output_dir": output_dir}
    words = [f"{key}={value}" for key, value in options.items() if value is not None]
    settings = _overrides.split_words([*overrides, *words])
    for key in ("methods", "floating_point", "seeds", "own_recipes", "experiment"):
        if key in settings:
            raise recipes.UsageError(
                f"{key}= is no setting of an experiment: `larq-ext compare --help` has the options."
            )
    if as_json:
        settings.setdefault("progress", "none")
    comparison = Comparison(
        experiment,
        methods=None if methods is None else _words(methods),
        floating_point=floating_point,
        seeds=_numbers(seeds),
        own_recipes=own_recipes,
        **settings,
    )
    if list_all:
        if resume or overwrite:
            raise recipes.UsageError("--list trains nothing: leave --resume and --overwrite out.")
        runs = [{"status": run.status, "folder": str(run.folder.path)} for run in comparison.runs]
        lines = "\n".join(f"{run['status']:8}  {run['folder']}" for run in runs)
        print_json(runs) if as_json else click.echo(lines)
        return
    report = comparison.run(resume=resume, overwrite=overwrite, command=sys.argv)
    print_json(report) if as_json else click.echo(comparison.describe())
    if comparison.failed:
        sys.exit(CHECK_FAILED)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> int | list[int]:
    """`"3"` as a number, `"0,1,2"` and `"7,"` as a list."""
    from larq_ext_recipes import UsageError

    try:
        return [int(word) for word in _words(text)] if "," in text else int(text)
    except ValueError:
        raise UsageError(
            f"--seeds is how many, such as 3, or a list such as 0,1,2; received {text!r}."
        ) from None
