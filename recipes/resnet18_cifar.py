"""ResNet-18 on CIFAR-10: the settings of ResNet-20, method by method.

Of the papers only SiMaN is known to have this network, with the settings of its ResNet-20.
"""

from zookeeper import Field

from larq_ext_recipes import resnet20
from larq_ext_recipes._registry import register


@register
class ResNet18CifarFDA(resnet20.ResNet20FDA):
    """ResNet-18 on CIFAR-10 with the Fourier gradient of FDA-BNN."""

    network = Field("ResNet18Cifar")


@register
class ResNet18CifarLearnableScale(resnet20.ResNet20LearnableScale):
    """ResNet-18 on CIFAR-10 with the learned scales of Trained Binarization."""

    network = Field("ResNet18Cifar")


@register
class ResNet18CifarSiMaN(resnet20.ResNet20SiMaN):
    """ResNet-18 on CIFAR-10 with the magnitude-based signs of SiMaN."""

    network = Field("ResNet18Cifar")
    network_options = Field("variant=siman,pad_values=0.0")  # official code


@register
class ResNet18CifarMLPClassifier(resnet20.ResNet20MLPClassifier):
    """ResNet-18 on CIFAR-10 with weights binarized by a small learned classifier."""

    network = Field("ResNet18Cifar")


@register
class ResNet18CifarSteSign(resnet20.ResNet20SteSign):
    """ResNet-18 on CIFAR-10 with Larq's straight-through estimator, the baseline."""

    network = Field("ResNet18Cifar")
