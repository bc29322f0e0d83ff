"""AlexNet on ImageNet, for the papers that report it.

The comments say where a setting comes from: the paper, or us.
"""

from zookeeper import Field

from larq_ext_recipes._registry import register
from larq_ext_recipes.imagenet import ImageNetExperiment


@register
class AlexNetFDA(ImageNetExperiment):
    """AlexNet on ImageNet with the Fourier gradient of FDA-BNN."""

    network = Field("AlexNet")
    quantizer = Field("fda")
    optimizer = Field("adam")  # paper
    learning_rate = Field(1e-3)  # paper
    momentum = Field(0.9)  # paper
    schedule = Field("cosine")  # ours, as epochs and batch size: the paper does not say


@register
class AlexNetLearnableScale(ImageNetExperiment):
    """AlexNet on ImageNet with the learned scales of Trained Binarization."""

    network = Field("AlexNet")
    quantizer = Field("learnable_scale")
    network_options = Field("variant=learnable_scale")
    optimizer = Field("adam")  # ours, as all that follows: the paper's training is not known
    learning_rate = Field(1e-3)
    schedule = Field("cosine")


@register
class AlexNetSteSign(ImageNetExperiment):
    """AlexNet on ImageNet with Larq's straight-through estimator, the baseline."""

    network = Field("AlexNet")
    quantizer = Field("ste_sign")
    optimizer = Field("adam")  # ours, as all that follows
    learning_rate = Field(1e-3)
    schedule = Field("cosine")
