"""What every experiment is, whatever its network is for: settings of a training, with nothing open.

Annotations are evaluated here: zookeeper reads the types of the fields from them.
"""

import abc
import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import tensorflow as tf
from zookeeper import Field, component
from zookeeper import configure as configure_component

from larq_ext._scope import fresh_names
from larq_ext._text import read_option, split_options
from larq_ext.callbacks import QuantizerScheduler, method_schedules
from larq_ext_recipes import _overrides
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._names import unknown_name
from larq_ext_recipes._optimizers import decayed_variables, make_optimizer
from larq_ext_recipes._pipeline import Changes
from larq_ext_recipes._schedules import LearningRate
from larq_ext_recipes._two_step import drop_kernel_quantizers, load_initial_weights
from larq_ext_recipes.datasets import Dataset

# They change nothing in the training of any task.
FREE_FIELDS = frozenset(
    {
        "description",
        "data_dir",
        "output_dir",
        "checkpoint_minutes",
        "checkpoint_steps",
        "progress",
        "strategy",
    }
)

_LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "evaluate_every": 1,
    **dict.fromkeys(
        (
            "holdout",
            "limit",
            "warmup_epochs",
            "weight_decay",
            "checkpoint_minutes",
            "seed",
            "first_step_epochs",
            "bop_threshold",
        ),
        0,
    ),
}
_LARGEST_SEED = 2**32 - 1  # NumPy's
_IDLE_WITHOUT = {
    "schedule=step": {"milestones", "step_factor"},
    "quantizer_learning_rate": {"quantizer_milestones"},
    "binary_optimizer=bop": {"bop_threshold", "bop_gamma"},
    "a teacher": {"distillation", "temperature"},
    "weight_decay": {"decay_norm_and_bias"},
    "schedule=cosine or linear, or a warm-up": {"schedule_per_step"},
}
_MILESTONES = ("milestones", "quantizer_milestones")
_BELOW_ONE = ("momentum", "weight_average", "bop_gamma")


class CurveLabels(NamedTuple):
    """What the two axes of a learning curve say.

    # Arguments
        loss: Name of the loss.
        error: Name of the share of wrong answers, 1 - accuracy.
    """

    loss: str
    error: str


