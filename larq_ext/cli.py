"""The command `larq-ext`. It parses, calls the library and prints; it computes nothing.

TensorFlow takes seconds to import, so nothing here imports it before a command needs it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import click
except ImportError:  # an installation for larq_ext.runtime alone
    sys.exit("The command larq-ext needs all of the package: type `pip install larq-ext`.")

DONE, CHECK_FAILED, WRONG_USE = 0, 1, 2

_MODEL_HELP = "MODEL is a zoo name, a .keras or .h5 file, or a SavedModel folder."


@dataclass(frozen=True)
class _Elsewhere:
    """A command that another package provides."""

    module: str
    attribute: str
    help: str


_ELSEWHERE = {
    "demo": _Elsewhere(
        "larq_ext_recipes.demo",
        "demo",
        "Train a small network, convert it, prove it binary: the whole way in one command.",
    ),
    "train": _Elsewhere("larq_ext_recipes.cli", "train", "Train an experiment."),
    "evaluate": _Elsewhere("larq_ext_recipes.cli", "evaluate", "Measure a model's accuracy."),
    "compare": _Elsewhere("larq_ext_recipes._compare_cli", "compare", "Compare all methods."),
    "inspect": _Elsewhere("larq_ext.inspection.cli", "inspect", "Show what a model's bits are."),
    "export": _Elsewhere("larq_ext.deploy._export_cli", "export", "Write bits or ONNX."),
    "pose": _Elsewhere("larq_ext.pose.cli", "pose", "Find and draw the keypoints of persons."),
}


class _Group(click.Group):
    """Knows the commands of other packages by name, and prints known errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        entry = _ELSEWHERE[cmd_name]
        import_library()
        return getattr(importlib.import_module(entry.module), entry.attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Click would import every command for its help.
        rows = []
        for name in self.list_commands(ctx):
            command = self.commands.get(name)
            text = command.get_short_help_str(80) if command else _ELSEWHERE[name].help
            rows.append((name, text))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, FileNotFoundError, ImportError) as error:
            _fail(str(error), WRONG_USE)
        except RuntimeError as error:
            # By name, because importing the class would import TensorFlow.
            if type(error).__name__ != "DeploymentError":
                raise
            failed_check = getattr(error, "report", None) is not None
            _fail(str(error), CHECK_FAILED if failed_check else WRONG_USE)


def _fail(message: str, code: int) -> None:
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="larq-ext", message="larq-ext %(version)s")
def main() -> None:
    """Binarized neural networks: from training to a file that is proven binary.

    \b
    The way of a network:
      larq-ext demo                                      see all of it once
      larq-ext lint model.keras                          will every layer be binary?
      larq-ext convert model.keras -o model.tflite       fails unless every layer is binary
      larq-ext audit model.tflite --model model.keras    what became of each layer
      larq-ext verify model.keras model.tflite           does it compute the same?
      larq-ext benchmark model.keras                     how fast, against int8 and float32?
      larq-ext predict model.tflite cat.png --like cifar10    what is in the image?
      larq-ext pose model.tflite me.jpg -o skeleton.png       where are a person's joints?

    Exit codes: 0 done, 1 a check failed, 2 wrong use.
    """


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.command(epilog=_MODEL_HELP)
@click.argument("model")
@_json_option
def summary(model: str, as_json: bool) -> None:
    """Show the layers of MODEL with bits, memory and operations.

    \b
    Example:
      larq-ext summary model.keras
    """
    network = load_model(model)
    import larq as lq

    if as_json:
        _print_json(_profile(lq.models.ModelProfile(network)))
    else:
        lq.models.summary(network, print_fn=click.echo)


