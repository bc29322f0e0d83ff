"""A made-up folder in COCO's layout: pictures with stick figures, and a network for them."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import tensorflow as tf
import zookeeper
from PIL import Image, ImageDraw

import larq_ext as lqx
import larq_ext_recipes as recipes
from larq_ext.pose.keypoints import LIMBS

# A person in a box of 1 x 1, in COCO's order.
_X = (50, 54, 46, 60, 40, 70, 30, 80, 20, 85, 15, 62, 38, 64, 36, 66, 34)
_Y = (10, 8, 8, 10, 10, 25, 25, 45, 45, 62, 62, 60, 60, 78, 78, 98, 98)
FIGURE = np.stack([_X, _Y], 1) / 100
WIDTH, HEIGHT = 160, 120


def person(generator, image_id: int, number: int) -> dict:
    width, height = generator.integers(36, 60), generator.integers(70, 100)
    x, y = generator.integers(2, WIDTH - width - 2), generator.integers(2, HEIGHT - height - 2)
    points = FIGURE * (width, height) + (x, y)
    keypoints = np.concatenate([points, np.full((17, 1), 2)], 1).round(2)
    keypoints[generator.integers(17)] = 0
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [int(x), int(y), int(width), int(height)],
        "area": float(width * height) / 2,
        "num_keypoints": 16,
        "keypoints": keypoints.ravel().tolist(),
    }


def draw(persons: list[dict], generator) -> Image.Image:
    noise = generator.integers(0, 80, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    picture = Image.fromarray(noise).resize((WIDTH, HEIGHT))
    pen = ImageDraw.Draw(picture)
    for each in persons:
        points = np.reshape(each["keypoints"], (17, 3))
        for limbs in LIMBS.values():
            for ends in limbs:
                if points[list(ends), 2].all():
                    pen.line([tuple(points[end, :2]) for end in ends], "white", 3)
    return picture


def make_coco(folder: pathlib.Path, pictures: tuple[int, int] = (12, 6)) -> pathlib.Path:
    """Writes as many pictures to train and to evaluate on; every third has two persons."""
    (folder / "annotations").mkdir(parents=True)
    for part, count in zip(("train2017", "val2017"), pictures, strict=True):
        generator = np.random.default_rng(len(part))
        (folder / part).mkdir()
        images, annotations = [], []
        for image_id in range(1, count + 1):
            name = f"{image_id:012}.jpg"
            persons = [
                person(generator, image_id, len(annotations) + i + 1)
                for i in range(2 if image_id % 3 == 0 else 1)
            ]
            draw(persons, generator).save(folder / part / name, quality=95)
            size = {"width": WIDTH, "height": HEIGHT}
            images.append({"id": image_id, "file_name": name, **size})
            annotations += persons
        content = {"images": images, "annotations": annotations}
        annotation_file(folder, part).write_text(json.dumps(content))
    return folder


def annotation_file(folder: pathlib.Path, part: str = "train2017") -> pathlib.Path:
    return folder / "annotations" / f"person_keypoints_{part}.json"


def pose_network(*, input_shape, num_keypoints, quantizer):
    layers = tf.keras.layers
    image = x = tf.keras.Input(input_shape)
    x = layers.Conv2D(8, 7, 4, padding="same", name="stem")(x)
    x = layers.BatchNormalization(momentum=0.8, name="norm1")(x)
    x = lqx.layers.QuantConv2D(
        16, 3, padding="same", use_bias=False, quantizer=quantizer, name="binary"
    )(x)
    x = layers.BatchNormalization(momentum=0.8, name="norm2")(x)
    x = layers.Conv2D(num_keypoints, 1, name="heatmaps")(x)
    return tf.keras.Model(image, x, name="tiny_pose")


@zookeeper.component
class TinyPose(recipes.PoseExperiment):
    """A test."""


def pose_experiment(data_dir, output_dir, **fields) -> recipes.PoseExperiment:
    defaults = {
        "network": pose_network,
        "quantizer": "ste_sign",
        "data_dir": str(data_dir),
        "input_size": (64, 64),
        "sigma": 1.0,
        "epochs": 2,
        "batch_size": 4,
        "progress": "none",
        "output_dir": str(output_dir),
    }
    return recipes.configure(TinyPose, {**defaults, **fields})
