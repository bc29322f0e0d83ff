"""The file of weights: exact round trips, a second reader, and everything that can be wrong."""

import hashlib
import json
import struct

import numpy as np
import pytest

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)

import larq_ext_zoo as zoo
from larq_ext_zoo import _weights
from larq_ext_zoo._weights_file import WeightsError, read, write

METHODS = (*lqx.quantizers.METHODS, None)


@pytest.fixture
def tensors():
    generator = np.random.default_rng(0)
    return {
        "conv/kernel": np.where(generator.random((3, 3, 5, 7)) < 0.5, -1, 1).astype("float32"),
        "conv/scale": generator.normal(size=7).astype("float32"),
        "norm/count": np.array(3, "int64"),
        "few/ones": np.ones(3, "float32"),
        "ones/alpha": np.ones((1, 1, 9), "float32"),
        "none/kernel": np.zeros((0, 4), "float32"),
    }


@pytest.fixture
def path(tmp_path, tensors):
    write(tmp_path / "a.safetensors", tensors, {"network": "Net", "form": "deployable"})
    return tmp_path / "a.safetensors"


def split(content):
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_a_round_trip_keeps_every_bit(path, tensors):
    found, about = read(path)
    assert about == {"network": "Net", "form": "deployable"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)


def test_the_bytes_are_as_described(path, tensors):
    """Eight signs a byte, the first in the lowest bit, a one for -1."""
    header, data = split(path.read_bytes())
    assert header["conv/kernel"]["dtype"] == "U8"
    start, end = header["conv/kernel"]["data_offsets"]
    assert end - start == -(-3 * 3 * 5 * 7 // 8)
    expected = 0
    for index, value in enumerate(tensors["conv/kernel"].ravel()):
        expected |= int(value == -1) << index
    assert int.from_bytes(data[start:end], "little") == expected
    assert json.loads(header["__metadata__"]["bits"])["conv/kernel"] == [3, 3, 5, 7]
    start, end = header["conv/scale"]["data_offsets"]
    assert list(struct.unpack("<7f", data[start:end])) == tensors["conv/scale"].tolist()


def test_any_reader_of_safetensors_opens_it(path, tensors):
    safetensors = pytest.importorskip("safetensors.numpy")
    found = safetensors.load_file(path)
    np.testing.assert_array_equal(found["conv/scale"], tensors["conv/scale"])
    bits = np.unpackbits(found["conv/kernel"], bitorder="little")[: 3 * 3 * 5 * 7]
    np.testing.assert_array_equal(1.0 - 2.0 * bits, tensors["conv/kernel"].ravel())


def test_the_same_content_has_the_same_hash(tmp_path, tensors):
    one = write(tmp_path / "one", tensors, {"b": 1, "a": 2})
    other = write(tmp_path / "other", dict(reversed(tensors.items())), {"a": 2, "b": 1})
    assert one == other == hashlib.sha256((tmp_path / "one").read_bytes()).hexdigest()


def test_float16_rounds_as_numpy_and_leaves_bits_alone(tmp_path, tensors):
    write(tmp_path / "a", tensors, {}, floats="float16")
    found, _ = read(tmp_path / "a")
    np.testing.assert_array_equal(found["conv/kernel"], tensors["conv/kernel"])
    rounded = tensors["conv/scale"].astype("float16").astype("float32")
    np.testing.assert_array_equal(found["conv/scale"], rounded)
    assert found["conv/scale"].dtype == np.float32
    with pytest.raises(WeightsError, match=r"big reach 70000, and float16 ends at 65504"):
        write(tmp_path / "b", {"big": np.float32([70000])}, {}, floats="float16")
    assert not (tmp_path / "b").exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path, path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(type(path), "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write(path, {"a": np.float32([1])}, {})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_weights_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="norm/gamma have values that are not finite"):
        write(tmp_path / "a", {"norm/gamma": np.float32([1, np.nan])}, {})


def fails(path, content, message):
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as failure:
        read(path)
    assert str(path) in str(failure.value)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.97])
def test_a_truncated_file(path, kept):
    content = path.read_bytes()
    fails(path, content[: int(kept * len(content))], "is truncated: it has .* Get the file again")


def test_every_altered_byte_is_noticed(path):
    content = path.read_bytes()
    for position in range(0, len(content), 37):
        changed = bytearray(content)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(WeightsError, match=r"altered|truncated|another kind|version"):
            read(path)