@main.command(epilog=_MODEL_HELP)
@click.argument("model")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The .tflite file to write.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=lambda context, option, path: _report_path(path),
    help="Also write the audit to this file: .html with the graph drawn, .json, or .txt.",
)
@click.option("--allow-float", is_flag=True, help="Write the file even if layers stay float.")
@click.option(
    "--target",
    type=click.Choice(["arm", "xcore"]),
    default="arm",
    show_default=True,
    help="arm serves everything that Larq Compute Engine runs on.",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["dense", "zero_one", "transposed", "relu", "pool", "threshold"]),
    help="Leave out one of the rewrites, which change no output; may be repeated.",
)
@click.option(
    "--int8",
    "samples",
    type=click.Path(path_type=Path),
    help="First and last layers in 8 bits, with ranges found on the inputs in this .npy file.",
)
@click.option(
    "--input-type",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="What the file takes; int8 needs a first layer in 8 bits.",
)
@click.option(
    "--output-type",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="What the file gives; int8 needs a last layer in 8 bits.",
)
@_json_option
def convert(
    model: str,
    output: Path,
    report: Path | None,
    allow_float: bool,
    target: Any,
    without: tuple[str, ...],
    samples: Path | None,
    input_type: Any,
    output_type: Any,
    as_json: bool,
) -> None:
    """Convert MODEL for Larq Compute Engine and prove it binary.

    Nothing is written if a layer that was meant to be binary would run in float (exit code 1).

    \b
    Example:
      larq-ext convert model.keras -o model.tflite --report model.html
      larq-ext convert model.keras -o model.tflite --int8 images.npy --input-type int8
    """
    network = load_model(model)
    from larq_ext.deploy.convert import convert as convert_model
    from larq_ext.deploy.errors import DeploymentError

    if samples is not None:
        from larq_ext.deploy.int8 import int8_edges

        network = int8_edges(network, _read_array(samples), without=without)
    try:
        conversion = convert_model(
            network,
            allow_float=allow_float,
            target=target,
            without=without,
            input_type=input_type,
            output_type=output_type,
        )
    except DeploymentError as error:
        if error.report is not None:
            _write_report(report, error.report, output.name)
            if as_json:
                _print_json(error.report.to_dict())
        raise
    conversion.save(output)
    _write_report(report, conversion.report, output.name)
    if as_json:
        _print_json({"output": str(output), **conversion.report.to_dict()})
    else:
        click.echo(f"{conversion.report}\n\nWrote {output}.")


@main.command(epilog=_MODEL_HELP)
@click.argument("model")
@_json_option
def lint(model: str, as_json: bool) -> None:
    """Show before conversion which layers of MODEL will be binary.

    Quantizers are run on numbers and the graph is read as the converter reads it, so it holds for
    quantizers of your own too. Of each layer that will not be binary it names the cause, the
    operation at fault and what to change; what convert mends by itself is marked. Larq Compute
    Engine need not be installed. The exit code is 1 if a layer that was meant to be binary would
    run in float.

    \b
    Example:
      larq-ext lint model.keras
    """
    network = load_model(model)
    from larq_ext.deploy.lint import lint as lint_model

    report = lint_model(network)
    _print_json(report.to_dict()) if as_json else click.echo(str(report))
    sys.exit(DONE if report.ok else CHECK_FAILED)


@main.command(epilog=_MODEL_HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", help="The model that FILE was made from: compares bit by bit.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a page with the table, the sizes and the graph of operators drawn.",
)
@_json_option
def audit(file: Path, model: str | None, html: Path | None, as_json: bool) -> None:
    """Show which layers of FILE (.tflite) are binary.

    Of each that is not it names the cause, the operator at fault and what to change. The exit
    code is 1 if one that was meant to be binary is not.

    \b
    Example:
      larq-ext audit model.tflite --model model.keras
      larq-ext audit model.tflite --model model.keras --html model.html
    """
    network = None if model is None else load_model(model)
    import_library()
    from larq_ext.deploy.audit import audit as audit_file

    report = audit_file(file, network)
    if html is not None:
        report.to_html(html, title=file.name)
    _print_json(report.to_dict()) if as_json else click.echo(str(report))
    sys.exit(DONE if report.ok else CHECK_FAILED)


