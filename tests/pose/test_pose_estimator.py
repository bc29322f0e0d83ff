"""From boxes to keypoints, on pictures whose spots are at known places."""

import re

import numpy as np
import pytest
from spots import BOX, SPOTS, spot_network, spot_picture

import larq_ext as lqx  # noqa: F401  isort: skip  (Keras 2, before anything uses tf.keras)
import tensorflow as tf

import larq_ext_zoo as zoo
from larq_ext._images import IMAGENET_MEAN, IMAGENET_STD
from larq_ext.pose import PoseEstimator
from larq_ext.pose.keypoints import KEYPOINTS
from larq_ext_zoo import registry

pytest.importorskip("PIL.Image")

INDICES = [KEYPOINTS.index(name) for name in SPOTS]
PLACES = np.array(list(SPOTS.values()))
# A pixel of the crop is this many of the picture: 1.25 times the box by 96.
STEP = 1.25 * 140 / 96


def places(pose):
    return pose.keypoints[INDICES, :2]


def test_keypoints_are_where_the_spots_are(network):
    estimator = PoseEstimator(network, flip_test=False, decoding="dark")
    (pose,) = estimator.predict(spot_picture(), [BOX])
    np.testing.assert_allclose(places(pose), PLACES, atol=0.3)
    np.testing.assert_allclose(pose.keypoints[INDICES, 2], 1, atol=0.1)
    assert pose.score == pytest.approx(pose.keypoints[INDICES, 2].mean())
    # Maps without light have no peak.
    dark = np.setdiff1d(np.arange(17), INDICES)
    np.testing.assert_array_equal(pose.keypoints[dark, 2], 0)
    assert pose.box.tolist() == list(BOX)


def test_the_mirrored_view_moves_keypoints_by_half_a_pixel_of_the_crop(network):
    """Of its quarter of a heat map's pixel, 1 pixel of the crop, the average has half."""
    estimator = PoseEstimator(network, decoding="dark")
    (pose,) = estimator.predict(spot_picture(), [BOX])
    np.testing.assert_allclose(places(pose), PLACES + np.array([STEP / 2, 0]), atol=0.3)


@pytest.mark.parametrize(("decoding", "within"), [("argmax", 2.0), ("quarter", 1.0)])
def test_the_other_ways_of_decoding(network, decoding, within):
    estimator = PoseEstimator(network, flip_test=False, decoding=decoding)
    (pose,) = estimator.predict(spot_picture(), [BOX])
    assert np.abs(places(pose) - PLACES).max() <= within * STEP + 0.3


def test_a_model_that_takes_integers_prepares_them_itself():
    maps = tf.keras.layers.Conv2D(17, 4, 4)
    image = tf.keras.Input((128, 96, 3))
    network = tf.keras.Model(image, maps(image))
    image = tf.keras.Input((128, 96, 3), dtype="uint8")
    whole = tf.keras.Model(image, maps((tf.cast(image, "float32") - IMAGENET_MEAN) / IMAGENET_STD))
    (expected,) = PoseEstimator(network).predict(spot_picture(), [BOX])
    (pose,) = PoseEstimator(whole).predict(spot_picture(), [BOX])
    np.testing.assert_allclose(pose.keypoints, expected.keypoints, atol=1e-3)
    for wrong in ({"mean": [1, 2]}, {"std": 0}, {"std": [1, 1, np.nan]}):
        with pytest.raises(ValueError, match=r"is one number or 3|is finite|is above 0"):
            PoseEstimator(network, **wrong)


def test_wide_boxes_and_the_whole_picture(network):
    estimator = PoseEstimator(network, flip_test=False, decoding="dark")
    # A centre between the wrists, or the network swaps them.
    (pose,) = estimator.predict(spot_picture(), [(10, 60, 190, 90)])
    np.testing.assert_allclose(places(pose), PLACES, atol=0.5)
    (pose,) = estimator.predict(spot_picture())
    assert pose.box.tolist() == [0, 0, 200, 240]
    # A pixel of its heat maps is 12.5 of the picture.
    np.testing.assert_allclose(places(pose), PLACES, atol=2)


def test_a_box_at_the_border(network):
    """What is outside of the picture is black, and the positions stay right."""
    place = {"nose": (12.0, 20.0)}
    estimator = PoseEstimator(network, flip_test=False, decoding="dark")
    (pose,) = estimator.predict(spot_picture(place, sigma=6), [(0, 0, 45, 60)])
    np.testing.assert_allclose(pose.keypoints[0, :2], place["nose"], atol=0.3)


def test_many_boxes_are_one_by_one(network):
    boxes = np.array([[x, 40, 90, 140 + x] for x in range(40, 80)], float)
    estimator = PoseEstimator(network, nms_threshold=None)
    poses = estimator.predict(spot_picture(), boxes, np.linspace(0.1, 1, 40))
    assert len(poses) == 40
    for index in (0, 31, 32, 39):
        (alone,) = estimator.predict(spot_picture(), boxes[index : index + 1])
        np.testing.assert_allclose(poses[index].keypoints, alone.keypoints, atol=1e-4)
        assert poses[index].score == pytest.approx(
            alone.score * np.linspace(0.1, 1, 40)[index], rel=1e-4
        )


