"""What is in an image."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from larq_ext.commands._common import CHECK_FAILED, DONE, MODEL_HELP, introduce, print_json
from larq_ext.commands._options import DATASETS, json_option


@click.command("predict", epilog=f"{MODEL_HELP} It may also be a converted .tflite file.")
@click.argument("model")
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path)
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes."
)
@click.option(
    "--like",
    help="Prepare images (and name classes where MODEL does not) as this model of the zoo does, "
    "or as for one of its data sets: "
    f"{', '.join(name for name in DATASETS if name != 'coco_keypoints')}.",
)
@click.option("--mean", help="Mean per channel, with commas: (scale * pixel - mean) / std.")
@click.option("--std", help="Standard deviation per channel, with commas.")
@click.option("--scale", type=float, help="Factor of the pixels, which are 0 to 255.")
@click.option(
    "--resize", type=click.IntRange(1), help="Pixels of the shorter side before the crop."
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    help="A file with the names of the classes: one a line, or a JSON list.",
)
@json_option
def command(
    model: str,
    images: tuple[Path, ...],
    top: int,
    like: str | None,
    mean: str | None,
    std: str | None,
    scale: float | None,
    resize: int | None,
    classes: Path | None,
    as_json: bool,
) -> None:
    """Name what MODEL sees in images (PNG, JPEG and others; a folder means those in it).

    A model of the zoo or of a run knows how its images are prepared. For any other say it: --like
    NAME, or --mean and --std. An image that cannot be read is reported, and the exit code is 1.

    \b
    Example:
      larq-ext predict resnet20.ste_sign_cifar10 cat.png
      larq-ext predict digits_net.fda_digits four.png seven.jpg --top 3
      larq-ext predict runs/ResNet20FDA photos/ --json
      larq-ext predict mine.tflite cat.png --mean 127.5 --std 127.5 --classes names.txt
    """
    from larq_ext._images import image_files

    files = image_files(images)
    introduce(model)
    from larq_ext._predict import Classifier

    given = {"mean": mean, "std": std, "scale": scale, "resize": resize}
    classifier = Classifier(model, like=like, given=given, classes=classes)
    results = []
    try:
        for result in classifier.predict(files, top):
            results.append(result)
            shown = click.format_filename(result["image"])
            if "error" in result:
                click.echo(f"Error: {shown}: {result['error']}", err=True)
            elif not as_json:
                width = max(len(row["class"]) for row in result["predictions"])
                click.echo(shown)
                for rank, row in enumerate(result["predictions"], 1):
                    click.echo(f"  {rank:2}  {row['class']:{width}}  {row['score']:.4f}")
    finally:
        # Also what was found before Ctrl-C.
        if as_json:
            print_json(results)
    sys.exit(CHECK_FAILED if any("error" in result for result in results) else DONE)
