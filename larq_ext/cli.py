"""The command `larq-ext`: finds the command that was asked for, prints errors as one line."""

from __future__ import annotations

import importlib
import sys
from typing import Any

try:
    import click
except ImportError:  # an installation for larq_ext.runtime alone
    sys.exit("The command larq-ext needs all of the package: type `pip install .` in its folder.")

from larq_ext.commands._common import INTERRUPTED, WRONG_USE

_COMMANDS = (
    "audit",
    "benchmark",
    "compare",
    "convert",
    "demo",
    "evaluate",
    "export",
    "inspect",
    "lint",
    "list",
    "pose",
    "predict",
    "publish",
    "summary",
    "train",
    "verify",
)


class _Group(click.Group):
    """Finds commands in the files of `larq_ext.commands`, and prints known errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return importlib.import_module(f"larq_ext.commands.{cmd_name}").command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, BrokenPipeError):  # click knows what to do
            raise
        except (ValueError, OSError, ImportError) as error:
            message, code = f"Error: {error}", WRONG_USE
        except (KeyboardInterrupt, Exception) as error:
            # Ours say what to exit with. An error that does not is a fault, and shows where.
            stopped = isinstance(error, KeyboardInterrupt)
            known = getattr(error, "exit_code", INTERRUPTED if stopped else None)
            if known is None or isinstance(error, click.exceptions.Exit):
                raise
            message, code = str(error) or "Stopped." if stopped else f"Error: {error}", known
        click.echo(message, err=True)
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

    Exit codes: 0 done, 1 a check or a training failed, 2 wrong use, 130 stopped by Ctrl-C.
    """


if __name__ == "__main__":
    main()
