"""How well a model does on test data."""

from __future__ import annotations

from typing import Any

import click

from larq_ext.commands._common import introduce, print_json
from larq_ext.commands._options import DATASETS, DECODINGS, json_option, pixel_options


@click.command("evaluate")
@click.argument("model")
@click.option(
    "--data-dir", help="Folder with the data; without it cifar10 and mnist are downloaded."
)
@click.option(
    "--dataset",
    help=f"One of {', '.join(DATASETS)}; if not given, what the model of the zoo or of the run "
    "was trained on, or else cifar10.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Use only that many test images, evenly spread.",
)
@click.option("--boxes", help="Poses: a detector's boxes, a JSON file, not the labelled ones.")
@click.option("--no-flip", is_flag=True, help="Poses: do not look at the mirrored crops too.")
@click.option(
    "--decoding",
    type=click.Choice(DECODINGS),
    help="Poses: how a peak becomes a coordinate; quarter if not given.",
)
@pixel_options(
    "What is subtracted from pixels of 0 to 255, a number for each channel or one, instead of the "
    "mean of the data set (poses: of ImageNet, or what the zoo says). A model that prepares its "
    "images itself: --mean 0 --std 1."
)
@json_option
def command(
    model: str,
    data_dir: str | None,
    dataset: str | None,
    limit: int | None,
    boxes: str | None,
    no_flip: bool,
    decoding: str | None,
    mean: str | None,
    std: str | None,
    as_json: bool,
) -> None:
    """Print top-1 accuracy and loss of MODEL on test images, or the AP of a pose network.

    MODEL is a zoo name, a .keras or .h5 file, a SavedModel folder, the folder of a run or a
    converted .tflite file.

    \b
    Examples:
      larq-ext evaluate resnet20.ste_sign_cifar10 --data-dir cifar-10-batches-bin
      larq-ext evaluate runs/ResNet20FDA --data-dir cifar-10-batches-bin
      larq-ext evaluate resnet20.tflite --data-dir cifar-10-batches-bin --json
      larq-ext evaluate model.keras --dataset digits
      larq-ext evaluate mine.keras --data-dir cifar-10-batches-bin --mean 127.5 --std 127.5
      larq-ext evaluate sbpn.tflite --dataset coco_keypoints --data-dir coco
      larq-ext evaluate sbpn.tflite --dataset coco_keypoints --data-dir coco \\
          --boxes detections_val2017.json
    """
    from larq_ext._text import given_numbers

    prepared = given_numbers(mean=mean, std=std)
    introduce(model)
    import larq_ext_recipes as recipes

    dataset = dataset or recipes.dataset_of(model)
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
            **prepared,
        )
    else:
        result = recipes.evaluate(
            model, data_dir=data_dir, dataset=dataset, limit=limit, **prepared
        )
    if as_json:
        print_json(result)
    elif of_poses:
        click.echo(_pose_table(result))
    else:
        click.echo(
            f"{result['model']}: top-1 {result['top1']:.2%}, loss {result['loss']:.4f} "
            f"on {result['n']} test images of {result['dataset']}"
            + (f", mean {result['mean']}, std {result['std']}" if "mean" in result else "")
        )


def _pose_table(result: dict[str, Any]) -> str:
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