@main.command(epilog=_MODEL_HELP)
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    help="A .npy file of shape (samples, height, width, channels), preprocessed.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="How many random inputs to take without --inputs.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random inputs.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="The largest difference allowed, relative to the largest output.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "native", "lce"]),
    default="auto",
    show_default=True,
    help="What runs FILE: our native kernels or Larq Compute Engine.",
)
@_json_option
def verify(
    model: str,
    file: Path,
    inputs: Path | None,
    samples: int,
    seed: int,
    tolerance: float | None,
    engine: Any,
    as_json: bool,
) -> None:
    """Compare FILE (.tflite) with MODEL on the same inputs.

    The exit code is 1 if they differ.

    \b
    Example:
      larq-ext verify model.keras model.tflite --inputs images.npy
    """
    network = load_model(model)
    from larq_ext.deploy.verify import DEFAULT_TOLERANCE
    from larq_ext.deploy.verify import verify as verify_file

    arrays = _random_inputs(network, samples, seed) if inputs is None else _read_array(inputs)
    report = verify_file(
        network,
        file,
        arrays,
        tolerance=DEFAULT_TOLERANCE if tolerance is None else tolerance,
        verbose=int(sys.stderr.isatty()),
        engine=engine,
    )
    source = str(inputs) if inputs else f"{samples} random inputs, standard normal, seed {seed}"
    if as_json:
        _print_json({"inputs": source, **report.to_dict()})
    else:
        click.echo(f"Inputs               {source}\n{report}")
    sys.exit(DONE if report.ok else CHECK_FAILED)


@main.command(epilog=_MODEL_HELP)
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
@_json_option
def benchmark(
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
    if file is not None and not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    if file is None and model is not None:
        raise ValueError(f"--model belongs to a .tflite file, but {model_or_file} is a model.")
    source = model if file else model_or_file
    network = None if source is None else load_model(source, "training")
    import_library()
    if sys.stderr.isatty():
        click.echo("Converting, then measuring; this takes a while.", err=True)
    # TensorFlow's converter and interpreter write to the terminal from native code.
    with _captured_stderr():
        from larq_ext.benchmark import benchmark as measure

        report = measure(
            network,
            file,
            against=None if against is None else [n.strip() for n in against.split(",") if n],
            num_threads=threads,
            rounds=runs,
            kernel=kernel,
        )
    _print_json(report.to_dict()) if as_json else click.echo(str(report))


@main.command(epilog=f"{_MODEL_HELP} It may also be a converted .tflite file.")
@click.argument("model")
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path)
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes."
)
@click.option("--like", help="Prepare images as for this model or data set of the zoo.")
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
@_json_option
def predict(
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

    A model of the zoo knows how its images are prepared. For a file of your own say it: --like
    NAME, or --mean and --std. An image that cannot be read is reported, and the exit code is 1.

    \b
    Example:
      larq-ext predict digits_net.fda_digits four.png seven.jpg --top 3
      larq-ext predict runs/ResNet20FDA/model.keras photos/ --like cifar10 --json
      larq-ext predict mine.tflite cat.png --mean 127.5 --std 127.5 --classes names.txt
    """
    import_library()
    from larq_ext._images import image_files
    from larq_ext._predict import Classifier

    given = {"mean": mean, "std": std, "scale": scale, "resize": resize}
    classifier = Classifier(model, like=like, given=given, classes=classes)
    if classifier.note:
        click.echo(classifier.note, err=True)
    results = []
    for result in classifier.predict(image_files(images), top):
        results.append(result)
        if "error" in result:
            click.echo(f"Error: {result['image']}: {result['error']}", err=True)
        elif not as_json:
            width = max(len(row["class"]) for row in result["predictions"])
            click.echo(result["image"])
            for rank, row in enumerate(result["predictions"], 1):
                click.echo(f"  {rank:2}  {row['class']:{width}}  {row['score']:.4f}")
    if as_json:
        _print_json(results)
    sys.exit(CHECK_FAILED if any("error" in result for result in results) else DONE)


@main.command(name="list")
@click.argument("pattern", default="*")
@click.option("--pretrained", is_flag=True, help="Only models with trained weights.")
@click.option("--names", "only_names", is_flag=True, help="Print only names, one a line.")
@_json_option
def list_models(pattern: str, pretrained: bool, only_names: bool, as_json: bool) -> None:
    """List the models of the zoo whose names match PATTERN.

    \b
    Example:
      larq-ext list "resnet20*"
      larq-ext list --pretrained --json
      larq-ext list "*.siman" --names
    """
    import_library()
    import larq_ext_zoo as zoo

    names = zoo.list_models(pattern, pretrained=pretrained)
    entries = [zoo.entry(name) for name in names]
    if as_json:
        _print_json([entry.to_dict() for entry in entries])
    elif only_names:
        click.echo("".join(f"{name}\n" for name in names), nl=False)
    elif entries:
        click.echo(_model_table(entries))
    else:
        which = "pretrained model" if pretrained else "model"
        click.echo(f"No {which} matches {pattern!r}; `larq-ext list` shows all.", err=True)


def _model_table(entries: list[Any]) -> str:
    """Name, accuracy, size of the file to deploy, and what it is."""
    rows = [("NAME", "ACCURACY", "SIZE", "WHAT")]
    for entry in entries:
        accuracy, file = entry.accuracy, entry.weights.get("deployable")
        share = "" if accuracy is None else f"{accuracy.mean:.2%}"
        if accuracy is not None and accuracy.spread is not None:
            share += f" +- {accuracy.spread:.2%}"
        size = "" if file is None else f"{file.bytes / 1000:,.0f} kB"
        rows.append((entry.name, share, size, entry.description))
    if not any(row[1] or row[2] for row in rows[1:]):
        rows = [(name, "", "", what) for name, _, _, what in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width
        ).rstrip()
        for row in rows
    )


def import_library() -> None:
    """Imports TensorFlow without its messages, then what a model file may name."""
    # TensorFlow itself leaves oneDNN off where the CPU has no AVX-512: training took 1.4 times as
    # long there. It reads this once, when it is imported.
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    import_quietly("tensorflow")
    for room in ("quantizers", "layers", "deploy"):
        importlib.import_module(f"larq_ext.{room}")


def import_quietly(name: str) -> None:
    """Imports a package that writes messages from native code; shows them if it fails."""
    if name in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _captured_stderr() as text:
        try:
            importlib.import_module(name)
        except BaseException:
            text.show = True
            raise


@dataclass
class _Captured:
    show: bool = False


@contextlib.contextmanager
def _captured_stderr() -> Iterator[_Captured]:
    """Keeps what is written to file descriptor 2; shows it in the end if asked to."""
    sys.stderr.flush()
    captured = _Captured()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield captured
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            if captured.show:
                file.seek(0)
                os.write(2, file.read())


def load_model(name: str, form: str = "deployable") -> Any:
    """Loads a model from a file or the zoo, without the messages of TensorFlow's import."""
    from larq_ext import _models_io

    # A wrong name should not wait for TensorFlow.
    _models_io.check_name(name)
    import_library()
    return _models_io.load_model(name, form)


def _random_inputs(model: Any, samples: int, seed: int) -> list[Any]:
    import numpy as np

    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                f"The input {tensor.name} has the shape {tuple(tensor.shape)}, of which random "
                "inputs cannot be made: give inputs of the size that you want with --inputs FILE."
            )
    generator = np.random.default_rng(seed)
    return [
        generator.standard_normal((samples, *tensor.shape[1:])).astype(tensor.dtype.name)
        for tensor in model.inputs
    ]


