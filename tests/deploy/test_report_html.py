"""The report: multiply-adds, sizes, rewrites, and the page with the drawn graph."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_ext.deploy import Rewrite, audit
from larq_ext.deploy._draw import draw
from larq_ext.deploy._report import AuditReport, LayerAudit, OpAudit
from larq_ext.deploy.convert import convert

layers = tf.keras.layers
HOSTILE = "a</style><script>alert('1')</script>&amp;\"x"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def mixed(networks):
    """A network with every kind of multiply-adds that Larq counts, and one lost layer."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input((9, 8, 3)),
            layers.Conv2D(32, 3, strides=2),
            networks.quant_conv(32, name="binary"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3),
            networks.quant_conv(8, name="lost", pad_values=-1.0),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    return networks.randomize(model)


@pytest.fixture(scope="module")
def report(mixed):
    return convert(mixed, allow_float=True).report


def test_multiply_adds_are_those_of_larqs_summary(mixed, report):
    profile = lq.models.ModelProfile(mixed)
    lost = next(layer for layer in report.layers if layer.name == "lost")
    assert sum(report.macs.values()) == profile.op_count("mac")
    # What was meant to be binary counts as such for Larq.
    assert report.macs["1-bit"] + lost.macs == profile.op_count("mac", 1)
    assert report.macs["1-bit"] == 4 * 3 * 3 * 3 * 32 * 32
    assert report.macs["int8"] == 0
    assert str(report).count("Multiply-adds: 1-bit") == 1


def test_multiply_adds_of_8_bits(networks):
    data = np.random.default_rng(0).normal(size=(4, 1, 8, 8, 3)).astype("float32")
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, padding="same"),
            layers.Conv2DTranspose(5, 2, strides=2),
        ]
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample] for sample in data)
    found = audit(converter.convert())
    weights = 3 * 3 * 3 * 4 + 2 * 2 * 4 * 5
    assert found.macs == {"1-bit": 0, "int8": 8 * 8 * weights, "float32": 0}
    assert "int8" in {op.kind for op in found.ops}
    assert found.sizes["int8 weights"] == weights


def test_transposed_and_3d_multiply_adds(tmp_path, networks):
    x = tf.keras.Input((4, 4, 4, 3))
    y = layers.Conv3D(5, 2)(x)
    z = layers.Conv2DTranspose(6, 3, strides=2)(layers.Reshape((3, 9, 5))(y))
    report = audit(networks.convert_as_it_is(tf.keras.Model(x, z), tmp_path))
    macs = {op.name: op.macs for op in report.ops if op.macs}
    assert macs == {"CONV_3D": 27 * 8 * 3 * 5, "TRANSPOSE_CONV": 27 * 9 * 5 * 6}


def test_sizes_add_up_to_the_file(report):
    assert sum(report.sizes.values()) == report.file_bytes
    assert report.sizes["1-bit weights"] == 3 * 3 * 32 * 32 // 8
    floats = 3 * 3 * 3 * 32 + 3 * 3 * 32 + 3 * 3 * 32 * 8 + 8 * 5
    assert report.sizes["float32 weights"] == 4 * floats


def test_operators_are_linked_to_layers_and_to_each_other(report):
    ops = {op.index: op for op in report.ops}
    for layer in report.layers:
        assert ops[layer.index].name == layer.op
        assert ops[layer.index].macs == layer.macs
    assert ops[0].sources == (-1,)
    assert {ops[0].kind, *(op.kind for op in report.ops)} == {"binary", "bits", "float", "memory"}
    assert json.loads(json.dumps(report.to_dict()))["ops"][0]["name"] == report.ops[0].name


def test_rewrites_are_shown(networks):
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 32)),
            networks.quant_conv(8, kernel_quantizer="magnitude_aware_sign", name="conv"),
            layers.ReLU(),
            layers.BatchNormalization(),
        ]
    )
    report = convert(networks.randomize(model)).report
    (rewrite,) = report.rewrites
    assert (rewrite.name, rewrite.layer) == ("relu", "conv")
    assert f"Rewritten (relu): conv: {rewrite.what}" in str(report)
    assert report.to_dict()["rewrites"] == (dataclasses.asdict(rewrite),)
    assert "Rewrites</h2>" in report.to_html() and rewrite.what in report.to_html()


