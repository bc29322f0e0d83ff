"""A model in forms that need nothing of ours."""

from __future__ import annotations

from pathlib import Path

import click

from larq_ext.commands._common import MODEL_HELP, captured_stderr, import_library, load_model
from larq_ext.commands._options import file_option


@click.command("export", epilog=f"{MODEL_HELP} For bits it may also be a converted .tflite file.")
@click.argument("model")
@file_option(
    "-o",
    "--output",
    suffixes=(".npz", ".onnx"),
    required=True,
    help="The .npz or .onnx file to write.",
)
@click.option("--allow-float", is_flag=True, help="For bits: write them even if layers stay float.")
def command(model: str, output: Path, allow_float: bool) -> None:
    """Write MODEL in a form that needs nothing of ours to run.

    \b
    The suffix of the output picks the form:
      .npz    packed bits, scales, thresholds and topology, for an FPGA, a microcontroller
              or a program of your own (docs/export_bits.md has a reader in NumPy)
      .onnx   ONNX, for interchange (extra [onnx]); weights of +-1 are floats there

    \b
    Examples:
      larq-ext export model.keras -o model.npz
      larq-ext export model.tflite -o model.npz
      larq-ext export digits_net.fda_digits -o digits.onnx
    """
    is_file = model.endswith(".tflite")
    if is_file and output.suffix == ".onnx":
        raise ValueError(f"ONNX is made of a model, not of a converted file: received {model}.")
    if allow_float and (is_file or output.suffix == ".onnx"):
        raise ValueError("--allow-float is for bits of a model: leave it out.")
    if not is_file:
        network = load_model(model)
    import_library()
    from larq_ext.deploy import convert, export_bits, export_onnx

    # TensorFlow writes to the terminal from native code when it freezes a graph.
    with captured_stderr():
        if output.suffix == ".onnx":
            export_onnx(network, output)
        else:
            source = model if is_file else convert(network, allow_float=allow_float)
            export_bits(source, output)
    click.echo(f"Wrote {output} ({output.stat().st_size / 1000:,.0f} kB).")
