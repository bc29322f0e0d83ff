"""Training of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from larq_ext.commands._common import import_library, print_json
from larq_ext.commands._options import json_option


@click.command("train")
@click.argument("experiment", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data-dir", type=click.Path(), help="Where the data is; the same as data_dir=.")
@click.option("--output-dir", type=click.Path(), help="Where to write; the same as output_dir=.")
@click.option("--resume", is_flag=True, help="Continue the run in the output folder.")
@click.option("--overwrite", is_flag=True, help="Delete the run in the output folder first.")
@click.option("--list", "list_all", is_flag=True, help="List the experiments, or its settings.")
@json_option
def command(
    experiment: str | None,
    overrides: tuple[str, ...],
    data_dir: str | None,
    output_dir: str | None,
    resume: bool,
    overwrite: bool,
    list_all: bool,
    as_json: bool,
) -> None:
    """Train EXPERIMENT and write model, log, curve and metrics to runs/EXPERIMENT.

    Any setting can be changed with KEY=VALUE. Ctrl-C saves a checkpoint; the same command with
    --resume continues from there.

    \b
    Examples:
      larq-ext train --list                  what there is
      larq-ext train ResNet20FDA --list      the settings of one
      larq-ext train ResNet20FDA data_dir=cifar-10-batches-bin
      larq-ext train ResNet20FDA data_dir=cifar-10-batches-bin --resume
      larq-ext train ResNet20FDA data_dir=cifar-10-batches-bin epochs=20 \\
          holdout=5000 seed=1 output_dir=runs/try1
    """
    import_library()
    import larq_ext_recipes as recipes
    from larq_ext_recipes import _overrides

    for key, value in (("data_dir", data_dir), ("output_dir", output_dir)):
        if value is not None:
            overrides = (*overrides, f"{key}={value}")
    settings = _overrides.split_words(overrides)
    if list_all:
        if resume or overwrite:
            raise recipes.UsageError("--list trains nothing: leave --resume and --overwrite out.")
        rows = _describe(experiment, settings)
        width = max(map(len, rows))
        lines = "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())
        print_json(rows) if as_json else click.echo(lines)
        return
    if experiment is None:
        raise recipes.UsageError(
            "Which experiment? `larq-ext train --list` shows them; "
            "for example `larq-ext train ResNet20FDA data_dir=cifar-10-batches-bin`."
        )
    if as_json:
        settings.setdefault("progress", "none")
    chosen = recipes.get_experiment(experiment).replace(**settings)
    if not resume:
        chosen.check_use(settings)
    metrics = recipes.train(chosen, resume=resume, overwrite=overwrite)
    if as_json:
        print_json(metrics)


def _describe(experiment: str | None, settings: Mapping[str, str]) -> dict[str, Any]:
    """All experiments, or the settings of one."""
    import larq_ext_recipes as recipes

    if experiment is None:
        if settings:
            raise recipes.UsageError("Settings of which experiment? Name it before them.")
        names = recipes.list_experiments()
        return {name: recipes.get_experiment(name).description for name in names}
    return recipes.get_experiment(experiment).replace(**settings).to_dict()
