"""Draws the operators of a file as an SVG, top-down.

The layout is the layered one: operators in rows by their longest way from an input, rows ordered
so that few edges cross, columns near those of their neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from html import escape

from larq_ext.deploy._report import OpAudit

_WIDTH, _HEIGHT = 190, 46  # of a box
_GAP_X, _GAP_Y = 16, 26
_LANE = 14  # the width of an edge that passes a row
_SWEEPS = 6


class _Node:
    """A box, or the place where a long edge passes a row."""

    def __init__(self, row: int, op: OpAudit | None = None, label: str = ""):
        self.row, self.op, self.label = row, op, label
        self.above: list[_Node] = []
        self.below: list[_Node] = []
        self.order = self.x = 0.0
        self.width = _WIDTH if op is not None or label else _LANE

    @property
    def centre(self) -> float:
        return self.x + self.width / 2


def draw(ops: Sequence[OpAudit], marked: Collection[int] = ()) -> str:
    """The graph of operators.

    Each operator is a group with the id `op-INDEX` and a class of its kind, so that a page can
    link to it and colour it.

    # Arguments
        ops: the operators, in the order in which they run.
        marked: positions of those that get the class `marked` as well.

    # Returns
        An `<svg>` element.
    """
    rows = _rows(ops)
    for _ in range(_SWEEPS):
        _order(rows, "above")
        _order(rows[::-1], "below")
    _order(rows, "above")
    _place(rows)
    nodes = [node for row in rows for node in row]
    width = max((node.x + node.width for node in nodes), default=0)
    height = len(rows) * (_HEIGHT + _GAP_Y) - _GAP_Y
    body = "".join(
        [*_edges(nodes), *(_box(node, marked) for node in nodes if node.width == _WIDTH)]
    )
    return (
        f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" width="{width + 8:.0f}" '
        f'height="{height + 8:.0f}" viewBox="-4 -4 {width + 8:.0f} {height + 8:.0f}" role="img" '
        f'aria-label="Graph of {len(ops)} operators">{body}</svg>'
    )


def _rows(ops: Sequence[OpAudit]) -> list[list[_Node]]:
    """The operators in rows, long edges split at each row that they pass."""
    nodes: dict[int, _Node] = {}
    lanes: list[_Node] = []
    for source in sorted({s for op in ops for s in op.sources if s < 0}, reverse=True):
        nodes[source] = _Node(0, label="input" if source == -1 else f"input {-source}")
    for op in ops:
        above = [nodes[source] for source in op.sources if source in nodes]
        node = nodes[op.index] = _Node(1 + max((one.row for one in above), default=-1), op)
        for start in above:
            while start.row + 1 < node.row:
                # Edges of one operator share their lane.
                lane = next((one for one in start.below if one.width == _LANE), None)
                if lane is None:
                    lane = _Node(start.row + 1)
                    lanes.append(lane)
                    _join(start, lane)
                start = lane
            _join(start, node)
    everything = [*nodes.values(), *lanes]
    rows: list[list[_Node]] = [[] for _ in range(1 + max((n.row for n in everything), default=0))]
    for node in everything:
        node.order = len(rows[node.row])
        rows[node.row].append(node)
    return rows


def _join(above: _Node, below: _Node) -> None:
    above.below.append(below)
    below.above.append(above)


def _order(rows: list[list[_Node]], side: str) -> None:
    """Sorts each row by the mean place of its neighbours on one side."""
    for row in rows:
        for node in row:
            neighbours = getattr(node, side)
            if neighbours:
                node.order = sum(one.order for one in neighbours) / len(neighbours)
        row.sort(key=lambda node: node.order)
        for place, node in enumerate(row):
            node.order = place


def _place(rows: list[list[_Node]]) -> None:
    """Gives each node a column near those of its neighbours, without overlaps."""
    for row in rows:
        x = 0.0
        for node in row:
            node.x, x = x, x + node.width + _GAP_X
    for sweep in range(2 * _SWEEPS):
        side = "below" if sweep % 2 else "above"
        for row in rows if side == "above" else rows[::-1]:
            wanted = []
            for node in row:
                neighbours = getattr(node, side) or node.above or node.below
                centres = sorted(one.centre for one in neighbours) or [node.centre]
                middle = len(centres) // 2
                wanted.append((centres[middle] + centres[~middle]) / 2 - node.width / 2)
            _spread(row, wanted)
    left = min((node.x for row in rows for node in row), default=0.0)
    for row in rows:
        for node in row:
            node.x -= left


_Block = tuple[list[_Node], float, float]  # nodes, the sum of the starts they want, width


def _spread(row: list[_Node], wanted: list[float]) -> None:
    """Places a row as near as possible to what is wanted, in its order.

    Neighbours that would overlap become a block, which stands at its mean.
    """
    blocks: list[_Block] = []
    for node, x in zip(row, wanted, strict=True):
        block: _Block = ([node], x, node.width + _GAP_X)
        while blocks and blocks[-1][1] / len(blocks[-1][0]) + blocks[-1][2] > block[1] / len(
            block[0]
        ):
            nodes, total, width = blocks.pop()
            block = (nodes + block[0], total + block[1] - width * len(block[0]), width + block[2])
        blocks.append(block)
    for nodes, total, _ in blocks:
        x = total / len(nodes)
        for node in nodes:
            node.x, x = x, x + node.width + _GAP_X


def _edges(nodes: list[_Node]) -> Iterator[str]:
    for node in nodes:
        top = node.row * (_HEIGHT + _GAP_Y)
        if node.width == _LANE:
            yield f'<path d="M{node.centre:.0f} {top}v{_HEIGHT}"/>'
        for below in node.below:
            x, y, end = node.centre, top + _HEIGHT, below.centre
            half = _GAP_Y / 2
            yield (
                f'<path d="M{x:.0f} {y}C{x:.0f} {y + half} {end:.0f} {y + half} {end:.0f} '
                f'{y + _GAP_Y}"/>'
            )


def _box(node: _Node, marked: Collection[int]) -> str:
    top = node.row * (_HEIGHT + _GAP_Y)
    rectangle = f'<rect x="{node.x:.0f}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>'

    def text(y: int, words: str) -> str:
        return f'<text x="{node.centre:.0f}" y="{top + y}">{escape(words)}</text>'

    if node.op is None:
        return f'<g class="input">{rectangle}{text(28, node.label)}</g>'
    op = node.op
    shape = "x".join(map(str, op.shape)) or "scalar"
    # A word holds 32 channels.
    packed = op.kind in ("binary", "bits") and op.dtype == "INT32"
    dtype = "words of bits" if packed else op.dtype.lower()
    mark = " marked" if op.index in marked else ""
    title = f"{op.name}, op {op.index}: {op.tensor}"
    if op.macs:
        title += f"\n{op.macs:,} multiply-adds, {op.precision}"
    if op.weight_bytes:
        title += f"\n{op.weight_bytes:,} bytes of weights"
    return (
        f'<g class="{escape(op.kind)}{mark}" id="op-{op.index}"><title>{escape(title)}</title>'
        f"{rectangle}{text(19, f'{op.index} {op.name}')}{text(36, f'{shape} {dtype}')}</g>"
    )
