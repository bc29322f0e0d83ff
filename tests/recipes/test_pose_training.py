"""Pose networks in the training loop of all experiments, and their scores."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from stick_figures import annotation_file, make_coco, pose_experiment, pose_network
from tiny import SignalAt

import larq_ext_recipes as recipes
import larq_ext_zoo as zoo
from larq_ext._images import IMAGENET_MEAN, IMAGENET_STD
from larq_ext.cli import main
from larq_ext.pose.baseline import mean_pose
from larq_ext.pose.scoring import METRICS
from larq_ext_recipes import (
    TrainingInterrupted,
    UsageError,
    _pose_evaluation,
    get_experiment,
    train,
)
from larq_ext_recipes._pose_evaluation import evaluate_mean_pose, evaluate_pose, picture_boxes
from larq_ext_recipes._run_folder import RunFolder
from larq_ext_recipes._two_step import load_initial_weights
from larq_ext_recipes.datasets import DatasetError
from larq_ext_recipes.datasets.coco_keypoints import load, read_split


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    return output, train(pose_experiment(folder, output, deterministic=True), command=["a"])


def log(output):
    with (output / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def test_a_run_has_cocos_numbers(finished):
    output, metrics = finished
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert all(-1 <= metrics[name] <= 1 for name in METRICS)
    facts = {"images": 6, "persons": 8, "boxes": "ground truth", "flip_test": True}
    assert facts.items() <= metrics.items() and metrics["decoding"] == "quarter"
    assert metrics["evaluated_on"] == "8 persons in 6 test images, boxes: ground truth"
    assert metrics["configuration"]["input_size"] == [64, 64] and "top1" not in metrics
    rows = log(output)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert metrics["loss"] == pytest.approx(float(rows[-1]["test_loss"]), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(float(rows[-1]["test_accuracy"]), abs=1e-6)
    assert (output / "learning_curve.png").exists()
    model = tf.keras.models.load_model(output / "model.keras")
    assert model.output_shape == (None, 16, 16, 17)


@pytest.mark.slow
def test_interrupted_and_resumed_is_uninterrupted(finished, folder, tmp_path):
    with pytest.raises(TrainingInterrupted):
        train(pose_experiment(folder, tmp_path, deterministic=True), callbacks=[SignalAt(6)])
    with pytest.raises(UsageError, match=r"half_body was 0.3, now 0.5; rotation was 45.0, now 10"):
        other = {"rotation": 10, "half_body": 0.5, "deterministic": True}
        train(pose_experiment(folder, tmp_path), resume=True, **other)
    # How it is scored is not of the training.
    scored = {"decoding": "argmax", "flip_test": False, "deterministic": True}
    metrics = train(pose_experiment(folder, tmp_path, **scored), resume=True)
    assert (metrics["decoding"], metrics["flip_test"]) == ("argmax", False)
    assert log(tmp_path) == log(finished[0])
    whole = tf.keras.models.load_model(finished[0] / "model.keras").get_weights()
    for one, other in zip(
        whole, tf.keras.models.load_model(tmp_path / "model.keras").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_distillation_and_the_other_options(finished, folder, tmp_path):
    metrics = train(
        pose_experiment(
            folder,
            tmp_path,
            teacher=str(finished[0]),
            initial_weights=str(finished[0]),
            epochs=1,
            holdout=4,
            ohkm=8,
            joint_weights=True,
            unrounded_targets=True,
            weight_average=0.9,
            decoding="dark",
            flip_test=False,
        )
    )
    assert metrics["evaluated_on"] == "6 persons in 4 holdout images, boxes: ground truth"
    assert (metrics["decoding"], metrics["flip_test"]) == ("dark", False)
    experiment = pose_experiment(folder, tmp_path)
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(2, 3, 16, 16, 17)).astype(np.float32)
    expected = ((one - other) ** 2).mean() / 2
    assert float(experiment.teacher_loss(one, tf.constant(other))) == pytest.approx(expected)


class Oracle(tf.keras.layers.Layer):
    """Gives the maps of labels, in the order of calls: a network that knows the answers."""

    def __init__(self, maps):
        super().__init__()
        self.maps, self.next = maps, 0

    def call(self, images):
        return tf.numpy_function(self._answer, [images], tf.float32)

    def _answer(self, images):
        found = self.maps[self.next : self.next + len(images)]
        self.next += len(images)
        return found if len(found) == len(images) else np.zeros((len(images), 16, 16, 17), "f")


def test_a_network_that_knows_has_a_high_ap(folder, tmp_path):
    """Boxes, crops, maps and back to the picture: what is lost is a quarter of a map's pixel."""
    from larq_ext_recipes._pose_loss import gaussian_targets

    data = load(folder, (64, 64))
    _, labels = next(iter(data.evaluation()))
    order = np.argsort(data.test.persons.images, kind="stable")
    maps = gaussian_targets(labels, (16, 16), sigma=1.0)[0].numpy()[order]
    first = np.zeros((1, 16, 16, 17), np.float32)  # the estimator tries a network first
    image = tf.keras.Input((64, 64, 3))
    model = tf.keras.Model(image, Oracle(np.concatenate([first, maps]))(image))
    model.run_eagerly = True
    model.compile(run_eagerly=True)
    model.outputs[0].set_shape((None, 16, 16, 17))
    numbers = evaluate_pose(model, data.test, flip_test=False, decoding="argmax")
    assert numbers["AP50"] == pytest.approx(1) and numbers["AP"] > 0.6
    pose = mean_pose(data.train.annotations()["annotations"])
    mean = evaluate_mean_pose(pose, data.test)
    assert mean["AP"] == pytest.approx(1)  # all figures are the same one, stretched
    assert np.abs(pose).max() < 1


