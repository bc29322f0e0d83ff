"""From the folder of a pose run to an entry whose network draws the same maps."""

import json

import numpy as np
import pytest

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)

import larq_ext_recipes as recipes
import larq_ext_zoo as zoo
from larq_ext_zoo import cards
from larq_ext_zoo._entry import WeightsFile
from larq_ext_zoo._evaluations import evaluated_accuracy

SHAPE = (32, 32, 3)


@pytest.fixture
def pose_run(tmp_path):
    """The folder of a run as recipes write it, without the model."""
    experiment = recipes.get_experiment("BHRNetSmall").replace(
        quantizer="ste_sign",
        network_options="width=8,stem_filters=8,modules=(1,),blocks=1,layer1=basic",
    )
    metrics = {
        "experiment": "Small",
        "evaluated_on": "7 persons in 5 test images, boxes: ground truth",
        "AP": 0.125,
        "epochs": 1,
        "seed": 3,
        "configuration": experiment.to_dict(),
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "log.csv").write_text("epoch,loss\n1,0.1\n")
    return tmp_path


@pytest.mark.slow
def test_a_pose_run_becomes_an_entry(pose_run, own_home, randomise):
    arguments = {"width": 8, "stem_filters": 8, "modules": (1,), "blocks": 1, "layer1": "basic"}
    model = randomise(zoo.BHRNet(quantizer="ste_sign", input_shape=SHAPE, **arguments))
    model.save(pose_run / "model.keras")
    with pytest.raises(ValueError, match=r"width': 8.*its name is one that no architecture"):
        zoo.add_entry(pose_run, "bhrnet_w16.mine", pose_run / "entries")
    entry = zoo.add_entry(pose_run, "bhrnet_w8.mine", pose_run / "entries")
    assert (entry.task, entry.classes, entry.num_classes) == ("pose", None, None)
    assert (entry.accuracy.metric, entry.accuracy.value) == ("AP of keypoints", 0.125)
    assert entry.accuracy.data.startswith("7 persons in 5 test images, boxes: ground truth")
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    found = zoo.get(entry.name)
    assert found.output_shape == (None, 8, 8, 17)
    expected = lqx.deploy.bake(model)(images, training=False)
    np.testing.assert_array_equal(found(images, training=False), expected)
    picture = np.zeros((40, 30, 3), np.uint8)
    (pose,) = lqx.pose.PoseEstimator(found).predict(picture, [[0, 0, 30, 40]])
    assert pose.keypoints.shape == (17, 3)
    page = cards.card(entry)
    assert "AP of keypoints 12.50% on 7 persons" in page
    assert f"larq-ext pose {entry.name}" in page


def test_the_stored_form_was_evaluated():
    configuration = {"dataset": "coco_keypoints"}
    metrics = {"AP": 0.125, "seed": 3, "evaluated_on": "", "configuration": configuration}
    values = {"model": "sbpn18.mine", "sha256": "1" * 64, "dataset": "coco_keypoints", "AP": 0.25}
    values |= {"persons": 9, "images": 4, "boxes": "ground truth", "flip_test": False}
    file = WeightsFile("a", "1" * 64, 5)
    arguments = ("sbpn18.mine", "pose", [metrics])
    accuracy = evaluated_accuracy(*arguments, values | {"decoding": "dark"}, file, None)
    assert (accuracy.value, accuracy.seeds) == (0.25, (3,))
    assert accuracy.data == (
        "9 persons in 4 pictures of coco_keypoints, boxes: ground truth, without flip test, "
        "decoding: dark"
    )
    of_classifier = {"model": "x", "sha256": "", "dataset": "cifar10", "n": 10, "top1": 0.25}
    with pytest.raises(ValueError, match=r"`evaluation` is what `larq-ext evaluate --json`"):
        evaluated_accuracy(*arguments, of_classifier, file, None)


def test_the_mean_of_seeds_says_what_it_is_of():
    configuration = {"dataset": "digits"}
    metrics = [
        {"top1": share, "seed": seed, "evaluated_on": "9 holdout images"}
        | {"configuration": configuration}
        for seed, share in enumerate((0.5, 0.75))
    ]
    values = {"model": "a.b", "sha256": "1" * 64, "dataset": "digits", "n": 7, "top1": 0.25}
    file = WeightsFile("a", "1" * 64, 5)
    accuracy = evaluated_accuracy("a.b", "classification", metrics, values, file, None)
    assert (accuracy.value, accuracy.mean) == (0.25, 0.625)
    assert accuracy.data == "7 test images of digits"
    assert accuracy.how.endswith("in the training form, on 9 holdout images")


def test_a_run_without_a_score(pose_run):
    metrics = json.loads((pose_run / "metrics.json").read_text())
    del metrics["AP"]
    (pose_run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match=r"`top1` \(of a pose network `AP`\) is missing"):
        zoo.add_entry(pose_run, "hrnet_w16.mine", pose_run / "entries")
