"""What a run needs before its first step, and the look at all of it before anything is deleted."""

from __future__ import annotations

import contextlib
import pathlib
import warnings
from collections.abc import Callable, Iterator

import tensorflow as tf

from larq_ext.callbacks import QuantizerScheduler
from larq_ext_recipes._base_experiment import BaseExperiment
from larq_ext_recipes._class_names import check_classes
from larq_ext_recipes._environment import lacks_for_bfloat16
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._optimizers import create_variables
from larq_ext_recipes._schedules import LearningRate
from larq_ext_recipes._training_step import StepOptions, with_step
from larq_ext_recipes._two_step import check_source, load_source, take_over
from larq_ext_recipes.datasets import Dataset


def check_start(experiment: BaseExperiment, dataset: Dataset, *, starts: bool = True) -> None:
    """Makes all that a run is made of, for both of two steps: what is wrong shows at once.

    # Arguments
        experiment: What is to be trained.
        dataset: Its data.
        starts: Whether it starts anew, from its initial weights if it has some.

    # Raises
        UsageError: if something cannot be had, or does not fit.
    """
    steps = [experiment]
    if experiment.first_step_epochs:
        steps.insert(0, experiment.first_step(pathlib.Path("first_step")))
    networks = []
    check_teacher(experiment, dataset)
    for step in steps:
        with precision(step):
            data = dataset.training(step.batch_size, step.seed, step.augmentation)
            networks.append(step.build_model(dataset))
            model = with_step(networks[-1], step_options(step, networks[-1]))
            compile_model(step, model, step.make_learning_rate(data.steps_per_epoch))
            quantizer_schedules(step, model)
    if starts:
        steps[0].initialize(networks[0])
    if len(steps) > 1:
        take_over(*networks, "The first step")


def check_teacher(experiment: BaseExperiment, dataset: Dataset) -> None:
    """Whether the teacher knows the same classes.

    # Raises
        UsageError: if it does not.
    """
    if experiment.teacher is not None:
        check_source(experiment.teacher)
        names = getattr(dataset, "classes", None)
        check_classes(experiment.teacher, names, dataset.name)


def step_options(experiment: BaseExperiment, network: tf.keras.Model) -> StepOptions:
    """What a training step does besides the loss, and the teacher.

    # Raises
        UsageError: if the teacher cannot be had.
    """
    options = {
        "weight_decay": 0.0 if experiment.optimizer == "adamw" else experiment.weight_decay,
        "decayed": experiment.decayed_variables,
        "gradient_clip_norm": experiment.gradient_clip_norm,
        "convolutions": _convolutions(experiment),
    }
    if experiment.teacher is not None:
        options |= {
            "teacher": load_teacher(experiment.teacher, network),
            "teacher_loss": experiment.teacher_loss,
            "distillation": experiment.distillation,
        }
    return StepOptions(**options)


def _convolutions(experiment: BaseExperiment) -> tf.DType | None:
    """The type of binary convolutions, if not their own: a run may go on on another machine."""
    if not experiment.bfloat16_convolutions:
        return None
    lack = "needs a binarized network" if experiment.quantizer is None else lacks_for_bfloat16()
    if lack is not None:
        warnings.warn(f"bfloat16_convolutions=true does nothing here: it {lack}.", stacklevel=2)
        return None
    return tf.bfloat16


def quantizer_schedules(
    experiment: BaseExperiment, model: tf.keras.Model
) -> list[QuantizerScheduler]:
    """Those of the method that the network has a use for: not all, where kernels are real.

    # Raises
        UsageError: if the network has none of the method's quantizers.
    """
    schedules = experiment.make_quantizer_schedules()
    used = [schedule for schedule in schedules if schedule.applies_to(model)]
    if experiment.binarize == "all" and used != schedules:
        raise UsageError(
            f"No quantizer of {model.name} is of quantizer={experiment.quantizer}, whose "
            "numbers change while it trains: give the quantizer that the network is made with."
        )
    return used


def compile_model(
    experiment: BaseExperiment, model: tf.keras.Model, learning_rate: LearningRate
) -> None:
    """Compiles, and makes all variables exist that a checkpoint has to restore."""
    optimizer = experiment.make_optimizer(model, learning_rate)
    model.compile(optimizer, loss=experiment.loss, metrics=[experiment.metric()])
    # What a step says is of all replicas together already; Keras would add it up.
    model.distribute_reduction_method = "first"
    create_variables(model.optimizer, model)
    outputs = tf.ones([1, *model.output_shape[1:]])
    model.compiled_loss.build(outputs)
    model.compiled_metrics.build(outputs, outputs)  # metrics that are objects ask no more


def load_teacher(source: str, network: tf.keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Loads the model to learn from.

    # Arguments
        source: A model file, the folder of a run, or a trained model of the zoo.
        network: The network that learns.

    # Returns
        A function from images to outputs.

    # Raises
        UsageError: if there is none, or its inputs or outputs have other shapes.
    """
    teacher = load_source(source)
    shapes = network.input_shape, network.output_shape
    if (teacher.input_shape, teacher.output_shape) != shapes:
        raise UsageError(
            f"The teacher {source} takes {teacher.input_shape} and gives {teacher.output_shape}; "
            f"the network {network.name} needs {shapes[0]} and {shapes[1]}."
        )
    teacher.trainable = False
    return lambda images: teacher(images, training=False)


@contextlib.contextmanager
def precision(experiment: BaseExperiment) -> Iterator[None]:
    """Sets Keras' global precision for the layers built inside, and puts it back."""
    before = tf.keras.mixed_precision.global_policy()
    if experiment.mixed_precision:
        tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