def run_evaluate(*words):
    return CliRunner().invoke(main, ["evaluate", *map(str, words)])


def test_evaluate_as_a_command(finished, folder, tmp_path):
    output, metrics = finished
    words = (output / "model.keras", "--dataset", "coco_keypoints", "--data-dir", folder)
    result = json.loads(run_evaluate(*words, "--json").output)
    assert {name: result[name] for name in METRICS} == {name: metrics[name] for name in METRICS}
    assert result["mean_pose"]["AP"] == pytest.approx(1)

    boxes = tmp_path / "boxes.json"
    detections = [{"image_id": 2, "category_id": 1, "bbox": [30, 10, 50, 90], "score": 0.4}]
    boxes.write_text(json.dumps(detections))
    shown = run_evaluate(*words, "--boxes", boxes, "--no-flip", "--decoding", "argmax").output
    assert "8 persons in 6 images, boxes: boxes.json, without flip test, decoding: argmax" in shown
    assert "mean pose" in shown and "AP50" in shown
    assert "3 images" in run_evaluate(*words, "--limit", 3).output


def test_a_pose_network_that_prepares_its_images_itself(folder, tmp_path, monkeypatch):
    found = []
    score = _pose_evaluation.coco_evaluate
    monkeypatch.setattr(
        _pose_evaluation,
        "coco_evaluate",
        lambda truth, records: found.append(records) or score(truth, records),
    )
    tf.keras.utils.set_random_seed(0)
    image = tf.keras.Input((64, 64, 3))
    maps = tf.keras.layers.Conv2D(17, 5, padding="same", activation="relu")
    network = tf.keras.Model(image, maps(tf.keras.layers.AveragePooling2D(4)(image)))
    network.save(tmp_path / "usual.keras")
    pixels = tf.keras.Input((64, 64, 3))
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    prepare = tf.keras.layers.Rescaling((1 / std).tolist(), (-mean / std).tolist())
    tf.keras.Model(pixels, network(prepare(pixels))).save(tmp_path / "own.keras")
    for words in (("usual.keras",), ("own.keras", "--mean", 0, "--std", 1), ("own.keras",)):
        words = (tmp_path / words[0], *words[1:], "--dataset", "coco_keypoints")
        result = run_evaluate(*words, "--data-dir", folder)
        assert result.exit_code == 0, result.output

    # Before each is the mean pose.
    usual, own, twice = ([each["keypoints"] for each in records] for records in found[1::2])
    np.testing.assert_allclose(own, usual, rtol=1e-3, atol=0.5)
    assert not np.allclose(twice, usual, rtol=1e-3, atol=0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset", "coco_keypoints"), "needs a folder: give data_dir=FOLDER"),
        (("--dataset", "digits", "--no-flip"), "are for poses: give --dataset coco_keypoints"),
        (("--decoding", "quarter"), "coco_keypoints needs a folder"),
    ],
)
def test_evaluate_used_wrongly(finished, words, message):
    result = run_evaluate(finished[0] / "model.keras", *words)
    assert result.exit_code == 2 and message in result.output


