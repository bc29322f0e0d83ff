"""The result of a comparison, and the table it is printed as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from larq_ext._text import shorten, table, wrap
from larq_ext.benchmark._native import Profile
from larq_ext.benchmark._timing import Spread

_NAME_WIDTH = 34
RUNTIME = "(runtime)"
DELEGATE = "(delegate)"


@dataclass(frozen=True)
class Contest:
    """How one contender did.

    # Arguments
        name: `native`, `lce`, `float32` or `int8`.
        threads: the number of threads.
        seconds: one inference.
        ratio: how many times the base's time it takes, compared round by round.
        ratio_of_threads: the same with the base's contender on as many threads as this one.
        samples: how many inferences were timed.
        copying: seconds that were subtracted for copying inputs and outputs; 0 where only the
            inference was timed.
        file_bytes: the size of its file.
        unavailable: why it cannot run; then nothing else is set.
    """

    name: str
    threads: int
    seconds: Spread | None = None
    ratio: Spread | None = None
    ratio_of_threads: Spread | None = None
    samples: int = 0
    copying: float = 0.0
    file_bytes: int = 0
    unavailable: str | None = None


@dataclass(frozen=True)
class Operation:
    """What one operator takes, or `(runtime)` and `(delegate)` for what lies around them.

    # Arguments
        name: the operator.
        output: the tensor that it computes, or which part of the rest it is.
        shape: the shape of that tensor.
        macs: binary multiply-adds of one inference.
        seconds: the mean of one inference.
        share: of the whole inference.
    """

    name: str
    output: str
    shape: tuple[int, ...]
    macs: int
    seconds: float
    share: float

    @property
    def macs_per_second(self) -> float | None:
        """Binary multiply-adds per second, `None` for operators that have none."""
        return self.macs / self.seconds if self.macs and self.seconds > 0 else None


@dataclass(frozen=True)
class NativeDetails:
    """What the delegate does, by operator in inferences apart from those that are compared.

    # Arguments
        kernel: the kernel it runs.
        threads: the number of threads.
        operations: what each operator takes, in the order of execution.
        macs_per_second: binary multiply-adds per second, over the whole time of an inference.
        peak: the same of the kernel's inner loop on registers alone, on one thread; 0 for a
            kernel without such a loop.
        fraction_of_peak: `macs_per_second` as a part of that loop on all threads, compared round
            by round.
    """

    kernel: str
    threads: int
    operations: tuple[Operation, ...]
    macs_per_second: float
    peak: float
    fraction_of_peak: Spread | None


@dataclass(frozen=True)
class BenchmarkReport:
    """A comparison.

    # Arguments
        contests: a row for each contender and number of threads.
        base: name and threads of the contender that ratios refer to.
        rounds: how often each had its turn.
        machine: what it was measured on.
        binary_macs: binary multiply-adds in one inference.
        difference: the largest difference between the outputs of `native` and `lce`, relative to
            the largest output; `None` if one of them did not run.
        notes: what makes a contender slower than it could be.
        native: the delegate's operators; `None` if it did not run.
    """

    contests: tuple[Contest, ...]
    base: tuple[str, int]
    rounds: int
    machine: dict[str, Any]
    binary_macs: int
    difference: float | None
    notes: tuple[str, ...] = ()
    native: NativeDetails | None = None

    def contest(self, name: str, threads: int | None = None) -> Contest:
        """The row of a contender, by default with the first number of threads.

        # Raises
            KeyError: if it took no part.
        """
        for row in self.contests:
            if row.name == name and threads in (None, row.threads):
                return row
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; times in milliseconds."""
        return {
            "machine": self.machine,
            "rounds": self.rounds,
            "base": {"name": self.base[0], "threads": self.base[1]},
            "contenders": [_contest_values(row) for row in self.contests],
            "binary_macs": self.binary_macs,
            "native_lce_difference": self.difference,
            "notes": list(self.notes),
            "native": None if self.native is None else _native_values(self.native),
        }

    def conditions(self) -> str:
        """What it was measured on, as text."""
        return "\n".join(_conditions(self))

    def table(self) -> str:
        """The contenders without operators and notes, as text."""
        return "\n".join(_contest_table(self))

    def __str__(self) -> str:
        parts = [self.conditions(), self.table()]
        if self.native is not None:
            parts.append("\n".join(_operation_table(self.native)))
        return "\n\n".join([*parts, "\n".join(_notes(self))])


def read_operations(profile: Profile, names: Sequence[str]) -> tuple[Operation, ...]:
    """Brings a profile to rows that add up to the whole inference.

    # Arguments
        profile: what the delegate measured.
        names: the names of the model's tensors, which the profile gives by their positions.

    # Returns
        Each operator; after each partition what the delegate itself and then the runtime's
        operators up to the next partition took; in the end what the runtime took before the
        first and after the last partition.
    """
    values, total = profile.values, profile.seconds / profile.invokes
    gaps = {gap["after"]: gap["nanoseconds"] for gap in values["gaps"]}

    def row(name: str, output: str, seconds: float, **rest: Any) -> Operation:
        rest = {"shape": (), "macs": 0, **rest}
        return Operation(name, output, seconds=seconds, share=seconds / total, **rest)

    def mean(nanoseconds: float) -> float:
        return nanoseconds * 1e-9 / profile.invokes

    rows = []
    for index, partition in enumerate(values["partitions"]):
        nodes = [node for node in values["nodes"] if node["partition"] == index]
        for node in nodes:
            rows.append(
                row(
                    node["name"],
                    names[int(node["output"])],
                    mean(node["nanoseconds"]),
                    shape=tuple(node["shape"]),
                    macs=node["macs"],
                )
            )
        rest = partition["nanoseconds"] - sum(node["nanoseconds"] for node in nodes)
        rows.append(row(DELEGATE, f"around partition {index}'s operators", mean(rest)))
        if index in gaps:
            rows.append(row(RUNTIME, f"after partition {index}", mean(gaps[index])))
    rest = total - sum(operation.seconds for operation in rows)
    rows.append(row(RUNTIME, "before the first, after the last", rest))
    return tuple(rows)