class BaseExperiment(abc.ABC):
    """A training run, completely described: a zookeeper task whose fields are its settings.

    What a task of its own (classification, pose) adds is fields, and the abstract methods: its
    data, network, loss, metric, and how the finished network is scored.

    # Arguments
        network: Name of a network in `larq_ext_zoo`, or a function with its signature.
        quantizer: Method of binarization, or `None` for floating point.
        binarize: `"all"`, or `"inputs"` to leave the kernels real, as in the first of two steps.
        network_options: Further arguments of the network, such as `variant=siman,gamma=0.5` or
            `modules=(1,1,1)`.
        data_dir: Where the data is; `None` lets the data set decide.
        holdout: Number of training images to evaluate on instead of the test set (0: none).
        limit: Number of training images to use, for a quick try (0: all).
        epochs: Passes through the training images.
        batch_size: Images per step, all workers and devices together.
        optimizer: `"sgd"`, `"adam"` or `"adamw"`, or a function of the learning rate and the
            model that returns any Keras optimizer, new or legacy.
        legacy_optimizer: Whether to take Keras' legacy optimizers, as Larq's own recipes do.
        learning_rate: The highest learning rate.
        momentum: Momentum of SGD; first decay rate (`beta_1`) of Adam.
        binary_optimizer: `"same"`, or `"bop"` for Larq's Bop on binary kernels (one `CaseOptimizer`
            for all).
        bop_threshold: Threshold of Bop.
        bop_gamma: Adaptivity rate of Bop.
        quantizer_learning_rate: Learning rate of an Adam of their own for the parameters of the
            quantizers (`None`: as all others).
        quantizer_milestones: Epochs at which that rate is multiplied by 0.1.
        quantizer_schedule: Numbers of what the method changes over the epochs, such as
            `alpha_rest=0.5,n_end=12` for FDA (see `larq_ext.callbacks.method_schedules`).
        schedule: How the learning rate decays: `"cosine"` or `"linear"` to zero, `"step"` or
            `"constant"`.
        schedule_per_step: Whether the rate changes at every step, or only between epochs.
        warmup_epochs: Epochs of linear warm-up at the start.
        milestones: Epochs at which the schedule `"step"` multiplies the rate by `step_factor`.
        step_factor: Factor of the schedule `"step"`.
        weight_decay: L2, added to the gradient (decoupled with `"adamw"`); never on binary layers.
        decay_norm_and_bias: Whether batch normalisation, PReLU and biases decay too.
        gradient_clip_norm: Norm that all gradients together may have, or `None`.
        weight_average: Decay per step of a moving average of all weights, which is evaluated,
            saved, and seen by callbacks at the end of an epoch in the place of the last ones (0:
            none).
        teacher: A model file, the folder of a run, or the name of a trained model of the zoo, whose
            outputs are learned too.
        distillation: Share of the teacher in the loss.
        first_step_epochs: Epochs of a first step with real kernels and binary inputs, whose weights
            the `epochs` of the second step, with its own schedule, start from (0: one step).
        initial_weights: What to start from, named like a teacher. Layers are taken over by name and
            shape, and start anew where these differ, as a classifier of other classes does.
        flip: Whether half of the images are mirrored.
        seed: Seed of initial weights, order and augmentation.
        deterministic: Use only operations that give the same bits every time; may be slower. In a
            program it stays so for what it trains afterwards.
        mixed_precision: Compute in bfloat16, keep the weights in float32.
        bfloat16_convolutions: Train convolutions of `larq_ext.layers` with stride 1 in bfloat16,
            and nothing else, on CPUs with instructions for it (`mixed_precision` is slower there).
        strategy: `"none"` for one device, `"mirrored"` for all GPUs of the machine, `"multiworker"`
            for several machines (`TF_CONFIG` names them), `"tpu"` for a TPU.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated.
        checkpoint_minutes: Minutes between checkpoints inside an epoch.
        checkpoint_steps: Steps between checkpoints inside an epoch, instead of minutes, which of
            several workers the first one counts.
        output_dir: Where the run is written; `None` is `runs/<name>`.
        progress: `"auto"` shows a bar in a terminal and a line per epoch elsewhere; `"bar"`,
            `"lines"` or `"none"`.
    """

    network: str | Callable = Field()
    quantizer: str | None = Field()
    binarize: Literal["all", "inputs"] = Field("all")
    network_options: str = Field("")
    data_dir: str | None = Field(None)
    holdout: int = Field(0)
    limit: int = Field(0)
    epochs: int = Field(200)
    batch_size: int = Field(128)
    optimizer: Literal["sgd", "adam", "adamw"] | Callable = Field("sgd")
    legacy_optimizer: bool = Field(False)
    learning_rate: float = Field(0.1)
    momentum: float = Field(0.9)
    binary_optimizer: Literal["same", "bop"] = Field("same")
    bop_threshold: float = Field(1e-8)
    bop_gamma: float = Field(1e-4)
    quantizer_learning_rate: float | None = Field(None)
    quantizer_milestones: tuple[int, ...] = Field(())
    quantizer_schedule: str = Field("")
    schedule: Literal["cosine", "linear", "step", "constant"] = Field("cosine")
    schedule_per_step: bool = Field(False)
    warmup_epochs: int = Field(0)
    milestones: tuple[int, ...] = Field(())
    step_factor: float = Field(0.1)
    weight_decay: float = Field(0.0)
    decay_norm_and_bias: bool = Field(False)
    gradient_clip_norm: float | None = Field(None)
    weight_average: float = Field(0.0)
    teacher: str | None = Field(None)
    distillation: float = Field(0.9)
    first_step_epochs: int = Field(0)
    initial_weights: str | None = Field(None)
    flip: bool = Field(True)
    seed: int = Field(0)
    deterministic: bool = Field(False)
    mixed_precision: bool = Field(False)
    bfloat16_convolutions: bool = Field(False)
    strategy: Literal["none", "mirrored", "multiworker", "tpu"] = Field("none")
    evaluate_every: int = Field(1)
    checkpoint_minutes: float = Field(10.0)
    checkpoint_steps: int | None = Field(None)
    output_dir: str | None = Field(None)
    progress: Literal["auto", "bar", "lines", "none"] = Field("auto")

    def run(self) -> None:
        """Trains; what zookeeper's own command line calls."""
        from larq_ext_recipes._trainer import run_experiment

        run_experiment(self)

    @property
    def name(self) -> str:
        """Name in the registry and of the output folder."""
        return type(self).__name__

    @property
    def free_fields(self) -> frozenset[str]:
        """The settings with whose other values a run may be resumed."""
        return FREE_FIELDS

    @property
    def description(self) -> str:
        """One line for the list of experiments."""
        return (type(self).__doc__ or "").strip().partition("\n")[0].rstrip(".")

    # What each task has in its own way.

    @property
    @abc.abstractmethod
    def augmentation(self) -> Changes:
        """The random changes of the training images."""

    @property
    @abc.abstractmethod
    def curve_labels(self) -> CurveLabels:
        """What the axes of the learning curve say."""

    @abc.abstractmethod
    def load_data(self) -> Dataset:
        """Loads the data, with the hold-out in the place of the test set if there is one."""

    @abc.abstractmethod
    def network_arguments(self, dataset: Dataset) -> dict[str, Any]:
        """The arguments of the network that follow from the data."""

    @abc.abstractmethod
    def network_names(self) -> list[str]:
        """The networks of `larq_ext_zoo` that are for this task."""

    @abc.abstractmethod
    def loss(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """The loss of each example, `(batch,)`."""

    @abc.abstractmethod
    def metric(self) -> tf.keras.metrics.Metric:
        """A new metric with the name `"accuracy"`: the share of right answers."""

    @abc.abstractmethod
    def teacher_loss(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        """Mean distance of the outputs from those of the teacher, a scalar."""

    @abc.abstractmethod
    def score(self, model: tf.keras.Model, dataset: Dataset) -> dict[str, Any]:
        """What `metrics.json` says of the finished network."""

    @abc.abstractmethod
    def headline(self, metrics: dict[str, Any]) -> str:
        """One line of what `score` found."""

    @abc.abstractmethod
    def defaults(self) -> dict[str, Any]:
        """What the fields are where nothing else is said, as JSON has them."""

    # What all have in common.

    def __post_configure__(self) -> None:
        self.check_least(_LEAST)
        for field in (
            "learning_rate",
            "quantizer_learning_rate",
            "gradient_clip_norm",
            "step_factor",
        ):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{field} must be above 0, received {value}.")
        self.check_below_one(_BELOW_ONE)
        if self.seed > _LARGEST_SEED:
            raise UsageError(f"seed must be {_LARGEST_SEED} or less, received {self.seed}.")
        if not 0 <= self.distillation <= 1:
            raise UsageError(f"distillation must be from 0 to 1, received {self.distillation}.")
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise UsageError(
                f"checkpoint_steps must be 1 or more, received {self.checkpoint_steps}."
            )
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise UsageError(
                f"warmup_epochs={self.warmup_epochs} leaves nothing of epochs={self.epochs}: "
                "give more epochs or less warm-up."
            )
        for field in _MILESTONES:
            if min(getattr(self, field), default=1) < 1:
                raise UsageError(
                    f"{field} are epochs from 1 on, received {list(getattr(self, field))}."
                )
        _ = self.augmentation  # which checks its own settings
        if self.quantizer is None and (self.binarize != "all" or self.first_step_epochs):
            raise UsageError(
                "binarize and first_step_epochs are for binarized networks: give a quantizer."
            )
        if self.quantizer_schedule:
            self.make_quantizer_schedules()
        if self.binary_optimizer == "bop" and (
            self.quantizer != "ste_sign" or self.binarize == "inputs"
        ):
            # FDA's slope at 1 is below zero for n >= 15, learnable_scale's is zero, and a
            # classifier's weights stop where they are sure; SiMaN's signs follow magnitudes.
            raise UsageError(
                "Bop leaves latent weights at -1 and +1, where only the gradient of ste_sign is of "
                "use: give quantizer=ste_sign and binarize=all, or leave binary_optimizer=bop out; "
                f"received quantizer={self.quantizer} and binarize={self.binarize}."
            )
        if callable(self.optimizer) and (self.groups_of_optimizers or self.legacy_optimizer):
            raise UsageError(
                "An optimizer of your own is the only one: leave binary_optimizer, "
                "quantizer_learning_rate and legacy_optimizer out."
            )
        if self.schedule == "step" and not self.milestones:
            raise UsageError(
                "schedule=step needs milestones, the epochs at which the rate falls: for example "
                f"milestones={self.epochs // 2},{3 * self.epochs // 4}."
            )
        if self.legacy_optimizer and self.optimizer == "adamw":
            raise UsageError("Keras has no legacy adamw: leave legacy_optimizer out.")
        if self.bfloat16_convolutions and self.mixed_precision:
            raise UsageError("mixed_precision computes in bfloat16: no bfloat16_convolutions then.")
        if self.optimizer == "adamw" and self.groups_of_optimizers:
            raise UsageError(
                "binary_optimizer and quantizer_learning_rate need optimizer=sgd or adam."
            )

    def check_least(self, least: Mapping[str, float]) -> None:
        """Refuses values of fields below the least one that each may have."""
        for field, lowest in least.items():
            value = getattr(self, field)
            if not math.isfinite(value) or value < lowest:
                raise UsageError(f"{field} must be {lowest} or more, received {value}.")

    def check_use(self, given: Iterable[str]) -> None:
        """Refuses settings that were given and that another setting makes count for nothing.

        # Arguments
            given: Names of fields.
        """
        missing = {
            "schedule=step": self.schedule != "step",
            "quantizer_learning_rate": self.quantizer_learning_rate is None,
            "binary_optimizer=bop": self.binary_optimizer != "bop",
            "a teacher": self.teacher is None,
            "weight_decay": not self.weight_decay,
            "schedule=cosine or linear, or a warm-up": self.schedule in ("step", "constant")
            and not self.warmup_epochs,
        }
        for needed, fields in _IDLE_WITHOUT.items():
            idle = sorted(fields & set(given))
            if idle and missing[needed]:
                raise UsageError(
                    f"{' and '.join(idle)} would do nothing without {needed}: give that too, or "
                    "leave it out."
                )

    def check_below_one(self, fields: tuple[str, ...]) -> None:
        """Refuses values of fields that are not at least 0 and below 1."""
        for field in fields:
            if not 0 <= getattr(self, field) < 1:
                raise UsageError(
                    f"{field} must be at least 0 and below 1, received {getattr(self, field)}."
                )

    @property
    def groups_of_optimizers(self) -> bool:
        """Whether some variables have an optimizer of their own."""
        return self.binary_optimizer != "same" or self.quantizer_learning_rate is not None

    def build_model(self, dataset: Dataset) -> tf.keras.Model:
        """Builds the network with new weights.

        # Arguments
            dataset: The data the network is for.

        # Returns
            A model from `(batch, height, width, channels)` to what the task is about.

        # Raises
            UsageError: if there is no such network, or it refuses the quantizer or an option.
        """
        options = self._options
        try:
            with fresh_names():
                model = self._network()(**self.network_arguments(dataset), **options)
        except (ValueError, TypeError) as error:
            with_options = "".join(f", {key}={value!r}" for key, value in options.items())
            raise UsageError(
                f"The network of {self.name} cannot be built with quantizer={self.quantizer}"
                f"{with_options}: {error}"
            ) from error
        return drop_kernel_quantizers(model) if self.binarize == "inputs" else model

    def make_quantizer_schedules(self) -> list[QuantizerScheduler]:
        """What the method of binarization changes from epoch to epoch.

        # Raises
            UsageError: if `quantizer_schedule` has something that the method does not know.
        """
        options = _read_options(self.quantizer_schedule)
        if self.quantizer is None:
            if options:
                raise UsageError("quantizer_schedule is for binarized networks: give a quantizer.")
            return []
        try:
            return method_schedules(self.quantizer, self.epochs, **options)
        except ValueError as error:
            raise UsageError(f"quantizer_schedule={self.quantizer_schedule}: {error}") from error

    def initialize(self, model: tf.keras.Model) -> None:
        """Loads the initial weights if the experiment names some.

        # Raises
            UsageError: if there is no such file or it fits no layer.
        """
        if self.initial_weights is not None:
            load_initial_weights(model, self.initial_weights)

    @property
    def _options(self) -> dict[str, Any]:
        """The network's options."""
        return _read_options(self.network_options)

    def _network(self) -> Callable[..., tf.keras.Model]:
        if callable(self.network):
            return self.network
        import larq_ext_zoo as zoo

        network = getattr(zoo, self.network, None)
        if not callable(network):
            raise UsageError(unknown_name("network", self.network, self.network_names()))
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
        """The optimizer for a network; decay and clipping of the others are the training step's."""
        if callable(self.optimizer):
            return self.optimizer(learning_rate, model)
        quantizer_rate = None
        if self.quantizer_learning_rate is not None:
            quantizer_rate = LearningRate(
                self.quantizer_learning_rate,
                self.epochs,
                learning_rate.steps_per_epoch,
                shape="step",
                milestones=self.quantizer_milestones,
            )
        return make_optimizer(
            self.optimizer,
            learning_rate,
            model,
            momentum=self.momentum,
            legacy=self.legacy_optimizer,
            decoupled_decay=self.weight_decay,
            decayed=self.decayed_variables(model),
            bop=(self.bop_threshold, self.bop_gamma) if self.binary_optimizer == "bop" else None,
            quantizer_rate=quantizer_rate,
        )

    def unreached(self) -> list[str]:
        """A sentence about each kind of milestones of which some lie behind the end of the run."""
        used = {
            "milestones": self.schedule == "step",
            "quantizer_milestones": self.quantizer_learning_rate is not None,
        }
        late = {
            field: [epoch for epoch in getattr(self, field) if epoch >= self.epochs]
            for field in _MILESTONES
            if used[field]
        }
        return [
            f"{field} {epochs} are not reached in {self.epochs} epochs: no rate falls there."
            for field, epochs in late.items()
            if epochs
        ]

    def evaluation_batch(self, dataset: Dataset) -> int:
        """Images of a batch in an evaluation: no more than of a step, whose memory there is."""
        return min(dataset.evaluation_batch, self.batch_size)

    def decayed_variables(self, model: tf.keras.Model) -> list[tf.Variable]:
        """The variables of a network that `weight_decay` is for."""
        return decayed_variables(model, self.decay_norm_and_bias) if self.weight_decay else []

    def first_step(self, folder: pathlib.Path) -> "BaseExperiment":
        """The experiment of the first of two steps, written to a folder.

        Its schedules are those of the second step, as much shorter or longer as it is.
        """
        share = self.first_step_epochs / self.epochs
        try:
            return self.replace(
                binarize="inputs",
                binary_optimizer="same",  # there are no binary kernels yet
                epochs=self.first_step_epochs,
                first_step_epochs=0,
                warmup_epochs=int(share * self.warmup_epochs),
                milestones=tuple(max(1, round(share * epoch)) for epoch in self.milestones),
                quantizer_milestones=tuple(
                    max(1, round(share * epoch)) for epoch in self.quantizer_milestones
                ),
                output_dir=str(folder),
            )
        except UsageError as error:
            raise UsageError(f"The first step of {self.name} cannot be: {error}") from error

    def replace(self, **changes: Any) -> "BaseExperiment":
        """The same experiment with other values of some fields; text is read as the field's type.

        # Raises
            UsageError: if there is no such field or a value does not fit.
        """
        return configure(type(self), {**self.values(), **changes})

    def values(self) -> dict[str, Any]:
        """All fields with their values."""
        return {field: getattr(self, field) for field in self.__component_fields__}

    def changed(self) -> list[str] | None:
        """The fields that are not what the experiment says; `None` where no command knows it."""
        if type(self).__module__.partition(".")[0] != __package__:
            return None
        own = configure(type(self), {}).to_dict()
        changed = [field for field, value in self.to_dict().items() if value != own[field]]
        return None if any(callable(getattr(self, field)) for field in changed) else changed

    def to_dict(self) -> dict[str, Any]:
        """Name, description and all fields as JSON has them."""
        values = {"name": self.name, "description": self.description, **self.values()}
        for field, value in values.items():
            while isinstance(value, functools.partial):
                value = value.func
            if callable(value):
                kind = type(value)
                name = getattr(value, "__qualname__", kind.__qualname__)
                values[field] = f"{getattr(value, '__module__', kind.__module__)}.{name}"
            elif isinstance(value, tuple):
                values[field] = list(value)
        return values


def _read_options(text: str) -> dict[str, Any]:
    """Options in one text: numbers, truth values and none as such, anything else as text."""
    words = _overrides.split_words(split_options(text))
    return {key: read_option(value) for key, value in words.items()}


def defaults_of(kind: type[BaseExperiment]) -> dict[str, Any]:
    """The defaults of a class of experiments, for those without one nothing."""
    fields = {"network": Field(""), "quantizer": Field(None), "__module__": __name__}
    return configure(component(type("Defaults", (kind,), fields)), {}).to_dict()


def configure(experiment: type[BaseExperiment], overrides: Mapping[str, Any]) -> BaseExperiment:
    """Makes an experiment from its class.

    # Arguments
        experiment: A class decorated with `recipes.register`, or as a zookeeper component.
        overrides: Values of fields, as values or as text.

    # Returns
        The experiment, which cannot be changed any more.

    # Raises
        UsageError: if there is no such field or a value does not fit.
    """
    fields = {name: field.type for name, field in experiment.__component_fields__.items()}
    instance = experiment()
    values = _overrides.read(overrides, fields)
    configure_component(instance, values, interactive=False)
    return instance