def test_a_network_that_gives_other_maps_is_not_trained(folder, tmp_path):
    def network(**arguments):
        model = pose_network(**arguments)
        return tf.keras.Model(model.inputs, tf.keras.layers.AveragePooling2D()(model.output))

    with pytest.raises(UsageError, match=r"gives \(None, 8, 8, 17\), and its heat maps .* 16, 16"):
        train(pose_experiment(folder, tmp_path, network=network))
    with pytest.raises(UsageError, match=r"There is no file nowhere.json"):
        train(pose_experiment(folder, tmp_path, boxes="nowhere.json"))


def test_a_network_without_float32_maps_is_not_trained(folder, tmp_path):
    with pytest.raises(UsageError, match=r"gives bfloat16, .* float32: .* last layer"):
        train(pose_experiment(folder, tmp_path, mixed_precision=True))


def test_a_score_that_fails_leaves_the_model(finished, folder, tmp_path, monkeypatch):
    output = shutil.copytree(finished[0], tmp_path / "run")
    for name in ("model.keras", "metrics.json"):  # as the last checkpoint found it
        (output / name).unlink()
    experiment = pose_experiment(folder, output, deterministic=True)

    def score(*_):
        raise RuntimeError("no score")

    monkeypatch.setattr(type(experiment), "score", score)
    with pytest.raises(RuntimeError, match="no score"):
        train(experiment, resume=True)
    assert (output / "model.keras").exists() and not (output / "metrics.json").exists()


def test_settings_of_the_scores_do_not_block_resuming(folder, tmp_path):
    other = {"boxes": "a", "flip_test": False, "decoding": "dark"}
    for fields, resume in (({}, False), (other, True)):
        experiment = pose_experiment(folder, tmp_path, **fields)
        run = RunFolder(experiment)
        run.start(experiment, "data", resume, overwrite=False)
        run.record()


@pytest.fixture(scope="module")
def split(folder):
    return read_split(folder, "test")


def test_boxes_are_found_by_id_before_the_digits_of_a_name(split, tmp_path):
    """Pictures whose names have the numbers of others."""
    renumbered = dataclasses.replace(split, image_ids=split.image_ids[::-1].copy())
    file = tmp_path / "boxes.json"
    boxes = [{"image_id": i, "bbox": [0, 0, 10 * i, 20], "score": 0.5} for i in (1, 2)]
    file.write_text(json.dumps(boxes))
    found = picture_boxes(renumbered, file)
    assert [(each.number, each.boxes[0, 2]) for each in found] == [(4, 20), (5, 10)]


def test_pictures_without_persons_need_a_detector(split):
    nobody = dataclasses.replace(split, persons=split.persons.part(np.array([], int)))
    with pytest.raises(UsageError, match="None of the 6 pictures has a labelled person"):
        picture_boxes(nobody, None)


def bad_network():
    model = pose_network(input_shape=(64, 64, 3), num_keypoints=17, quantizer=None)
    return tf.keras.Model(model.inputs, model.output + np.nan)


def test_maps_that_are_not_numbers_are_told(split):
    with pytest.raises(UsageError, match="NaN or infinity"):
        evaluate_pose(bad_network(), split)


def test_a_damaged_picture_is_named_when_poses_are_scored(finished, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "coco")
    file = tmp_path / "coco" / "val2017" / "000000000004.jpg"
    content = bytearray(file.read_bytes())
    whole = file.stat().st_size
    for damaged in (content[:300], content[:30] + bytes(whole - 32) + content[-2:]):
        file.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"000000000004\.jpg is damaged"):
            recipes.evaluate_poses(finished[0] / "model.keras", data_dir=tmp_path / "coco")


def test_without_training_persons_there_is_no_mean_pose(finished, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "coco")
    shutil.rmtree(tmp_path / "coco" / "train2017")  # only its annotations are read
    words = (finished[0] / "model.keras", "--dataset", "coco_keypoints", "--data-dir")
    words = (*words, tmp_path / "coco", "--limit", 2)
    assert "mean pose" in run_evaluate(*words).output
    file = annotation_file(tmp_path / "coco")
    content = json.loads(file.read_text())
    for person in content["annotations"]:
        person["keypoints"][:3] = [0, 0, 0]  # nobody has a nose
    file.write_text(json.dumps(content))
    shown = run_evaluate(*words).output
    assert "network" in shown and "mean pose" not in shown
    file.unlink()
    assert json.loads(run_evaluate(*words, "--json").output)["mean_pose"] is None


