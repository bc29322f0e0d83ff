"""The commands `train` and `evaluate`: they read words, call the library and print."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence

import click

from larq_ext.pose.decode import METHODS

WRONG_USE = 2


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turns expected errors into one line and an exit code; anything else is a bug and shows."""
    from larq_ext_recipes._errors import TrainingError, TrainingInterrupted, UsageError
    from larq_ext_recipes.datasets import DatasetError

    try:
        yield
    except TrainingInterrupted as stop:
        click.echo(str(stop), err=True)
        sys.exit(130)
    except TrainingError as error:
        raise click.ClickException(str(error)) from error
    except (UsageError, DatasetError) as error:
        failure = click.ClickException(str(error))
        failure.exit_code = WRONG_USE
        raise failure from error


@click.command()
@click.argument("experiment", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data-dir", type=click.Path(), help="Where the data is; the same as data_dir=.")
@click.option("--resume", is_flag=True, help="Continue the run in the output folder.")
@click.option("--overwrite", is_flag=True, help="Delete the run in the output folder first.")
@click.option("--list", "list_all", is_flag=True, help="List the experiments, or its settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    experiment: str | None,
    overrides: tuple[str, ...],
    data_dir: str | None,
    resume: bool,
    overwrite: bool,
    list_all: bool,
    as_json: bool,
) -> None:
    """Train EXPERIMENT and write model, log, curve and metrics to runs/EXPERIMENT.

    Any setting can be changed with KEY=VALUE. Ctrl-C saves a checkpoint; the same command with
    --resume continues as if nothing had happened.

    \b
    Examples:
      larq-ext train --list                  what there is
      larq-ext train ResNet20FDA --list      the settings of one
      larq-ext train ResNet20FDA data_dir=cifar-10-batches-bin
      larq-ext train ResNet20FDA data_dir=cifar-10-batches-bin --resume
      larq-ext train ResNet20FDA data_dir=cifar-10-batches-bin epochs=20 \\
          holdout=5000 seed=1 output_dir=runs/try1
    """
    with _one_line_errors():
        import larq_ext_recipes as recipes
        from larq_ext_recipes import _overrides

        if list_all:
            click.echo(_describe(experiment, overrides))
            return
        if experiment is None:
            raise recipes.UsageError(
                "Which experiment? `larq-ext train --list` shows them; "
                "for example `larq-ext train ResNet20FDA data_dir=cifar-10-batches-bin`."
            )
        if data_dir is not None:
            overrides = (*overrides, f"data_dir={data_dir}")
        settings = _overrides.split_words(overrides)
        if as_json:
            settings.setdefault("progress", "none")
        metrics = recipes.train(experiment, resume=resume, overwrite=overwrite, **settings)
    if as_json:
        click.echo(json.dumps(metrics, indent=2))


@click.command()
@click.argument("model")
@click.option("--data-dir", help="Folder with the data; without it the data set decides.")
@click.option("--dataset", default="cifar10", show_default=True, help="Name of the data set.")
@click.option("--limit", type=click.IntRange(1), help="Use only that many test images.")
@click.option("--boxes", help="Poses: a detector's boxes, a JSON file, not the labelled ones.")
@click.option("--no-flip", is_flag=True, help="Poses: do not look at the mirrored crops too.")
@click.option(
    "--decoding",
    type=click.Choice(METHODS),
    help="Poses: how a peak becomes a coordinate; quarter if not given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    model: str,
    data_dir: str | None,
    dataset: str,
    limit: int | None,
    boxes: str | None,
    no_flip: bool,
    decoding: str | None,
    as_json: bool,
) -> None:
    """Print top-1 accuracy and loss of MODEL on test images, or the AP of a pose network.

    MODEL is a zoo name, a .keras or .h5 file, a SavedModel folder or a converted .tflite file.

    \b
    Examples:
      larq-ext evaluate runs/ResNet20FDA/model.keras --data-dir cifar-10-batches-bin
      larq-ext evaluate resnet20.tflite --data-dir cifar-10-batches-bin --json
      larq-ext evaluate model.keras --dataset digits
      larq-ext evaluate sbpn.tflite --dataset coco_keypoints --data-dir coco
      larq-ext evaluate sbpn.tflite --dataset coco_keypoints --data-dir coco \\
          --boxes detections_val2017.json
    """
    with _one_line_errors():
        import larq_ext_recipes as recipes

        of_poses = dataset == recipes.POSES
        if not of_poses and (boxes or no_flip or decoding):
            raise recipes.UsageError(
                f"--boxes, --no-flip and --decoding are for poses: give --dataset {recipes.POSES}."
            )
        if of_poses:
            result = recipes.evaluate_poses(
                model,
                data_dir=data_dir,
                limit=limit,
                flip_test=not no_flip,
                decoding=decoding or "quarter",
                boxes=boxes,
            )
        else:
            result = recipes.evaluate(model, data_dir=data_dir, dataset=dataset, limit=limit)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    elif of_poses:
        click.echo(_pose_table(result))
    else:
        click.echo(
            f"{result['model']}: top-1 {result['top1']:.2%}, loss {result['loss']:.4f} "
            f"on {result['n']} test images of {result['dataset']}"
        )


def _pose_table(result: dict) -> str:
    """COCO's ten numbers in percent, of the network and of the mean pose."""
    from larq_ext.pose.scoring import METRICS

    flip = "with" if result["flip_test"] else "without"
    lines = [
        f"{result['model']}: {result['persons']} persons in {result['images']} images, boxes: "
        f"{result['boxes']}, {flip} flip test, decoding: {result['decoding']}",
        " " * 10 + "".join(f"{name:>6}" for name in METRICS),
    ]
    for label, numbers in (("network", result), ("mean pose", result["mean_pose"])):
        if numbers is None:
            continue
        cells = (
            f"{100 * numbers[name]:6.1f}" if numbers[name] >= 0 else "     -" for name in METRICS
        )
        lines.append(f"{label:10}" + "".join(cells))
    return "\n".join(lines)


def _describe(experiment: str | None, overrides: Sequence[str]) -> str:
    """A table of all experiments, or of the settings of one."""
    import larq_ext_recipes as recipes
    from larq_ext_recipes import _overrides

    if experiment is None:
        names = recipes.list_experiments()
        rows = {name: recipes.get_experiment(name).description for name in names}
    else:
        found = recipes.get_experiment(experiment)
        rows = found.replace(**_overrides.split_words(overrides)).to_dict()
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())


@click.group()
def main() -> None:
    """Train and evaluate binarized networks."""


main.add_command(train)
main.add_command(evaluate)

if __name__ == "__main__":
    main()
