"""Where the joints of persons are."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from larq_ext.commands._common import CHECK_FAILED, DONE, given, in_terminal, introduce
from larq_ext.commands._options import DECODINGS, pixel_options


@click.command(
    "pose",
    epilog="MODEL is the name of a pose network in the zoo, a .keras or .h5 file, a SavedModel "
    "folder, the folder of a run, or a converted .tflite file.",
)
@click.argument("model")
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path)
)
@click.option(
    "--boxes",
    type=click.Path(path_type=Path),
    help="A JSON file that says where the persons are: COCO detections, COCO annotations, or "
    '{"file name": [[x, y, width, height]]}.',
)
@click.option(
    "--whole-image", is_flag=True, help="One person fills the image; so it is without --boxes."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Draw skeletons: into this file, or for several images into this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the keypoints as COCO results.")
@click.option(
    "--no-flip", is_flag=True, help="Do not look at the mirrored image too: half the work."
)
@click.option(
    "--decoding",
    type=click.Choice(DECODINGS),
    default="quarter",
    show_default=True,
    help="How the peak of a heat map becomes a position.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Keypoints of a lower confidence are not drawn.",
)
@click.option(
    "--min-score",
    type=float,
    help="Boxes of a lower score are left out.",
)
@pixel_options(
    "What is subtracted from pixels of 0 to 255, three numbers or one, instead of ImageNet's "
    "mean (or the zoo's). A model that prepares its images itself: --mean 0 --std 1."
)
@click.option("--show-boxes", is_flag=True, help="Draw the boxes too.")
def command(
    model: str,
    images: tuple[Path, ...],
    boxes: Path | None,
    whole_image: bool,
    output: Path | None,
    as_json: bool,
    no_flip: bool,
    decoding: str,
    threshold: float,
    min_score: float | None,
    mean: str | None,
    std: str | None,
    show_boxes: bool,
) -> None:
    """Find the 17 keypoints of persons in images (a folder means the images in it).

    It draws skeletons (left limbs blue, right ones orange), prints keypoints, or both. Boxes are
    matched to images by file name, or by image_id and the number at the end of the file name. An
    image that cannot be read is reported, the rest goes on, and the exit code is 1.

    \b
    Examples:
      larq-ext pose runs/SBPN18Small me.jpg --whole-image -o skeleton.png
      larq-ext pose model.tflite frames/ --boxes detections.json -o drawn/
      larq-ext pose model.keras photos/ --boxes boxes.json --json > keypoints.json
    """
    if boxes is not None and whole_image:
        raise ValueError("--boxes and --whole-image exclude each other: give one of them.")
    for option, belongs in (("threshold", output), ("show_boxes", output), ("min_score", boxes)):
        if belongs is None and given(option):
            needed = "--boxes" if option == "min_score" else "-o"
            raise ValueError(f"--{option.replace('_', '-')} does nothing without {needed}.")
    if output is None and not as_json:
        raise ValueError("Say what to make: -o OUT.png draws skeletons, --json prints keypoints.")
    from larq_ext._images import image_files
    from larq_ext._text import given_numbers

    introduce(model)
    from larq_ext.pose.boxes import BoxFile
    from larq_ext.pose.estimator import PoseEstimator
    from larq_ext.pose.pictures import estimate, shared_numbers, targets

    files = list(dict.fromkeys(image_files(images)))
    outputs = [None] * len(files) if output is None else targets(files, output)
    box_file = None if boxes is None else BoxFile(boxes, min_score)
    for note in shared_numbers(files, box_file):
        if as_json:
            click.echo(f"Note: {note}.", err=True)
    estimator = PoseEstimator(
        model,
        flip_test=not no_flip,
        decoding=decoding,
        **given_numbers(mean=mean, std=std),
    )
    records: list[dict[str, Any]] = []
    done = 0
    try:
        for file, target in _with_progress(list(zip(files, outputs, strict=True))):
            try:
                found = estimate(
                    estimator,
                    file,
                    box_file,
                    target,
                    threshold=threshold,
                    show_boxes=show_boxes,
                )
            except (ValueError, OSError) as error:
                click.echo(f"Error: {click.format_filename(file)}: {error}", err=True)
                continue
            done += 1
            records += found.records
            for note in found.notes:
                click.echo(f"Note: {click.format_filename(file)}: {note}.", err=True)
    finally:
        # Also of what was found before Ctrl-C.
        if as_json:
            # A record a line: a number a line would be 51 lines for a person.
            click.echo("[" + ",\n ".join(map(json.dumps, records)) + "]")
        elif done:
            what = "1 image" if done == 1 else f"{done} images"
            click.echo(f"Wrote {output}: {what}, persons found: {len(records)}.")
    sys.exit(DONE if done == len(files) else CHECK_FAILED)


def _with_progress(jobs: list) -> Iterable:
    if len(jobs) < 2 or not in_terminal():
        return jobs
    from larq_ext.runtime._progress import progress

    return progress(iter(jobs), len(jobs))
