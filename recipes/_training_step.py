"""One step of training: Keras' own, with what Keras has no place for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from larq_ext._convolution import convolutions_in
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._optimizers import own_names


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """What a step does beyond a plain one.

    # Arguments
        weight_decay: L2 weight decay as PyTorch and MindSpore define it: `weight_decay * w` is
            added to the gradient after clipping, so that it passes through the momentum. Keras'
            own `weight_decay` is the decoupled kind, which is another algorithm.
        decayed: Chooses the variables of a model that decay.
        gradient_clip_norm: Norm that all gradients together may have, or `None`.
        teacher: Function from images to outputs to learn from, or `None`.
        teacher_loss: Function from the teacher's and the network's outputs to a mean distance.
        distillation: Share of that distance in the loss.
        convolutions: Type that binary convolutions compute in on a CPU, or `None` for their own.
    """

    weight_decay: float = 0.0
    decayed: Callable[[tf.keras.Model], list[tf.Variable]] = lambda model: []
    gradient_clip_norm: float | None = None
    teacher: Callable[[tf.Tensor], tf.Tensor] | None = None
    teacher_loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None
    distillation: float = 0.0
    convolutions: tf.DType | None = None

    @property
    def plain(self) -> bool:
        """Whether Keras' own step does the same."""
        others = self.gradient_clip_norm, self.teacher, self.convolutions
        return not (self.weight_decay or any(others))


def with_step(network: tf.keras.Model, options: StepOptions) -> tf.keras.Model:
    """The network with our training step, or with its own if it has one.

    # Raises
        UsageError: if it has one of its own and an option needs ours.
    """
    if type(network).train_step is not tf.keras.Model.train_step:
        if not options.plain:
            raise UsageError(
                f"The network {network.name} has a train_step of its own, which knows nothing of "
                "weight_decay, gradient_clip_norm, teacher and bfloat16_convolutions: leave them "
                "out."
            )
        return network
    model = TrainedModel(network.inputs, network.outputs, name=network.name)
    model.options = options
    model.decayed = own_names(options.decayed(network), network)
    return model


class TrainedModel(tf.keras.Model):
    """A functional model whose step clips, decays, distils and survives a gradient of NaN."""

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, labels = data
        with tf.GradientTape() as tape:
            with convolutions_in(self.options.convolutions):
                outputs = self(images, training=True)
            loss = self.compiled_loss(labels, outputs, regularization_losses=self.losses)
            if self.options.teacher is not None:
                loss = self._distilled(loss, images, outputs)
            loss *= share_of_batch(images)
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables)
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        gradients, variables = zip(*pairs, strict=True)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            replica = tf.distribute.get_replica_context()
            gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
        norm = tf.linalg.global_norm(gradients)
        self.optimizer.apply_gradients(
            zip(self._treated(gradients, variables, norm), variables, strict=True),
            experimental_aggregate_gradients=False,
        )
        self.compiled_metrics.update_state(labels, outputs)
        return {**self.get_metrics_result(), "gradient_norm": norm}

    def _treated(self, gradients, variables, norm: tf.Tensor) -> list[tf.Tensor]:
        """Clips, adds the decay, and turns a gradient that is not finite into none at all.

        The weights stay finite then, so that the layer where it began can be found.
        """
        clip = self.options.gradient_clip_norm
        scale = 1.0 if clip is None else clip / tf.maximum(norm, clip)
        treated = []
        for gradient, variable in zip(gradients, variables, strict=True):
            if clip is not None:
                gradient *= tf.cast(scale, gradient.dtype)
            if self.options.weight_decay and variable.name in self.decayed:
                decay = tf.cast(self.options.weight_decay, gradient.dtype)
                gradient += decay * tf.cast(variable, gradient.dtype)
            finite = tf.math.is_finite(norm)
            treated.append(tf.where(finite, gradient, tf.zeros_like(gradient)))
        return treated

    def _distilled(self, loss: tf.Tensor, images: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Mixes in the distance from the teacher's outputs; penalties on weights stay whole."""
        options = self.options
        teacher = tf.stop_gradient(options.teacher(images))
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        distance = options.teacher_loss(teacher, outputs) / replicas
        penalty = tf.add_n(self.losses) / replicas if self.losses else 0.0
        share = options.distillation
        return (1 - share) * (loss - penalty) + share * distance + penalty


def share_of_batch(images: tf.Tensor) -> tf.Tensor | float:
    """Weight of a replica's mean loss in that of the batch: 1 if all have as many images."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return 1.0
    mine = tf.cast(tf.shape(images)[0], tf.float32)
    replica = tf.distribute.get_replica_context()
    return mine * replicas / replica.all_reduce(tf.distribute.ReduceOp.SUM, mine)


def softened(probabilities: tf.Tensor, temperature: float) -> tf.Tensor:
    """Logarithms of probabilities at another temperature: `log softmax(log(p) / temperature)`."""
    # Adding a constant to all logits changes no softmax, so those of p are as good as any.
    logits = tf.math.log(tf.maximum(probabilities, 1e-12))
    return tf.nn.log_softmax(logits / temperature)