def _contest_values(row: Contest) -> dict[str, Any]:
    values: dict[str, Any] = {"name": row.name, "threads": row.threads}
    if row.seconds is None or row.ratio is None:
        return {**values, "unavailable": row.unavailable}
    return {
        **values,
        "milliseconds": asdict(row.seconds.times(1e3)),
        "ratio": asdict(row.ratio),
        "ratio_of_threads": asdict(row.ratio_of_threads) if row.ratio_of_threads else None,
        "samples": row.samples,
        "copying_subtracted": row.copying * 1e3,
        "file_bytes": row.file_bytes,
    }


def _native_values(native: NativeDetails) -> dict[str, Any]:
    fraction = native.fraction_of_peak
    return {
        "kernel": native.kernel,
        "threads": native.threads,
        "macs_per_second": native.macs_per_second,
        "peak_macs_per_second": native.peak or None,
        "fraction_of_peak": None if fraction is None else asdict(fraction),
        "operations": [_operation_values(row) for row in native.operations],
    }


def _operation_values(row: Operation) -> dict[str, Any]:
    values = asdict(row)
    values["milliseconds"] = values.pop("seconds") * 1e3
    return {**values, "macs_per_second": row.macs_per_second}


def _conditions(report: BenchmarkReport) -> Iterator[str]:
    info = report.machine
    load = "" if info["load"] is None else f" (load {info['load']:.1f})"
    model = f"family {info['cpu_family']}, model {info['cpu_model']}, "
    yield from wrap(
        f"{info['cpu']} ({model if info['cpu_family'] else ''}"
        f"{', '.join(info['features']) or 'no vector extension known here'}), "
        f"{info['cores']} cores{load}, {info['system']}"
    )
    yield from wrap(", ".join(f"{name} {value}" for name, value in info["versions"].items()))
    kernel = f"kernel {report.native.kernel}, " if report.native else ""
    yield f"{kernel}{report.rounds} rounds in turns, one sample, random inputs"


def _contest_table(report: BenchmarkReport) -> Iterator[str]:
    base = f"x {report.base[0]}" + (f" ({report.base[1]} thr.)" if _threads(report) > 1 else "")
    header = ("Contender", "Threads", "Median ms", "Quartiles", base, "Quartiles", "File bytes")
    rows, missing = [], []
    for row in report.contests:
        if row.seconds is None or row.ratio is None:
            missing.append(f"{row.name}, {row.threads} thread(s): not available, {row.unavailable}")
            continue
        ms = row.seconds.times(1e3)
        rows.append(
            (
                row.name,
                str(row.threads),
                f"{ms.median:.3f}",
                f"{ms.low:.3f} - {ms.high:.3f}",
                f"{row.ratio.median:.2f}",
                f"{row.ratio.low:.2f} - {row.ratio.high:.2f}",
                f"{row.file_bytes:,}",
            )
        )
    yield from table(header, rows, left=1)
    for line in dict.fromkeys(missing):
        yield from wrap(line)


def _operation_table(native: NativeDetails) -> Iterator[str]:
    header = ("Operator", "Output", "Shape", "ms", "Share", "GMAC/s")
    rows = [
        (
            row.name,
            shorten(row.output, _NAME_WIDTH),
            "x".join(map(str, row.shape)),
            f"{1e3 * row.seconds:.4f}",
            f"{100 * row.share:.1f} %",
            f"{row.macs_per_second / 1e9:,.0f}" if row.macs_per_second else "",
        )
        for row in native.operations
    ]
    yield from table(header, rows, left=3)


def _notes(report: BenchmarkReport) -> Iterator[str]:
    for note in (_arithmetic(report), *_method(report), *report.notes):
        yield from wrap(note)


def _arithmetic(report: BenchmarkReport) -> str:
    text, native = f"Binary multiply-adds: {report.binary_macs:,} in one inference", report.native
    if native is not None:
        text += f"; native does {native.macs_per_second:.3g} a second, all included"
        if native.fraction_of_peak is not None:
            percent = native.fraction_of_peak.times(100)
            text += (
                f": {percent.median:.0f} % ({percent.low:.0f} - {percent.high:.0f}) of the "
                f"kernel's loop on registers alone ({native.peak:.3g} a second and thread)"
            )
    return f"{text}."


def _method(report: BenchmarkReport) -> Iterator[str]:
    ran = {row.name for row in report.contests if row.seconds is not None}
    if report.difference is not None:
        yield f"Largest difference of native and lce, relative: {report.difference:.1e}."
    if "lce" in ran:
        copying = 1e3 * report.contest("lce").copying
        yield (
            "lce: Larq Compute Engine with its fastest kernels here, less the time of copying "
            f"inputs and outputs ({copying:.3f} ms), which the others are spared."
        )
    if ran & {"float32", "int8"}:
        yield (
            "float32, int8: the same network with ordinary layers in TensorFlow Lite (XNNPACK); "
            "int8 throughout, with ranges from random data, which say nothing of accuracy."
        )
    if report.native is not None:
        share = sum(row.share for row in report.native.operations if row.macs)
        yield (
            f"Operators: means of a profiled run of their own; those with binary multiply-adds "
            f"take {100 * share:.0f} % of it."
        )


def _threads(report: BenchmarkReport) -> int:
    return len({row.threads for row in report.contests})
