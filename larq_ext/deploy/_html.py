"""An audit as one HTML page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape

from larq_ext.deploy._draw import draw
from larq_ext.deploy._report import AuditReport, LayerAudit

_KINDS = {
    "binary": "binary convolution",
    "bits": "packs, unpacks or pools bits",
    "int8": "8-bit integers",
    "float": "floating point",
    "memory": "moves numbers only",
}
# Classes of the parts of bars, which give the colours.
_PARTS = {
    "1-bit": "binary",
    "int8": "int8",
    "float32": "float",
    "other constants": "bits",
    "structure": "memory",
}

_CSS = """
:root{color-scheme:light dark;--page:#fbfbfa;--card:#fff;--text:#1d2126;--dim:#5d6670;
--line:#dfe2e6;--good:#177245;--bad:#b3261e;--binary:#1f8a5b;--bits:#3a6fd8;--float:#c9772b;
--int8:#8a56c2;--memory:#8b949e;--tint:14%}
@media(prefers-color-scheme:dark){:root{--page:#14171a;--card:#1c2024;--text:#e6e8ea;
--dim:#9aa3ad;--line:#333a41;--good:#4cc38a;--bad:#ff8b80;--binary:#3fb27f;--bits:#6f9bf0;
--float:#e09a55;--int8:#b48be6;--memory:#8b949e;--tint:24%}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1160px;padding:24px 20px 60px;background:var(--page);
color:var(--text);font:15px/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:24px;margin:0 0 8px;overflow-wrap:anywhere}h2{font-size:18px;margin:34px 0 10px}
code,.mono{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,monospace;font-size:.92em}
a{color:inherit}.dim{color:var(--dim)}
.verdict{display:inline-block;padding:4px 12px;border-radius:99px;font-weight:600;
border:1.5px solid}.ok{color:var(--good)}.fail{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin-top:18px}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:12px 14px}
.tile b{display:block;font-size:22px;font-weight:600}
.bar{display:flex;height:16px;border-radius:5px;overflow:hidden;background:var(--line);
margin:6px 0}.bar i{background:var(--kind);min-width:1px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13.5px}
.legend span::before{content:"";display:inline-block;width:10px;height:10px;border-radius:3px;
background:var(--kind);margin-right:6px}
.binary{--kind:var(--binary)}.bits{--kind:var(--bits)}.float{--kind:var(--float)}
.int8{--kind:var(--int8)}.memory{--kind:var(--memory)}.input{--kind:var(--dim)}
table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600;color:var(--dim)}
th,td{padding:7px 10px 7px 0;border-bottom:1px solid var(--line);vertical-align:top}
td{overflow-wrap:anywhere}.number{text-align:right;font-variant-numeric:tabular-nums}
td:last-child,th:last-child{padding:7px 0 7px 14px}
.why td{border-top:0;color:var(--text);padding-left:14px;border-left:3px solid var(--bad)}
.lost td{border-bottom:0}
.slug{border:1px solid var(--bad);color:var(--bad);border-radius:5px;padding:0 6px}
li{overflow-wrap:anywhere;margin:3px 0}ul{padding-left:20px;margin:6px 0}
.pane{overflow:auto;max-height:85vh;text-align:center;margin-top:10px}
.graph path{fill:none;stroke:var(--memory);stroke-width:1.4}
.graph rect{fill:color-mix(in srgb,var(--kind) var(--tint),var(--card));stroke:var(--kind);
stroke-width:1.4}
.graph text{fill:var(--text);font-size:12px;text-anchor:middle}
.graph text+text{fill:var(--dim);font-size:11px}.graph .memory rect{stroke-dasharray:4 3}
.graph .marked rect{stroke:var(--bad);stroke-width:3}.graph g:target rect{stroke-width:5}
.legend .marked::before{background:none;border:2px solid var(--bad)}
@media(max-width:640px){body{padding:16px 12px 40px}.layers thead{display:none}
.layers tr{display:block;padding:8px 0;border-bottom:1px solid var(--line)}
.layers tr.lost{border-bottom:0;padding-bottom:0}
.layers td{display:flex;justify-content:space-between;gap:14px;border:0;padding:2px 0;
text-align:right}.layers td::before{content:attr(data-label);color:var(--dim);text-align:left}
.layers td:first-child{font-weight:600}
.layers .why td{display:block;text-align:left;font-weight:400;padding:4px 0 4px 12px;
border-left:3px solid var(--bad)}}
@media print{.pane{max-height:none;overflow:visible}}
"""


def page(report: AuditReport, title: str) -> str:
    """The page.

    # Arguments
        report: what it shows.
        title: the heading.

    # Returns
        A whole HTML document.
    """
    name = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name}</title><style>{_CSS}</style></head><body>"
        + "\n".join(
            [
                f"<h1>{name}</h1>",
                *_head(report),
                *_layers(report),
                *_list("Notes", [escape(note) for note in report.notes]),
                *_list(
                    "Rewrites",
                    [
                        f"<b>{escape(rewrite.name)}</b> <code>{escape(rewrite.layer)}</code>: "
                        f"{escape(rewrite.what)}"
                        for rewrite in report.rewrites
                    ],
                ),
                *_operators(report),
            ]
        )
        + "</body></html>\n"
    )


def _head(report: AuditReport) -> Iterator[str]:
    word = "Binary" if report.ok else "Not binary"
    yield (
        f'<span class="verdict {"ok" if report.ok else "fail"}">{word}: '
        f"{escape(report.verdict)}</span>"
    )
    macs, total = report.macs, sum(report.macs.values())
    ratio = report.float_bytes / max(1, report.file_bytes)
    tiles = [
        (f"{report.binary} of {report.expected}", "layers that were meant to be binary are"),
        (_short(report.file_bytes) + "B", "the file"),
        (_short(report.float_bytes) + "B", f"with float32 weights, {ratio:.1f} times as large"),
        (_short(total), f"multiply-adds, {macs['1-bit'] / max(1, total):.1%} of them on bits"),
    ]
    yield '<div class="tiles">'
    for number, text in tiles:
        yield f'<div class="tile"><b>{number}</b><span class="dim">{text}</span></div>'
    yield "</div>"
    yield from _bar("Bytes of the file", report.sizes)
    yield from _bar("Multiply-adds of one inference", macs)


def _bar(heading: str, parts: dict[str, int]) -> Iterator[str]:
    total = max(1, sum(parts.values()))
    shown = [(name, count) for name, count in parts.items() if count]
    yield f"<h2>{heading}</h2>"
    if not shown:
        yield '<p class="dim">none</p>'
        return
    yield '<div class="bar">'
    for name, count in shown:
        yield f'<i class="{_part(name)}" style="flex:{count / total:.5f} 0 0"></i>'
    yield '</div><div class="legend">'
    for name, count in shown:
        yield f'<span class="{_part(name)}">{name} {count:,} ({count / total:.1%})</span>'
    yield "</div>"


def _part(name: str) -> str:
    return _PARTS[name.removesuffix(" weights")]


def _layers(report: AuditReport) -> Iterator[str]:
    yield "<h2>Layers</h2>"
    if not report.layers:
        yield "<p>No layer is meant to be binary.</p>"
        return
    heads = ("Layer", "Became", "Kernel", "Bytes", "Multiply-adds", "Binary")
    cells = "".join(
        f'<th class="number">{head}</th>'
        if head in ("Bytes", "Multiply-adds")
        else f"<th>{head}</th>"
        for head in heads
    )
    yield f'<div class="card"><table class="layers"><thead><tr>{cells}</tr></thead><tbody>'
    for layer in report.layers:
        yield from _layer(layer, heads)
    yield "</tbody></table></div>"


def _layer(layer: LayerAudit, heads: tuple[str, ...]) -> Iterator[str]:
    became = escape(layer.became)
    if layer.index is not None:
        became = f'<a href="#op-{layer.index}">{became}</a>'
    values = (
        escape(layer.name),
        became,
        "x".join(map(str, layer.kernel)),
        f"{layer.weight_bytes:,}",
        f"{layer.macs:,}",
        '<b class="ok">yes</b>' if layer.binary else '<b class="fail">no</b>',
    )
    cells = "".join(
        f'<td data-label="{head}"'
        f"{' class=number' if head in ('Bytes', 'Multiply-adds') else ''}>{value}</td>"
        for head, value in zip(heads, values, strict=True)
    )
    yield f"<tr{'' if layer.binary else ' class=lost'}>{cells}</tr>"
    if not layer.binary:
        operator = f"<br>Operator: <code>{escape(layer.offender)}</code>" if layer.offender else ""
        yield (
            f'<tr class="why"><td colspan="{len(heads)}"><code class="slug">{escape(layer.cause)}'
            f"</code> {escape(_sentence(layer.reason))} {escape(layer.advice)}{operator}</td></tr>"
        )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _list(heading: str, items: list[str]) -> Iterator[str]:
    if items:
        yield f"<h2>{heading}</h2><ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _operators(report: AuditReport) -> Iterator[str]:
    yield f"<h2>Operators ({len(report.ops)})</h2>"
    kinds = {op.name: op.kind for op in report.ops}
    counts = Counter(op.name for op in report.ops).most_common()
    yield '<div class="legend mono">'
    yield "".join(
        f'<span class="{kinds[name]}">{escape(name)} {count}</span>' for name, count in counts
    )
    yield '</div><p class="legend dim">'
    present = {op.kind for op in report.ops}
    yield "".join(
        f'<span class="{kind}">{text}</span>' for kind, text in _KINDS.items() if kind in present
    )
    lost = [layer.index for layer in report.layers if not layer.binary and layer.index is not None]
    if lost:
        yield '<span class="marked">meant to be binary, and is not</span>'
    yield f'</p><div class="card pane">{draw(report.ops, lost)}</div>'


def _short(number: int) -> str:
    """1,234,567 as 1.23 M."""
    for power, unit in ((9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {unit}"
    return f"{number} "
