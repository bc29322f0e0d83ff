"""What the delegate does in one pass over memory: the operators behind a binary one."""

from __future__ import annotations

import numpy as np
import pytest
from chains import Chain, Maker, Size, bi_real_prelu_last, reactnet, shifts, thresholds

from larq_ext.benchmark._native import profile

FINISHED = "LceBconv2d+ADD+PRELU"
SHIFTED = "LceBconv2d+ADD+ADD+PRELU+ADD"


def passes(chain: Chain) -> list[str]:
    """Names of the passes, in their order."""
    return [node["name"] for node in profile(chain.model(), 1, "auto").values["nodes"]]


def test_a_block_is_one_pass():
    found = passes(bi_real_prelu_last(Size(), seed=0))
    assert found == [f"LceQuantize+{FINISHED}+LceQuantize", FINISHED]


def test_constants_by_channel_are_joined():
    """Those in front of the signs, too, although the shortcut needs the numbers before them."""
    found = passes(reactnet(Size(), seed=0))
    assert found == [f"LceQuantize+{SHIFTED}+ADD+LceQuantize", SHIFTED]


def test_one_threshold_is_joined():
    found = passes(thresholds(Size(), seed=0))
    assert found.count("LceBconv2d+ADD+ADD+ADD+LceQuantize") == 1  # behind two shifts
    assert found.count("ADD+LceQuantize") == 1  # those numbers have signs without it already


def test_each_place_is_filled_once():
    found = passes(shifts(Size(), seed=0))
    assert sorted(found) == [
        "ADD",  # the last of three
        "ADD+ADD",  # behind a shift and ReLU: the sum of two tensors comes before these
        "ADD+ADD+ADD",  # the same, with both of the shifts behind it
        "ADD+RELU+ADD+LceQuantize",
        "LceBconv2d",
        "LceBconv2d+ADD",  # with RELU6 in it
        "LceBconv2d+ADD+ADD",
        "LceBconv2d+ADD+RELU",
        "LceBconv2d+PRELU+ADD+RELU+ADD",
        "LceQuantize",
    ]


@pytest.mark.parametrize("shape", [(1, 5, 6, 32), (32,), (1,), (1, 5, 1, 32)])
def test_only_constants_by_channel_are_joined(shape):
    make = Maker(Size(height=5, width=6), seed=1)
    g = make.graph
    x = g.input(make.size.shape)
    y = g.add(make.conv(g.quantize(x), 32, 32), g.constant(np.ones(shape, np.float32)))
    found = passes(Chain("constant", g, [y], [make.images()]))
    assert found == ["LceQuantize+LceBconv2d" + ("+ADD" if shape == (32,) else "")]