def test_the_model_is_looked_at_before_the_data():
    with pytest.raises(UsageError, match=r"nowhere\.keras"):
        recipes.evaluate_poses("nowhere.keras")


def test_a_classifier_is_no_pose_network(folder):
    network = zoo.DigitsNet(quantizer=None)
    with pytest.raises(UsageError, match="no pose network"):
        evaluate_pose(network, load(folder, (64, 64)).test)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotation": 200.0}, "rotation must be from 0 to 180, received 200"),
        ({"scale": 1.0}, "scale must be at least 0 and below 1"),
        ({"half_body": 2.0}, "half_body must be from 0 to 1"),
        ({"ohkm": 18}, "ohkm must be from 0 to 17"),
        ({"sigma": 0.0}, "sigma must be 0.1 or more"),
        ({"input_size": "64"}, "input_size must be a list like 1,2, each a whole number"),
        ({"dataset": "digits"}, "dataset must be one of coco_keypoints, received"),
    ],
)
def test_wrong_settings_of_poses(settings, message):
    with pytest.raises(UsageError, match=message):
        pose_experiment("data", "unused", **settings)


def test_a_comparison_is_of_classifiers():
    with pytest.raises(UsageError, match="SBPN18 is none: train it once for each method"):
        recipes.compare("SBPN18")


def test_settings_of_the_parents():
    simple, high = get_experiment("SimpleBaseline50"), get_experiment("HRNetW32")
    assert (simple.epochs, simple.milestones, high.epochs, high.milestones) == (
        140,
        (90, 120),
        210,
        (170, 200),
    )
    assert (simple.scale, simple.rotation, simple.half_body) == (0.3, 40, 0)
    assert (high.scale, high.rotation, high.half_body) == (0.35, 45, 0.3)
    for name in ("SimpleBaseline18", "SBPN18", "SBPN34", "SBPN50", "HRNetW32", "BHRNetW32"):
        experiment = get_experiment(name)
        assert (experiment.batch_size, experiment.learning_rate) == (128, 1e-3)
        assert (experiment.optimizer, experiment.weight_decay) == ("adam", 0)


def test_the_small_ones_have_one_budget():
    names = ("SBPN18Small", "SimpleBaseline18Small", "BHRNetSmall", "HRNetSmall")
    own = {"name", "description", "network", "network_options", "quantizer"}
    own |= {"quantizer_learning_rate", "quantizer_milestones"}
    budgets = [
        {k: v for k, v in get_experiment(name).to_dict().items() if k not in own} for name in names
    ]
    assert all(budget == budgets[0] for budget in budgets)
    backbones = [get_experiment(f"{name}Backbone") for name in names]
    for name, backbone in zip(names, backbones, strict=True):
        pose = get_experiment(name)
        assert pose.initial_weights is None
        assert (pose.network, pose.network_options) == (backbone.network, backbone.network_options)


def test_a_backbone_starts_a_pose_network(tmp_path):
    """Every layer before the head has the name and the shapes of the classifier's."""
    backbone = zoo.SimpleBaseline(input_shape=(32, 32, 3), width=16, num_classes=10)
    backbone.save(tmp_path / "model.keras")
    network = zoo.SimpleBaseline(input_shape=(64, 32, 3), width=16)
    with pytest.warns(UserWarning, match="keep their new weights") as warned:
        load_initial_weights(network, tmp_path)
    left = str(warned[0].message).split(": ")[1].rstrip(".").split(", ")
    with_weights = [layer.name for layer in network.layers if layer.weights]
    assert set(left) == {name for name in with_weights if not name.startswith(("stem", "stage"))}
    kernels = [model.get_layer("stem_conv").get_weights()[0] for model in (backbone, network)]
    np.testing.assert_array_equal(*kernels)


def test_options_may_have_several_numbers():
    seen = {}

    def network(**arguments):
        seen.update(arguments)
        return pose_network(**{k: v for k, v in arguments.items() if k not in ("modules", "width")})

    class Shape:
        input_shape = (64, 64, 3)

    options = "width=16,modules=(1,1,2)"
    pose_experiment("data", "unused", network=network, network_options=options).build_model(Shape())
    assert (seen["width"], seen["modules"]) == (16, (1, 1, 2))