def _read_array(path: Path) -> Any:
    import numpy as np

    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy file of numbers: {error}") from error


def _profile(profile: Any) -> dict[str, Any]:
    """Larq's model profile as plain values; memory in bits, as Larq counts it."""
    return {
        "name": profile.name,
        "weights": profile.weight_count(),
        "weights_by_bits": {
            str(bits): profile.weight_count(bits) for bits in profile.unique_param_bidtwidths
        },
        "memory_bits": profile.memory,
        "float32_memory_bits": profile.fp_equivalent_memory,
        "macs": profile.op_count("mac"),
        "macs_by_bits": {
            str(bits): profile.op_count("mac", bits) for bits in profile.unique_op_precisions
        },
    }


_REPORTS = (".html", ".json", ".txt")


def _report_path(path: Path | None) -> Path | None:
    if path is not None and path.suffix not in _REPORTS:
        raise click.BadParameter(f"the name must end in {', '.join(_REPORTS)}, not {path.name!r}.")
    return path


def _write_report(path: Path | None, report: Any, title: str) -> None:
    if path is None:
        return
    if path.suffix == ".html":
        report.to_html(path, title)
        return
    from larq_ext._files import atomic

    text = json.dumps(report.to_dict(), indent=2) if path.suffix == ".json" else str(report)
    with atomic(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _print_json(values: Any) -> None:
    click.echo(json.dumps(values, indent=2))


if __name__ == "__main__":
    main()
