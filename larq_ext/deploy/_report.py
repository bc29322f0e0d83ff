"""The result of an audit, and the table it is printed as."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from larq_ext._files import atomic
from larq_ext._text import shorten, table, wrap
from larq_ext.deploy._macs import PRECISIONS
from larq_ext.deploy._rewrite import Rewrite


@dataclass(frozen=True)
class LayerAudit:
    """What became of one layer that was meant to be binary.

    # Arguments
        name: the layer's name; without a model, what the file says of it.
        op: the operator in the file, `""` if there is none.
        kernel: the shape of the kernel as Keras has it; without a model, of the file's filter.
        weight_bytes: what its weights take in the file.
        binary: whether it is an `LceBconv2d` with exactly the layer's bits.
        cause: why it is not binary, a name from the table of causes; else `""`.
        offender: the operator at fault, with its position and tensor; `""` if it is none.
        reason: what was found, in words.
        advice: what to change.
        macs: multiply-adds of one inference.
        index: the operator's position in the file, `None` if there is none.
    """

    name: str
    op: str
    kernel: tuple[int, ...]
    weight_bytes: int
    binary: bool
    cause: str = ""
    offender: str = ""
    reason: str = ""
    advice: str = ""
    macs: int = 0
    index: int | None = None

    @property
    def became(self) -> str:
        """The operator with its type in words."""
        if not self.op:
            return "not found"
        return self.op if self.binary else f"{self.op} (float32)"


@dataclass(frozen=True)
class OpAudit:
    """One operator of a file.

    # Arguments
        index: its position in the file.
        name: the operator.
        kind: `binary`, `bits` for what packs, unpacks or pools bits, `int8`, `float`, or `memory`
            for what computes nothing.
        tensor: the name of what it computes.
        shape: the shape of that.
        dtype: the type of that; bits are packed into `INT32`.
        sources: positions of the operators that it takes its inputs from; -1 and below are the
            inputs of the model.
        precision: `1-bit`, `int8` or `float32` where it multiplies and adds, else `""`.
        macs: how often.
        weight_bytes: what its weights take.
    """

    index: int
    name: str
    kind: str
    tensor: str
    shape: tuple[int, ...]
    dtype: str
    sources: tuple[int, ...]
    precision: str = ""
    macs: int = 0
    weight_bytes: int = 0


@dataclass(frozen=True)
class AuditReport:
    """What a converted file is made of.

    # Arguments
        layers: a row for each layer that was meant to be binary.
        op_counts: how often each operator occurs.
        file_bytes: the size of the file.
        float_bytes: the size it would have with all weights in float32.
        notes: what else is worth knowing.
        ops: the operators, in the order in which they run.
        sizes: bytes of the file by what they hold.
        rewrites: what `bake` changed beyond making layers binary; known where the baked model is
            given, as `convert` does.
    """

    layers: tuple[LayerAudit, ...]
    op_counts: dict[str, int]
    file_bytes: int
    float_bytes: int
    notes: tuple[str, ...] = ()
    ops: tuple[OpAudit, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    rewrites: tuple[Rewrite, ...] = ()

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

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-adds of one inference by precision."""
        return {
            precision: sum(op.macs for op in self.ops if op.precision == precision)
            for precision in PRECISIONS
        }

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "binary": self.binary,
            "expected": self.expected,
            "macs": self.macs,
            **asdict(self),
        }

    def to_html(self, path: str | Path | None = None, title: str = "Audit") -> str:
        """The report as one HTML page, with the graph of operators drawn.

        The page needs no network and no other file.

        # Arguments
            path: where to write it too; missing folders are made.
            title: the heading, e.g. the name of the file.

        # Returns
            The page.
        """
        from larq_ext.deploy._html import page

        html = page(self, title)
        if path is not None:
            with atomic(Path(path)) as temporary:
                temporary.write_text(html, encoding="utf-8")
        return html

    def __str__(self) -> str:
        return "\n".join(_render(self))


def _render(report: AuditReport) -> Iterator[str]:
    if report.layers:
        header = ("Layer", "Became", "Kernel", "Bytes", "MACs", "Binary")
        rows = [
            (
                shorten(layer.name, 36),
                shorten(layer.became, 27),
                "x".join(map(str, layer.kernel)),
                f"{layer.weight_bytes:,}",
                f"{layer.macs:,}",
                "yes" if layer.binary else "NO",
            )
            for layer in report.layers
        ]
        yield from table(header, rows, left=3)
        yield ""
    for layer in report.layers:
        if not layer.binary:
            text = f"{layer.name}: {layer.became}, because {layer.reason} [{layer.cause}]."
            if layer.offender:
                text += f" Operator: {layer.offender}."
            yield from wrap(f"{text} {layer.advice}".rstrip())
    for note in report.notes:
        yield from wrap(f"Note: {note}")
    for rewrite in report.rewrites:
        yield from wrap(f"Rewritten ({rewrite.name}): {rewrite.layer}: {rewrite.what}")
    counts = ", ".join(f"{name} {count}" for name, count in report.op_counts.items())
    yield from wrap(f"Operators: {counts}")
    macs = ", ".join(f"{name} {count:,}" for name, count in report.macs.items() if count)
    yield from wrap(f"Multiply-adds: {macs or 'none'}")
    ratio = report.float_bytes / max(1, report.file_bytes)
    yield (
        f"File: {report.file_bytes:,} bytes; with float32 weights {report.float_bytes:,} "
        f"({ratio:.1f} times as large)."
    )
    sizes = ", ".join(f"{name} {count:,}" for name, count in report.sizes.items() if count)
    yield from wrap(f"Bytes: {sizes}")
    yield f"{'Binary' if report.ok else 'NOT BINARY'}: {report.verdict}."
