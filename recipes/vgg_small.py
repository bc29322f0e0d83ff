"""VGG-Small on CIFAR-10: the settings of ResNet-20, method by method.

The papers give one set of CIFAR-10 settings for both networks, and what is ours in
`larq_ext_recipes.resnet20` is kept here, so that the methods can be compared.
"""

from zookeeper import Field

from larq_ext_recipes import resnet20
from larq_ext_recipes._registry import register


@register
class VGGSmallFDA(resnet20.ResNet20FDA):
    """VGG-Small on CIFAR-10 with the Fourier gradient of FDA-BNN."""

    network = Field("VGGSmall")


@register
class VGGSmallLearnableScale(resnet20.ResNet20LearnableScale):
    """VGG-Small on CIFAR-10 with the learned scales of Trained Binarization."""

    network = Field("VGGSmall")
    network_options = Field("variant=learnable_scale")


@register
class VGGSmallSiMaN(resnet20.ResNet20SiMaN):
    """VGG-Small on CIFAR-10 with the magnitude-based signs of SiMaN."""

    network = Field("VGGSmall")
    network_options = Field("variant=siman,pad_values=0.0")  # official code


@register
class VGGSmallMLPClassifier(resnet20.ResNet20MLPClassifier):
    """VGG-Small on CIFAR-10 with weights binarized by a small learned classifier."""

    network = Field("VGGSmall")


@register
class VGGSmallSteSign(resnet20.ResNet20SteSign):
    """VGG-Small on CIFAR-10 with Larq's straight-through estimator, the baseline."""

    network = Field("VGGSmall")
