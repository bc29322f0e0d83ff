"""ResNet-20 on CIFAR-10, an experiment for each method of binarization.

The comments say where a setting comes from: the paper, the authors' (or, where named, somebody
else's) code, or us.
"""

from zookeeper import Field

from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._registry import register


@register
class ResNet20FDA(Experiment):
    """ResNet-20 on CIFAR-10 with the Fourier gradient of FDA-BNN."""

    network = Field("ResNet20")
    quantizer = Field("fda")
    optimizer = Field("sgd")  # paper
    learning_rate = Field(0.1)  # paper
    momentum = Field(0.9)  # paper
    epochs = Field(400)  # paper
    batch_size = Field(128)  # paper
    weight_decay = Field(1e-4)  # paper; sparing binary kernels, norms, biases and PReLU is ours
    schedule = Field("cosine")  # third-party code; the paper does not say


@register
class ResNet20LearnableScale(Experiment):
    """ResNet-20 on CIFAR-10 with the learned scales of Trained Binarization."""

    network = Field("ResNet20")
    quantizer = Field("learnable_scale")
    optimizer = Field("adam")  # ours, as all that follows: the paper's training is not known
    learning_rate = Field(1e-3)
    epochs = Field(200)
    batch_size = Field(128)
    schedule = Field("cosine")


@register
class ResNet20SiMaN(Experiment):
    """ResNet-20 on CIFAR-10 with the magnitude-based signs of SiMaN."""

    network = Field("ResNet20")
    quantizer = Field("siman")  # blocks and padding are ours, as in the other rows of ResNet-20
    optimizer = Field("sgd")  # official code, as all that follows
    learning_rate = Field(0.1)
    momentum = Field(0.9)
    epochs = Field(400)
    batch_size = Field(256)
    schedule = Field("cosine")
    warmup_epochs = Field(5)
    weight_decay = Field(5e-4)
    decay_norm_and_bias = Field(True)
    seed = Field(123)


@register
class ResNet20MLPClassifier(Experiment):
    """ResNet-20 on CIFAR-10 with weights binarized by a small learned classifier."""

    network = Field("ResNet20")
    quantizer = Field("mlp_classifier")
    optimizer = Field("adam")  # official code for ImageNet; nothing is known for CIFAR-10
    learning_rate = Field(2.5e-3)  # official code for ImageNet; for the classifier too is ours
    schedule = Field("linear")  # official code for ImageNet, whose rate falls an epoch earlier
    epochs = Field(200)  # ours
    batch_size = Field(128)  # ours


@register
class ResNet20SteSign(Experiment):
    """ResNet-20 on CIFAR-10 with Larq's straight-through estimator, the baseline."""

    network = Field("ResNet20")
    quantizer = Field("ste_sign")
    optimizer = Field("adam")  # ours, as all that follows
    learning_rate = Field(1e-3)
    epochs = Field(200)
    batch_size = Field(128)
    schedule = Field("cosine")


@register
class ResNet20Float(Experiment):
    """ResNet-20 on CIFAR-10 in floating point: what bits cost, and a teacher for them."""

    network = Field("ResNet20")
    quantizer = Field(None)
    optimizer = Field("sgd")  # ours, as all that follows
    learning_rate = Field(0.1)
    epochs = Field(200)
    batch_size = Field(128)
    weight_decay = Field(5e-4)
    decay_norm_and_bias = Field(True)
    schedule = Field("cosine")


@register
class ResNet20TwoStep(Experiment):
    """ResNet-20 on CIFAR-10 in two steps, distilled from ResNet20Float."""

    network = Field("ResNet20")
    quantizer = Field("ste_sign")
    optimizer = Field("adam")  # ours, as all that follows
    learning_rate = Field(2e-3)
    schedule = Field("cosine")
    first_step_epochs = Field(100)
    epochs = Field(200)
    batch_size = Field(128)
    teacher = Field("runs/ResNet20Float")
    distillation = Field(0.9)
    temperature = Field(2.0)
