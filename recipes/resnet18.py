"""ResNet-18 on ImageNet, an experiment for each method of binarization.

The comments say where a setting comes from: the paper, the authors' code, or us.
"""

from zookeeper import Field

from larq_ext_recipes._registry import register
from larq_ext_recipes.imagenet import ImageNetExperiment


@register
class ResNet18FDA(ImageNetExperiment):
    """ResNet-18 on ImageNet with the Fourier gradient of FDA-BNN."""

    network = Field("ResNet18")
    quantizer = Field("fda")
    optimizer = Field("adam")  # paper
    learning_rate = Field(1e-3)  # paper
    momentum = Field(0.9)  # paper
    schedule = Field("cosine")  # ours, as epochs and batch size: the paper does not say


@register
class ResNet18LearnableScale(ImageNetExperiment):
    """ResNet-18 on ImageNet with the learned scales of Trained Binarization."""

    network = Field("ResNet18")
    quantizer = Field("learnable_scale")
    network_options = Field("variant=learnable_scale")
    optimizer = Field("adam")  # ours, as all that follows: the paper's training is not known
    learning_rate = Field(1e-3)
    schedule = Field("cosine")


@register
class ResNet18SiMaN(ImageNetExperiment):
    """ResNet-18 on ImageNet with the magnitude-based signs of SiMaN."""

    network = Field("ResNet18")
    quantizer = Field("siman")
    network_options = Field("variant=siman,pad_values=0.0")  # official code, as all that follows
    optimizer = Field("sgd")
    learning_rate = Field(0.1)
    momentum = Field(0.9)
    epochs = Field(150)
    batch_size = Field(512)
    schedule = Field("cosine")
    weight_decay = Field(1e-4)
    decay_norm_and_bias = Field(True)
    crop_scale = Field((0.08, 1.25))


@register
class ResNet18MLPClassifier(ImageNetExperiment):
    """ResNet-18 on ImageNet with weights binarized by a learned classifier, distilled."""

    network = Field("ResNet18")
    quantizer = Field("mlp_classifier")
    # Official code, as all that follows; padding with 1 is ours (0 there).
    network_options = Field("variant=mlp_classifier")
    optimizer = Field("adam")
    learning_rate = Field(2.5e-3)
    schedule = Field("linear")  # there it falls an epoch earlier
    quantizer_learning_rate = Field(1e-3)
    quantizer_milestones = Field((69, 89, 99, 109))
    epochs = Field(120)
    batch_size = Field(256)
    lighting = Field(0.1)
    distillation = Field(0.9)
    teacher = Field("runs/ResNet34Float")  # ours: there it is torchvision's ResNet-34


@register
class ResNet18SteSign(ImageNetExperiment):
    """ResNet-18 on ImageNet with Larq's straight-through estimator, the baseline."""

    network = Field("ResNet18")
    quantizer = Field("ste_sign")
    optimizer = Field("adam")  # ours, as all that follows
    learning_rate = Field(1e-3)
    schedule = Field("cosine")
