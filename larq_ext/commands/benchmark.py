"""How fast a network is."""

from __future__ import annotations

from pathlib import Path

import click

from larq_ext._files import check_file
from larq_ext.commands._common import (
    MODEL_HELP,
    captured_stderr,
    import_library,
    in_terminal,
    load_model,
    print_json,
)
from larq_ext.commands._options import json_option


@click.command("benchmark", epilog=MODEL_HELP)
@click.argument("model_or_file", metavar="MODEL_OR_FILE")
@click.option("--model", help="The model that the file was made from: allows float32 and int8.")
@click.option(
    "--against",
    help="Any of float32, int8 and lce, with commas; by default all that can be made.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1,),
    show_default=True,
    help="Number of threads; several times to compare several.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="How often each contender has its turn.",
)
@click.option(
    "--kernel",
    default="auto",
    show_default=True,
    help="A binary kernel of this machine, or auto for the best.",
)
@json_option
def command(
    model_or_file: str,
    model: str | None,
    against: str | None,
    threads: tuple[int, ...],
    runs: int,
    kernel: str,
    as_json: bool,
) -> None:
    """Measure the latency of a model or of a converted file (.tflite).

    In one run it takes turns between our kernels (native), Larq Compute Engine (lce), and the
    same network without binarization in TensorFlow Lite (float32, int8). Those two need the
    model; a file alone is compared with lce only.

    \b
    Example:
      larq-ext benchmark model.keras --against int8,lce
      larq-ext benchmark model.tflite --model model.keras --threads 1 --threads 2
    """
    file = Path(model_or_file) if model_or_file.endswith(".tflite") else None
    if file is not None:
        check_file(file)
    if file is None and model is not None:
        raise ValueError(f"--model belongs to a .tflite file, but {model_or_file} is a model.")
    source = model if file else model_or_file
    network = None if source is None else load_model(source, "training")
    import_library()
    if in_terminal():
        click.echo("Converting, then measuring; this takes a while.", err=True)
    # TensorFlow's converter and interpreter write to the terminal from native code.
    with captured_stderr():
        from larq_ext.benchmark import benchmark

        report = benchmark(
            network,
            file,
            against=None if against is None else [n.strip() for n in against.split(",") if n],
            num_threads=threads,
            rounds=runs,
            kernel=kernel,
        )
    print_json(report.to_dict()) if as_json else click.echo(str(report))
