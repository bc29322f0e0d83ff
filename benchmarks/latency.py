"""Latency of binary layers and whole networks: our kernels, LCE, and TensorFlow Lite.

    python benchmarks/latency.py --json latency.json --markdown latency.md

Each row is one run of `larq_ext.benchmark`, in which the contenders take turns; ratios compare
turns of the same round. The weights are random: right for latency.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import pathlib
import sys
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

OPPONENTS = ("int8", "float32", "lce")


def cases(threads: list[int]) -> dict[str, tuple]:
    """The networks by name: a function that makes it, and the numbers of threads to compare."""
    import networks

    table: dict[str, tuple] = {}
    for shape in networks.CHAINS:
        table[f"chain {_size(shape)}"] = (lambda shape=shape: networks.chain(*shape), threads)
    both = sorted({1, 2, *threads})
    table[f"threads {_size(networks.THREADED)}"] = (
        lambda: networks.chain(*networks.THREADED),
        both,
    )
    for name, build in networks.NETWORKS.items():
        table[name] = (build, threads)
    return table


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def measure(build, threads: list[int], options: argparse.Namespace):
    """The report of one network with fixed weights."""
    import tensorflow as tf

    from larq_ext.benchmark import benchmark

    tf.keras.utils.set_random_seed(0)
    return benchmark(
        build(),
        against=options.against,
        num_threads=threads,
        rounds=options.runs,
        kernel=options.kernel,
    )


def markdown(reports: dict) -> Iterator[str]:
    """The table: medians in milliseconds with quartiles, and ratios on equal threads."""
    first = next(iter(reports.values()))
    names = [
        name
        for name in dict.fromkeys(row.name for row in first.contests)
        if all(report.contest(name).seconds is not None for report in reports.values())
    ]
    bases = {report.base[0] for report in reports.values()}
    base = bases.pop()
    # Ratios are to what each network was compared with, which may not be the same for all.
    others = [] if bases else [name for name in names if name != base]
    header = ["network", "threads", *(f"{name}, ms" for name in names)]
    header += [*(f"{name} / {base}" for name in others), "binary MAC/s", "of the register loop"]
    yield _line(header)
    yield _line(["---"] * len(header))
    for case, report in reports.items():
        for threads in dict.fromkeys(row.threads for row in report.contests):
            cells = [case, str(threads)]
            cells += [_milliseconds(report.contest(name, threads)) for name in names]
            cells += [_ratio(report.contest(name, threads)) for name in others]
            cells += [_rate(report, threads), _fraction(report, threads)]
            yield _line(cells)
    for case, report in reports.items():
        for row in report.contests:
            if row.name == report.base[0] and row.threads != report.base[1]:
                part = f"{_spread(row.ratio, 2)} of its time on {report.base[1]}"
                yield f"\n{case}: {row.name} on {row.threads} threads takes {part}."
        yield from (f"\n{case}: {note}" for note in report.notes)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(spread, digits: int) -> str:
    median, low, high = (f"{v:.{digits}f}" for v in (spread.median, spread.low, spread.high))
    return f"{median} ({low} - {high})"


def _milliseconds(row) -> str:
    return "" if row.seconds is None else _spread(row.seconds.times(1e3), 3)


def _ratio(row) -> str:
    return "" if row.ratio_of_threads is None else _spread(row.ratio_of_threads, 2)


def _rate(report, threads: int) -> str:
    row = next((r for r in report.contests if (r.name, r.threads) == ("native", threads)), None)
    return (
        "" if row is None or not row.seconds else f"{report.binary_macs / row.seconds.median:.2e}"
    )


def _fraction(report, threads: int) -> str:
    native = report.native
    if native is None or native.threads != threads or native.fraction_of_peak is None:
        return ""
    return f"{100 * native.fraction_of_peak.median:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", help="networks whose names match, e.g. 'chain*'")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="numbers of threads")
    parser.add_argument("--runs", type=int, default=30, help="turns of each contender")
    parser.add_argument("--kernel", default="auto", help="the binary kernel")
    parser.add_argument(
        "--against", nargs="*", choices=OPPONENTS, default=OPPONENTS, help="contenders"
    )
    parser.add_argument("--operators", action="store_true", help="print each report in full")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the results to")
    parser.add_argument("--markdown", type=pathlib.Path, help="file to write the table to")
    options = parser.parse_args()

    chosen = {n: c for n, c in cases(options.threads).items() if fnmatch.fnmatch(n, options.only)}
    if options.list or not chosen:
        print("\n".join(chosen or cases(options.threads)))
        sys.exit(not chosen)
    reports = {}
    for name, (build, threads) in chosen.items():
        reports[name] = measure(build, threads, options)
        shown = str(reports[name]) if options.operators else reports[name].table()
        print(f"\n{name}\n{shown}", flush=True)
    busiest = max(reports.values(), key=lambda report: report.machine["load"] or 0)
    table = f"{busiest.conditions()}\n\n" + "\n".join(markdown(reports))
    print(f"\n{table}")
    if options.markdown:
        options.markdown.write_text(table + "\n")
    if options.json:
        values = {name: report.to_dict() for name, report in reports.items()}
        options.json.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main()
