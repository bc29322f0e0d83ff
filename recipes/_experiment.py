"""What an experiment is: a network, its data and how it is trained, with nothing left open."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf

from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._names import unknown_name
from larq_ext_recipes._optimizers import decayed_variables, make_optimizer
from larq_ext_recipes._pipeline import Augmentation
from larq_ext_recipes._schedules import LearningRate
from larq_ext_recipes.datasets import LOADERS, Dataset
from larq_ext_recipes.datasets import load as load_dataset

# A run may be resumed with other values of these: they change nothing in the training.
FREE_FIELDS = frozenset(
    {"name", "description", "data_dir", "output_dir", "checkpoint_minutes", "progress"}
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A training run, completely described.

    # Arguments
        name: Name in the registry and of the output folder.
        description: One line for the list of experiments.
        network: Name of a network in `larq_ext_zoo`, or a function with its signature
            (`input_shape`, `num_classes`, `quantizer`) that returns a model ending in a softmax.
        quantizer: Method of binarization.
        dataset: Name of the data set.
        data_dir: Where the data is; `None` lets the data set decide.
        holdout: Number of training images to evaluate on instead of the test set (0: none).
        epochs: Passes through the training images.
        batch_size: Images per step.
        optimizer: `"sgd"` or `"adam"`.
        learning_rate: The highest learning rate.
        momentum: Momentum of SGD; first decay rate (`beta_1`) of Adam.
        schedule: How the learning rate decays: `"cosine"` or `"linear"` to zero, `"step"` or
            `"constant"`.
        schedule_per_step: Whether the rate changes at every step, or only between epochs.
        warmup_epochs: Epochs of linear warm-up at the start.
        milestones: Epochs at which the schedule `"step"` multiplies the rate by `step_factor`.
        step_factor: Factor of the schedule `"step"`.
        weight_decay: L2, added to the gradient (so not decoupled); never on binary layers.
        decay_norm_and_bias: Whether batch normalisation, PReLU and biases decay too.
        label_smoothing: Share of the label that is spread over all classes.
        gradient_clip_norm: Norm that all gradients together may have, or `None`.
        crop_padding: Zeros around an image before a random crop of its size, pixels.
        flip: Whether half of the images are mirrored.
        seed: Seed of initial weights, order and augmentation.
        deterministic: Use only operations that give the same bits every time; may be slower.
        mixed_precision: Compute in bfloat16, keep the weights in float32.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated.
        checkpoint_minutes: Minutes between checkpoints inside an epoch.
        output_dir: Where the run is written; `None` is `runs/<name>`.
        progress: `"auto"` shows a bar in a terminal and a line per epoch elsewhere; `"bar"`,
            `"lines"` or `"none"`.
    """

    name: str
    description: str
    network: str | Callable[..., tf.keras.Model]
    quantizer: str
    dataset: str = "cifar10"
    data_dir: str | None = None
    holdout: int = 0
    epochs: int = 200
    batch_size: int = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    schedule_per_step: bool = False
    warmup_epochs: int = 0
    milestones: tuple[int, ...] = ()
    step_factor: float = 0.1
    weight_decay: float = 0.0
    decay_norm_and_bias: bool = False
    label_smoothing: float = 0.0
    gradient_clip_norm: float | None = None
    crop_padding: int = 4
    flip: bool = True
    seed: int = 0
    deterministic: bool = False
    mixed_precision: bool = False
    evaluate_every: int = 1
    checkpoint_minutes: float = 10.0
    output_dir: str | None = None
    progress: Literal["auto", "bar", "lines", "none"] = "auto"

    def __post_init__(self) -> None:
        for field, hint in typing.get_type_hints(type(self)).items():
            allowed = typing.get_args(hint)
            if typing.get_origin(hint) is Literal and getattr(self, field) not in allowed:
                raise UsageError(
                    f"{field} must be one of {', '.join(allowed)}, received "
                    f"{getattr(self, field)!r}."
                )
        limits = {
            "epochs": 1,
            "batch_size": 1,
            "evaluate_every": 1,
            "holdout": 0,
            "warmup_epochs": 0,
            "weight_decay": 0,
            "crop_padding": 0,
            "checkpoint_minutes": 0,
            "seed": 0,
        }
        for field, least in limits.items():
            value = getattr(self, field)
            if not math.isfinite(value) or value < least:
                raise UsageError(f"{field} must be {least} or more, received {value}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"learning_rate must be above 0, received {self.learning_rate}.")
        for field in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, field) < 1:
                raise UsageError(
                    f"{field} must be at least 0 and below 1, received {getattr(self, field)}."
                )
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise UsageError(
                f"warmup_epochs={self.warmup_epochs} leaves nothing of epochs={self.epochs}: "
                "give more epochs or less warm-up."
            )
        if self.dataset not in LOADERS:
            raise UsageError(unknown_name("data set", self.dataset, LOADERS))

    @property
    def augmentation(self) -> Augmentation:
        """The random changes of the training images."""
        return Augmentation(self.crop_padding, self.flip)

    def load_data(self) -> Dataset:
        """Loads the data, with the hold-out in the place of the test set if there is one."""
        dataset = load_dataset(self.dataset, self.data_dir)
        try:
            return dataset.hold_out(self.holdout) if self.holdout else dataset
        except ValueError as error:
            raise UsageError(str(error)) from error

    def build_model(self, dataset: Dataset) -> tf.keras.Model:
        """Builds the network with new weights.

        # Arguments
            dataset: The data the network is for.

        # Returns
            A model from `(batch, height, width, channels)` to probabilities `(batch, classes)`.

        # Raises
            UsageError: if there is no such network, or it refuses the quantizer.
        """
        try:
            return self._network()(
                input_shape=dataset.input_shape,
                num_classes=len(dataset.classes),
                quantizer=self.quantizer,
            )
        except ValueError as error:
            raise UsageError(
                f"The network of {self.name} cannot be built with quantizer={self.quantizer}: "
                f"{error}"
            ) from error

    def _network(self) -> Callable[..., tf.keras.Model]:
        if callable(self.network):
            return self.network
        import larq_ext_zoo as zoo

        network = getattr(zoo, self.network, None)
        if not callable(network):
            names = [name for name in dir(zoo) if name[0].isupper()]
            raise UsageError(unknown_name("network", self.network, names))
        return network

    def make_learning_rate(self, steps_per_epoch: int) -> LearningRate:
        """The learning rate as a function of the optimizer's iteration."""
        return LearningRate(
            self.learning_rate,
            self.epochs,
            steps_per_epoch,
            shape=self.schedule,
            warmup_epochs=self.warmup_epochs,
            per_step=self.schedule_per_step,
            milestones=self.milestones,
            factor=self.step_factor,
        )

    def make_optimizer(
        self, model: tf.keras.Model, learning_rate: LearningRate
    ) -> tf.keras.optimizers.Optimizer:
        """The optimizer for a network."""
        return make_optimizer(
            self.optimizer,
            learning_rate,
            momentum=self.momentum,
            gradient_clip_norm=self.gradient_clip_norm,
            weight_decay=self.weight_decay,
            decayed=decayed_variables(model, self.decay_norm_and_bias),
        )

    def loss(self, labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        """Cross-entropy with the experiment's label smoothing, `(batch,)`.

        Keras takes the logits from before the softmax where it can, so this loses no digits.
        """
        if not self.label_smoothing:
            return tf.keras.losses.sparse_categorical_crossentropy(labels, probabilities)
        labels = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), probabilities.shape[-1])
        return tf.keras.losses.categorical_crossentropy(
            labels, probabilities, label_smoothing=self.label_smoothing
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON has them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if callable(self.network):
            values["network"] = f"{self.network.__module__}.{self.network.__qualname__}"
        values["milestones"] = list(self.milestones)
        return values
