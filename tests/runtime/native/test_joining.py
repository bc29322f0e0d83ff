"""What the delegate does in one pass over memory: the operators behind a binary one."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest
from chains import Chain, Maker, Size, bi_real_prelu_last, reactnet, shifts, thresholds
from harness import Library

FINISHED = "LceBconv2d+ADD+PRELU"
SHIFTED = "LceBconv2d+ADD+ADD+PRELU+ADD"


def passes(library: Library, chain: Chain) -> list[str]:
    """Names of the passes, in their order."""
    delegate = library.delegate(profile=1)
    library.with_delegate(chain.model(), delegate).allocate_tensors()
    read = ctypes.CDLL(str(library.path)).larq_ext_profile
    read.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    buffer = ctypes.create_string_buffer(1 << 20)
    read(delegate._get_native_delegate_pointer(), buffer, len(buffer))
    return [node["name"] for node in json.loads(buffer.value)["nodes"]]


def test_a_block_is_one_pass(library):
    found = passes(library, bi_real_prelu_last(Size(), seed=0))
    assert found == [f"LceQuantize+{FINISHED}+LceQuantize", FINISHED]


def test_constants_by_channel_are_joined(library):
    """Those in front of the signs, too, although the shortcut needs the numbers before them."""
    found = passes(library, reactnet(Size(), seed=0))
    assert found == [f"LceQuantize+{SHIFTED}+ADD+LceQuantize", SHIFTED]


def test_each_place_is_filled_once(library):
    assert sorted(passes(library, shifts(Size(), seed=0))) == [
        "ADD",  # the last of three
        "ADD+ADD",  # behind a shift and ReLU: the sum of two tensors comes before these
        "ADD+ADD+ADD",  # the same, with both of the shifts behind it
        "ADD+RELU+ADD+LceQuantize",
        "LceBconv2d",
        "LceBconv2d+ADD",  # with RELU6 in it
        "LceBconv2d+ADD+ADD",
        "LceBconv2d+ADD+RELU",
        "LceBconv2d+PRELU+ADD+RELU+SUB",
        "LceQuantize",
    ]


def test_one_threshold_is_joined(library):
    assert sorted(passes(library, thresholds(Size(), seed=0))) == [
        "ADD+LceQuantize",  # the second one of the same numbers
        "ADD+LceQuantize",  # of numbers whose plain signs are taken
        "ADD+RELU+ADD+LceQuantize",
        *["LceBconv2d"] * 5,
        "LceBconv2d+ADD+ADD+SUB+LceQuantize",  # behind two shifts
        "LceQuantize+LceBconv2d+LceQuantize",
        "LceQuantize+LceBconv2d+RELU+ADD+LceQuantize",
    ]


@pytest.mark.parametrize(
    ("shape", "joined"),
    [((32,), True), ((1, 1, 32), True), ((1,), False), ((1, 5, 6, 32), False), ((5, 1, 32), False)],
)
def test_only_constants_by_channel_are_joined(library, shape, joined):
    make = Maker(Size(height=5, width=6), seed=1)
    g = make.graph
    x = g.input(make.size.shape)
    y = g.add(make.conv(g.quantize(x), 32, 32), g.constant(np.ones(shape, np.float32)))
    found = passes(library, Chain("constant", g, [y], [make.images()]))
    assert found == ["LceQuantize+LceBconv2d" + ("+ADD" if joined else "")]