def test_one_person_in_two_boxes_is_one_person(network):
    boxes = [BOX, (61, 41, 90, 139)]
    estimator = PoseEstimator(network)
    (pose,) = estimator.predict(spot_picture(), boxes, [0.5, 0.9])
    assert pose.box[0] == 61
    assert len(PoseEstimator(network, nms_threshold=None).predict(spot_picture(), boxes)) == 2
    assert estimator.predict(spot_picture(), []) == []
    # Of different persons each stays, in the order of the boxes.
    boxes = [(0, 0, 50, 50), BOX]
    poses = estimator.predict(spot_picture(), boxes, [0.5, 0.9])
    assert [pose.box.tolist() for pose in poses] == [list(box) for box in boxes]
    assert poses[0].score < poses[1].score


def test_pixels_are_normalised_as_asked(network):
    # The network undoes ImageNet's normalisation; without any it adds it again.
    plain = PoseEstimator(network, flip_test=False, mean=[0, 0, 0], std=[1, 1, 1])
    (pose,) = plain.predict(np.full((40, 30, 3), 100, np.uint8))
    assert pose.keypoints[0, 2] == pytest.approx(100 * 0.225 + 0.406, rel=1e-3)


def test_a_model_of_the_zoo_knows_how_and_says_that_it_is_not_trained(monkeypatch):
    entry = zoo.Entry(
        name="spots.test",
        network=spot_network,
        arguments={},
        description="finds spots",
        input_size=(96, 72, 3),
        preprocessing=zoo.Preprocessing(mean=(0.5,), std=(0.5,), scale=1 / 255),
    )
    monkeypatch.setitem(registry._ENTRIES, entry.name, entry)
    estimator = PoseEstimator("spots.test", flip_test=False)
    assert estimator.note == (
        "Note: spots.test is not trained: its weights are random and mean nothing."
    )
    (pose,) = estimator.predict(np.full((40, 30, 3), 100, np.uint8))
    assert pose.keypoints[0, 2] == pytest.approx((100 / 255 - 0.5) / 0.5 * 0.225 + 0.406, rel=1e-3)
    assert PoseEstimator(spot_network()).note is None


def test_a_tflite_file(network, tmp_path):
    path = tmp_path / "spots.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    (expected,) = PoseEstimator(network).predict(spot_picture(), [BOX])
    (found,) = PoseEstimator(path).predict(spot_picture(), [BOX])
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)


def test_a_model_of_any_size():
    inputs = tf.keras.Input((None, None, 3))
    network = tf.keras.Model(inputs, tf.keras.layers.Conv2D(17, 1, strides=4)(inputs))
    assert PoseEstimator(network).input_size == (256, 192)
    assert PoseEstimator(network, input_size=(64, 32)).input_size == (64, 32)


def classifier():
    layers = [tf.keras.Input((32, 32, 3)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(10)]
    return tf.keras.Sequential(layers, name="classifier")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (classifier, r"classifier is no pose network: .*maps \(1, 8, 8, 17\), but is \(1, 10\)"),
        (lambda: spot_network(keypoints=16), r"should be .*\(1, 24, 18, 17\), but is .*18, 16\)"),
        (lambda: "digits_net.siman", r"digits_net\.siman is no pose network: it takes no RGB"),
        (lambda: "digits_net.simann", "Did you mean digits_net.siman"),
    ],
)
def test_what_is_no_pose_network(model, message):
    with pytest.raises(ValueError, match=message):
        PoseEstimator(model())


def test_a_network_for_grey_images():
    layers = [tf.keras.Input((32, 32, 1)), tf.keras.layers.Conv2D(17, 1, strides=4)]
    with pytest.raises(ValueError, match=r"takes no RGB images, its input is \(32, 32, 1\)"):
        PoseEstimator(tf.keras.Sequential(layers))


@pytest.mark.parametrize(
    ("image", "boxes", "scores", "message"),
    [
        (np.zeros((4, 4), np.uint8), None, None, r"uint8 array \(rows, columns, 3\).*\(4, 4\)"),
        (np.zeros((4, 4, 3)), None, None, "uint8 array .*received float64"),
        (np.zeros((0, 4, 3), np.uint8), None, None, r"received uint8 \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), [1, 2, 3, 4], None, r"\(persons, 4\), .* shape \(4,\)"),
        (np.zeros((4, 4, 3), np.uint8), [[0, 0, 1, 1], [0, 0, 0, 1]], None, r"box 1 is \[0.0, 0"),
        (np.zeros((4, 4, 3), np.uint8), [[0, np.nan, 1, 1]], None, r"box 0 is \[0.0, nan"),
        (np.zeros((4, 4, 3), np.uint8), [[0, 0, 1, 1]], [1, 1], r"1 boxes need as many scores"),
    ],
)
def test_wrong_pictures_and_boxes(network, image, boxes, scores, message):
    with pytest.raises(ValueError, match=message):
        PoseEstimator(network, flip_test=False).predict(image, boxes, scores)


def test_bad_weights_and_wrong_words(network):
    bad = tf.keras.models.clone_model(network)
    bad.set_weights([np.full(w.shape, np.nan) for w in network.get_weights()])
    with pytest.raises(ValueError, match="NaN or infinity"):
        PoseEstimator(bad).predict(spot_picture())
    with pytest.raises(ValueError, match=re.escape("['argmax', 'quarter', 'dark'], received 'x'")):
        PoseEstimator(network, decoding="x")