class _Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags are closed."""

    VOID = ("meta", "rect", "path", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes = [], set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(report, tmp_path):
    path = tmp_path / "new" / "page.html"
    text = report.to_html(path, title="a & b")
    assert path.read_text(encoding="utf-8") == text
    page = _Page(text)
    assert not page.open
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    ids = {value for _, name, value in page.attributes if name == "id"}
    links = {value for _, name, value in page.attributes if name in ("href", "src")}
    assert links and links <= {f"#{target}" for target in ids}
    assert "url(" not in text and "@import" not in text
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "prefers-color-scheme:dark" in text
    assert "<title>a &amp; b</title>" in text
    assert "unfused-padding" in text and "Not binary: 1/2 layers are binary" in text


def test_names_are_escaped():
    layer = LayerAudit(HOSTILE, HOSTILE, (1, 2), 3, False, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0, 0)
    op = OpAudit(0, HOSTILE, "float", HOSTILE, (1,), HOSTILE, (-1,))
    rewrite = Rewrite(HOSTILE, HOSTILE, HOSTILE)
    report = AuditReport(
        (layer,), {HOSTILE: 1}, 10, 20, (HOSTILE,), (op,), {"structure": 10}, (rewrite,)
    )
    text = report.to_html(title=HOSTILE)
    assert not _Page(text).tags & {"script"}
    assert text.count("</style>") == 1


def test_a_page_without_layers_or_operators():
    text = AuditReport((), {}, 10, 10).to_html()
    assert "No layer is meant to be binary" in text
    assert not _Page(text).open


def boxes(svg):
    """The rectangles by operator, `None` for inputs: (left, top, right, bottom)."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        x, y, width, height = (
            float(group.find(f"{SVG}rect").get(name)) for name in ("x", "y", "width", "height")
        )
        found[group.get("id")] = (x, y, x + width, y + height)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_boxes_do_not_overlap_and_lie_below_their_sources(seed):
    generator = np.random.default_rng(seed)
    ops = []
    for index in range(60):
        count = generator.integers(1, 4)
        near = generator.integers(max(-1, index - 6), index, count) if index else [-1]
        sources = tuple(sorted({int(source) for source in near}))
        ops.append(OpAudit(index, "ADD", "float", f"t{index}", (1, 8, 8, 32), "FLOAT32", sources))
    svg = draw(ops, marked=[7])
    found = boxes(svg)
    assert len(found) == 61
    for op in ops:
        top = found[f"op-{op.index}"][1]
        assert all(found[f"op-{s}"][3] < top for s in op.sources if s >= 0)
    rows = list(found.values())
    for i, one in enumerate(rows):
        assert one[0] >= 0
        for other in rows[:i]:
            apart = one[1] != other[1] or one[2] < other[0] or other[2] < one[0]
            assert apart, (one, other)
    assert 'class="float marked" id="op-7"' in svg


def test_a_chain_is_straight():
    ops = [OpAudit(i, "ADD", "float", "t", (1,), "FLOAT32", (i - 1,)) for i in range(9)]
    assert len({left for left, *_ in boxes(draw(ops)).values()}) == 1


def test_a_shortcut_passes_beside_the_boxes():
    """Its vertical parts must not run through the operators that it skips."""
    ops = [OpAudit(i, "ADD", "float", "t", (1,), "FLOAT32", (i - 1,)) for i in range(5)]
    ops.append(OpAudit(5, "ADD", "float", "t", (1,), "FLOAT32", (0, 4)))
    svg = draw(ops)
    found = boxes(svg)
    lanes = [
        (float(x), float(y), float(length))
        for x, y, length in re.findall(r'd="M([\d.]+) ([\d.]+)v([\d.]+)"', svg)
    ]
    assert len(lanes) == 4
    for x, y, _ in lanes:
        assert not any(left <= x <= right and top == y for left, top, right, _ in found.values())