def test_altered_data_and_altered_description(path):
    header, data = split(path.read_bytes())
    fails(path, join(header, data[:-1] + bytes([data[-1] ^ 1])), "was altered: its content")
    header["conv/scale"]["shape"] = [8]
    fails(path, join(header, data), "was altered: its header describes conv/scale")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip file, as .keras files are",
        b"\x89HDF\r\n\x1a\n and more than sixteen bytes",
        b'{"json": "is text"}',
        join({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
    ],
)
def test_a_foreign_file(tmp_path, content):
    fails(tmp_path / "a", content, "is no file of larq-ext weights")


def test_a_newer_version(path):
    header, data = split(path.read_bytes())
    header["__metadata__"]["version"] = "2"
    fails(path, join(header, data), "has version 2 .* up to 1: install a newer one")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read(tmp_path / "gone")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_comes_back_exactly(method, tmp_path, randomise):
    """The deployable form into a new network that was baked with other weights."""
    arguments = {"quantizer": method, "num_classes": 4}
    model = randomise(zoo.DigitsNet(**arguments))
    baked = lqx.deploy.bake(model)
    new = zoo.DigitsNet(**arguments)
    images = np.random.default_rng(1).normal(size=(3, 8, 8, 1)).astype("float32")
    for form, one, other in (
        ("deployable", baked, lqx.deploy.bake(new)),
        ("training", model, new),
    ):
        _weights.save(tmp_path / form, one, form=form, network="DigitsNet")
        _weights.load(tmp_path / form, other, form=form, network="DigitsNet")
        outputs = other(images, training=False).numpy()
        assert np.ptp(outputs) > 0, "weights that make a difference"
        np.testing.assert_array_equal(outputs, one(images, training=False).numpy())
        for weight, wanted in zip(other.get_weights(), one.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, wanted)


def test_a_schedule_stands_where_training_left_it(tmp_path):
    model, other = zoo.DigitsNet(quantizer="fda"), zoo.DigitsNet(quantizer="fda")
    quantizer = model.get_layer("unit2_conv").kernel_quantizer
    name = lqx.quantizers.hyperparameters(quantizer)[0]
    before = getattr(quantizer, name)
    setattr(quantizer, name, before + 1)
    _weights.save(tmp_path / "a", model, form="training", network="DigitsNet")
    _weights.load(tmp_path / "a", other, form="training", network="DigitsNet")
    assert getattr(other.get_layer("unit2_conv").kernel_quantizer, name) == before + 1
    assert getattr(other.get_layer("unit1_conv").kernel_quantizer, name) == before


def test_the_schedule_of_a_constraint_too(tmp_path):
    model, other = zoo.DigitsNet(quantizer="siman"), zoo.DigitsNet(quantizer="siman")
    model.get_layer("unit2_conv").kernel_constraint.percent = 0.5
    _weights.save(tmp_path / "a", model, form="training", network="DigitsNet")
    _weights.load(tmp_path / "a", other, form="training", network="DigitsNet")
    assert other.get_layer("unit2_conv").kernel_constraint.percent == 0.5
    assert other.get_layer("unit1_conv").kernel_constraint.percent == 15


def test_weights_of_something_else(tmp_path):
    model = zoo.DigitsNet(quantizer="ste_sign")
    path = tmp_path / "a"
    _weights.save(path, model, form="training", network="DigitsNet")

    def load(other=model, form="training", network="DigitsNet", **arguments):
        _weights.load(path, other, form=form, network=network, **arguments)

    with pytest.raises(WeightsError, match="of the network 'DigitsNet', not 'ResNet20'"):
        load(network="ResNet20")
    with pytest.raises(WeightsError, match="of the form 'training', not 'deployable'"):
        load(form="deployable")
    three = zoo.DigitsNet(quantizer="ste_sign", num_classes=3)
    before = three.get_layer("stem").get_weights()[0].copy()
    with pytest.raises(WeightsError, match=r"logits/kernel has the shape \(1024, 10\), not"):
        load(three)
    np.testing.assert_array_equal(three.get_layer("stem").get_weights()[0], before)
    with pytest.raises(WeightsError, match="it lacks unit1_conv/kernel_scale"):
        load(zoo.DigitsNet(quantizer="learnable_scale"))
    part = zoo.DigitsNet(quantizer="ste_sign", include_top=False)
    with pytest.raises(WeightsError, match="the network has no logits/"):
        load(part)
    load(part, without_top=True)
    np.testing.assert_array_equal(
        part.get_layer("unit3_conv").kernel, model.get_layer("unit3_conv").kernel
    )
