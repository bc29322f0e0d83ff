"""Experiments of classification.

Annotations are evaluated here: zookeeper reads the types of the fields from them.
"""

from typing import Any

import tensorflow as tf
from zookeeper import Field

from larq_ext_recipes._augmentation import Augmentation
from larq_ext_recipes._base_experiment import BaseExperiment, CurveLabels, defaults_of
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._names import unknown_name
from larq_ext_recipes._training_step import softened
from larq_ext_recipes.datasets import LOADERS, Dataset
from larq_ext_recipes.datasets import load as load_dataset


class Experiment(BaseExperiment):
    """A training run of a classifier, completely described: a task whose fields are its settings.

    Derive a class, give its fields values and decorate it with `recipes.register`; its name is
    the name of the experiment, and the first line of its docstring what the list of experiments
    says.

    !!! example
        ```python
        @recipes.register
        class Mine(recipes.get_experiment("ResNet20FDA").__class__):
            '''ResNet-20 with FDA, only 50 epochs.'''

            epochs = Field(50)
        ```

    A `network` that is a function takes `input_shape`, `num_classes` and `quantizer`, and returns
    a model ending in a softmax.

    # Arguments
        Those of `BaseExperiment`, and:
        dataset: Name of the data set.
        image_size: Height and width for data sets of pictures of any size; `None` is theirs.
        label_smoothing: Share of the label that is spread over all classes.
        temperature: Softens the probabilities of teacher and student.
        crop_padding: Zeros around an image before a random crop of its size, pixels.
        crop_scale: Smallest and largest share of the picture in a random resized crop, or `None`.
        color_jitter: Largest change of brightness, contrast and saturation.
        lighting: Standard deviation of the noise along the colours' principal components.
        randaugment: Magnitude of RandAugment, or `None`.
        mixup: Parameter of the beta distribution of mixup (0: none).
        cutmix: Parameter of the beta distribution of CutMix (0: none).
    """

    dataset: str = Field("cifar10")
    image_size: int | None = Field(None)
    label_smoothing: float = Field(0.0)
    temperature: float = Field(1.0)
    crop_padding: int = Field(4)
    crop_scale: tuple[float, float] | None = Field(None)
    color_jitter: float = Field(0.0)
    lighting: float = Field(0.0)
    randaugment: float | None = Field(None)
    mixup: float = Field(0.0)
    cutmix: float = Field(0.0)

    def __post_configure__(self) -> None:
        super().__post_configure__()
        self.check_least({"temperature": 1e-6})
        self.check_below_one(("label_smoothing",))
        if self.dataset not in LOADERS:
            raise UsageError(unknown_name("data set", self.dataset, LOADERS))

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(
            crop_padding=self.crop_padding,
            flip=self.flip,
            crop_scale=self.crop_scale,
            color_jitter=self.color_jitter,
            lighting=self.lighting,
            randaugment=self.randaugment,
            mixup=self.mixup,
            cutmix=self.cutmix,
        )

    @property
    def curve_labels(self) -> CurveLabels:
        return CurveLabels("cross-entropy as trained, with penalties", "Top-1 error")

    def load_data(self) -> Dataset:
        dataset = load_dataset(self.dataset, self.data_dir, image_size=self.image_size)
        dataset = dataset.hold_out(self.holdout) if self.holdout else dataset
        return dataset.limit(self.limit) if self.limit else dataset

    def network_arguments(self, dataset: Dataset) -> dict[str, Any]:
        return {
            "input_shape": dataset.input_shape,
            "num_classes": len(dataset.classes),
            "quantizer": self.quantizer,
        }

    def network_names(self) -> list[str]:
        import larq_ext_zoo as zoo

        return zoo.classification.__all__

    def loss(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Cross-entropy with the experiment's label smoothing, `(batch,)`.

        Keras takes the logits from before the softmax where it can, so this loses no digits.

        # Arguments
            labels: Class numbers `(batch,)`, or shares of the classes `(batch, classes)` as mixup
                and CutMix make them.
            outputs: Probabilities `(batch, classes)`.
        """
        classes = outputs.shape[-1]
        mixed = labels.shape.rank == 2 and labels.shape[-1] == classes
        if not (self.label_smoothing or mixed):
            return tf.keras.losses.sparse_categorical_crossentropy(labels, outputs)
        if not mixed:
            labels = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes)
        return tf.keras.losses.categorical_crossentropy(
            labels, outputs, label_smoothing=self.label_smoothing
        )

    def metric(self) -> tf.keras.metrics.Metric:
        """The share of images whose likeliest class is the right one (of mixed ones, the largest).

        # Returns
            A metric with the name `"accuracy"`.
        """

        def right(labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
            if labels.shape.rank == 2 and labels.shape[-1] == probabilities.shape[-1]:
                labels = tf.argmax(labels, axis=-1)
            return tf.keras.metrics.sparse_categorical_accuracy(labels, probabilities)

        return tf.keras.metrics.MeanMetricWrapper(right, name="accuracy")

    def teacher_loss(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        """Cross-entropy to the teacher's probabilities, both softened, times `temperature**2`.

        # Arguments
            teacher: Probabilities `(batch, classes)`.
            student: Probabilities `(batch, classes)`.
        """
        soft, answer = (
            softened(tf.cast(p, tf.float32), self.temperature) for p in (teacher, student)
        )
        loss = -tf.reduce_mean(tf.reduce_sum(tf.exp(soft) * answer, axis=-1))
        return self.temperature**2 * loss

    def score(self, model: tf.keras.Model, dataset: Dataset) -> dict[str, Any]:
        # Plain cross-entropy, to be compared with that of other runs: no smoothing, no penalties.
        plain = tf.keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy")
        model.compile(metrics=[self.metric(), plain])
        batches = dataset.evaluation(self.evaluation_batch(dataset))
        test = model.evaluate(batches, verbose=0, return_dict=True)
        return {
            "evaluated_on": f"{dataset.test_size} {dataset.evaluated} images",
            "classes": list(dataset.classes),
            "top1": test["accuracy"],
            "loss": test["cross_entropy"],
        }

    def headline(self, metrics: dict[str, Any]) -> str:
        return f"accuracy {metrics['top1']:.2%}, loss {metrics['loss']:.4f}"

    def defaults(self) -> dict[str, Any]:
        return defaults_of(Experiment)
