"""The result of an audit, and the table it is printed as."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

_WIDTH = 100


@dataclass(frozen=True)
class LayerAudit:
    """What became of one layer that was meant to be binary.

    # Arguments
        name: the layer's name; without a model, what the file says of it.
        op: the operator in the file, `""` if there is none.
        kernel: the shape of the kernel as Keras has it; without a model, of the file's filter.
        weight_bytes: what its weights take in the file.
        binary: whether it is an `LceBconv2d` with exactly the layer's bits.
        reason: why it is not binary.
        advice: what to change.
    """

    name: str
    op: str
    kernel: tuple[int, ...]
    weight_bytes: int
    binary: bool
    reason: str = ""
    advice: str = ""

    @property
    def became(self) -> str:
        """The operator with its type in words."""
        if not self.op:
            return "not found"
        return self.op if self.binary else f"{self.op} (float32)"


@dataclass(frozen=True)
class AuditReport:
    """What a converted file is made of.

    # Arguments
        layers: a row for each layer that was meant to be binary.
        op_counts: how often each operator occurs.
        file_bytes: the size of the file.
        float_bytes: the size it would have with all weights in float32.
        notes: what else is worth knowing.
    """

    layers: tuple[LayerAudit, ...]
    op_counts: dict[str, int]
    file_bytes: int
    float_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def binary(self) -> int:
        """How many layers are binary in the file."""
        return sum(layer.binary for layer in self.layers)

    @property
    def expected(self) -> int:
        """How many layers were meant to be binary."""
        return len(self.layers)

    @property
    def ok(self) -> bool:
        """Whether every layer that was meant to be binary is, and there is at least one."""
        return self.binary == self.expected > 0

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if not self.expected:
            return "no layer is meant to be binary"
        return f"{self.binary}/{self.expected} layers are binary"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "binary": self.binary,
            "expected": self.expected,
            **asdict(self),
        }

    def __str__(self) -> str:
        return "\n".join(_render(self))


def _render(report: AuditReport) -> Iterator[str]:
    header = ("Layer", "Became", "Kernel", "Bytes", "Binary")
    rows = [
        (
            _shorten(layer.name, 36),
            _shorten(layer.became, 27),
            "x".join(map(str, layer.kernel)),
            f"{layer.weight_bytes:,}",
            "yes" if layer.binary else "NO",
        )
        for layer in report.layers
    ]
    if rows:
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        for row in (header, tuple("-" * width for width in widths), *rows):
            cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].ljust(widths[2])]
            yield "  ".join([*cells, row[3].rjust(widths[3]), row[4]]).rstrip()
        yield ""
    for layer in report.layers:
        if not layer.binary:
            text = f"{layer.name}: {layer.became}, because {layer.reason}."
            yield from _wrap(f"{text} {layer.advice}".rstrip())
    for note in report.notes:
        yield from _wrap(f"Note: {note}")
    ratio = report.float_bytes / max(1, report.file_bytes)
    yield from _wrap(
        "Operators: " + ", ".join(f"{name} {count}" for name, count in report.op_counts.items())
    )
    yield (
        f"File: {report.file_bytes:,} bytes; with float32 weights {report.float_bytes:,} "
        f"({ratio:.1f} times as large)."
    )
    yield f"{'Binary' if report.ok else 'NOT BINARY'}: {report.verdict}."


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
