"""What pose networks are in the zoo, and what functions for classifiers say to them."""

import numpy as np
import pytest
from click.testing import CliRunner

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)

import larq_ext_zoo as zoo
from larq_ext import cli

assert lqx
MEAN = np.array((0.485, 0.456, 0.406))
STD = np.array((0.229, 0.224, 0.225))


def test_names():
    sbpn = zoo.list_models("sbpn*.fda")
    assert sbpn == ["sbpn18.fda", "sbpn34.fda", "sbpn50.fda"]
    assert "bhrnet_w32.mlp_classifier" in zoo.list_models("bhrnet*")
    assert {"hrnet_w32.float", "simple_baseline18.float"} <= set(zoo.list_models("*.float"))
    poses = {name for name in zoo.list_models() if zoo.entry(name).task == "pose"}
    assert poses == set(zoo.list_models("*sbpn*") + zoo.list_models("*hrnet*")) | set(
        zoo.list_models("simple_baseline*")
    )
    assert zoo.entry("hrnet_w32.float").paper.arxiv == "1902.09212"


def test_networks_by_name():
    model = zoo.get("sbpn18.ste_sign", width=8, input_shape=(64, 32, 3))
    assert (model.name, model.output_shape) == ("sbpn18", (None, 16, 8, 17))
    model = zoo.get("hrnet_w16.float", input_shape=(64, 32, 3), modules=(1,))
    assert (model.name, model.output_shape) == ("hrnet_w16", (None, 16, 8, 17))


def test_persons_are_normalised():
    persons = np.random.default_rng(0).integers(0, 256, (2, 256, 192, 3), dtype="uint8")
    expected = (persons / 255 - MEAN) / STD
    np.testing.assert_allclose(zoo.preprocess("sbpn18.fda", persons), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"sbpn18\.fda takes persons .* 192 x 256 pixels"):
        zoo.preprocess("sbpn18.fda", [np.zeros((300, 400, 3), "uint8")])


def test_what_is_for_classifiers_points_to_poses(tmp_path):
    with pytest.raises(ValueError, match=r"sbpn18\.fda is for pose, not .*larq_ext\.pose"):
        zoo.decode_predictions(np.zeros((1, 17)), "sbpn18.fda")
    with pytest.raises(ValueError, match=r"\(1, 64, 48, 17\). larq_ext\.pose decodes"):
        zoo.decode_predictions(np.zeros((1, 64, 48, 17)), "sbpn18.fda")
    picture = tmp_path / "person.png"
    pytest.importorskip("PIL.Image").new("RGB", (40, 60)).save(picture)
    for arguments in (["sbpn18.fda"], ["digits_net.fda", "--like", "sbpn18.fda"]):
        result = CliRunner().invoke(
            cli.main, ["predict", arguments[0], str(picture), *arguments[1:]]
        )
        assert result.exit_code == 2
        assert "type `larq-ext pose sbpn18.fda IMAGE -o OUT.png`" in result.output
    assert (
        "coco_keypoints"
        not in CliRunner()
        .invoke(cli.main, ["predict", "digits_net.fda", str(picture), "--like", "nothing"])
        .output
    )
