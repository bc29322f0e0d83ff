"""AlexNet on ImageNet, for the papers that report it.

The settings are those of ResNet-18, method by method, and so is where they come from.
"""

from zookeeper import Field

from larq_ext_recipes import resnet18
from larq_ext_recipes._registry import register


@register
class AlexNetFDA(resnet18.ResNet18FDA):
    """AlexNet on ImageNet with the Fourier gradient of FDA-BNN."""

    network = Field("AlexNet")


@register
class AlexNetLearnableScale(resnet18.ResNet18LearnableScale):
    """AlexNet on ImageNet with the learned scales of Trained Binarization."""

    network = Field("AlexNet")


@register
class AlexNetSteSign(resnet18.ResNet18SteSign):
    """AlexNet on ImageNet with Larq's straight-through estimator, the baseline."""

    network = Field("AlexNet")
