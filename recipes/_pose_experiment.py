"""Experiments of human poses.

Annotations are evaluated here: zookeeper reads the types of the fields from them.
"""

from typing import Any, Literal

import tensorflow as tf
from zookeeper import Field

from larq_ext.pose.estimator import STRIDE
from larq_ext.pose.keypoints import KEYPOINTS
from larq_ext_recipes._base_experiment import FREE_FIELDS, BaseExperiment, CurveLabels, defaults_of
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._pose_evaluation import (
    check_tool,
    describe_numbers,
    evaluate_pose,
    picture_boxes,
)
from larq_ext_recipes._pose_loss import KeypointAccuracy, pose_loss
from larq_ext_recipes._pose_views import PoseAugmentation
from larq_ext_recipes.datasets.coco_keypoints import PoseDataset, load


class PoseExperiment(BaseExperiment):
    """A training run of a pose network, completely described: a task whose fields are its settings.

    `accuracy` in its log is the share of labelled keypoints whose peak is near, see
    `KeypointAccuracy`. `metrics.json` has COCO's ten numbers.

    A `network` that is a function takes `input_shape`, `num_keypoints` and `quantizer`, and returns
    a model ending in heat maps `(batch, height / 4, width / 4, num_keypoints)`.

    # Arguments
        Those of `BaseExperiment`, with `holdout` and `limit` in pictures, and:
        dataset: Name of the data set; so far there is one.
        input_size: Height and width of the crops, pixels; both divide by 32.
        scale: Random relative change of the size of what is cut out.
        rotation: Random rotation, degrees.
        half_body: Share of the persons of which only the upper or the lower half is cut out.
        sigma: Standard deviation of the targets, in pixels of the map.
        unrounded_targets: Whether the targets are centred at the keypoints, not at pixels.
        ohkm: How many keypoints of a person, those with the largest loss, count (0: all).
        joint_weights: Whether limbs count more than the trunk.
        flip_test: Whether the mirrored crops are seen too at the end.
        decoding: How a peak becomes a coordinate at the end.
        boxes: A detector's boxes to evaluate on at the end, a JSON file; `None` for the labelled.
    """

    optimizer = Field("adam")
    learning_rate = Field(1e-3)
    distillation = Field(0.5)
    dataset: Literal["coco_keypoints"] = Field(PoseDataset.name)
    input_size: tuple[int, int] = Field((256, 192))
    scale: float = Field(0.35)
    rotation: float = Field(45.0)
    half_body: float = Field(0.3)
    sigma: float = Field(2.0)
    unrounded_targets: bool = Field(False)
    ohkm: int = Field(0)
    joint_weights: bool = Field(False)
    flip_test: bool = Field(True)
    decoding: Literal["argmax", "quarter", "dark"] = Field("quarter")
    boxes: str | None = Field(None)

    def __post_configure__(self) -> None:
        super().__post_configure__()
        self.check_least({"sigma": 0.1})
        if not 0 <= self.ohkm <= len(KEYPOINTS):
            raise UsageError(f"ohkm must be from 0 to {len(KEYPOINTS)}, received {self.ohkm}.")

    @property
    def free_fields(self) -> frozenset[str]:
        return FREE_FIELDS | {"flip_test", "decoding", "boxes"}  # only of the scores at the end

    @property
    def augmentation(self) -> PoseAugmentation:
        return PoseAugmentation(self.scale, self.rotation, self.half_body, self.flip)

    @property
    def curve_labels(self) -> CurveLabels:
        return CurveLabels("mean squared error / 2", "Keypoints that are not near")

    def load_data(self) -> PoseDataset:
        """Loads the data, with the hold-out in the place of the test set if there is one.

        What the end of the run needs is asked for here, before hours of training.
        """
        check_tool()
        dataset = load(self.data_dir, self.input_size)
        dataset = dataset.hold_out(self.holdout) if self.holdout else dataset
        if self.boxes is not None:
            picture_boxes(dataset.test, self.boxes)
        return dataset.limit(self.limit) if self.limit else dataset

    def build_model(self, dataset: PoseDataset) -> tf.keras.Model:
        model = super().build_model(dataset)
        height, width = (side // STRIDE for side in self.input_size)
        wanted = (None, height, width, len(KEYPOINTS))
        if model.output_shape != wanted:
            raise UsageError(
                f"The network of {self.name} gives {model.output_shape}, and its heat maps must "
                f"be {wanted}: take a pose network."
            )
        if model.output.dtype != tf.float32:
            # Keras would cast the coordinates to it, too.
            raise UsageError(
                f"The network of {self.name} gives {model.output.dtype.name}, and its heat maps "
                'must be float32: give its last layer dtype="float32".'
            )
        return model

    def network_arguments(self, dataset: PoseDataset) -> dict[str, Any]:
        return {
            "input_shape": dataset.input_shape,
            "num_keypoints": len(KEYPOINTS),
            "quantizer": self.quantizer,
        }

    def network_names(self) -> list[str]:
        import larq_ext_zoo as zoo

        return zoo.pose.__all__

    def loss(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """`pose_loss` with the experiment's settings."""
        return pose_loss(
            labels,
            outputs,
            sigma=self.sigma,
            unrounded=self.unrounded_targets,
            hardest=self.ohkm,
            joint_weights=self.joint_weights,
        )

    def metric(self) -> tf.keras.metrics.Metric:
        return KeypointAccuracy(self.sigma)

    def teacher_loss(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        """Half of the mean squared distance of the maps."""
        return tf.reduce_mean(tf.cast(teacher - student, tf.float32) ** 2) / 2

    def score(self, model: tf.keras.Model, dataset: PoseDataset) -> dict[str, Any]:
        model.compile(loss=self.loss, metrics=[self.metric()])
        batches = dataset.evaluation(self.evaluation_batch(dataset))
        test = model.evaluate(batches, verbose=0, return_dict=True)
        numbers = evaluate_pose(
            model,
            dataset.test,
            flip_test=self.flip_test,
            decoding=self.decoding,
            boxes=self.boxes,
        )
        return {
            "evaluated_on": f"{dataset.test_size} persons in {numbers['images']} "
            f"{dataset.evaluated} images, boxes: {numbers['boxes']}",
            **numbers,
            "accuracy": test["accuracy"],
            "loss": test["loss"],
        }

    def headline(self, metrics: dict[str, Any]) -> str:
        return (
            f"{describe_numbers(metrics)} ({metrics['persons']} persons, "
            f"boxes: {metrics['boxes']}), loss {metrics['loss']:.6f}"
        )

    def defaults(self) -> dict[str, Any]:
        return defaults_of(PoseExperiment)
