"""ResNet-34 on ImageNet: the settings of ResNet-18, for the papers that report it.

The released scripts of the two papers build ResNet-18 and ResNet-34 (SiMaN), or ResNet-18 alone
(binarizing by classification).
"""

from zookeeper import Field

from larq_ext_recipes import resnet18
from larq_ext_recipes._registry import register
from larq_ext_recipes.imagenet import ImageNetExperiment


@register
class ResNet34SiMaN(resnet18.ResNet18SiMaN):
    """ResNet-34 on ImageNet with the magnitude-based signs of SiMaN."""

    network = Field("ResNet34")


@register
class ResNet34MLPClassifier(resnet18.ResNet18MLPClassifier):
    """ResNet-34 on ImageNet with weights binarized by a learned classifier, distilled."""

    network = Field("ResNet34")


@register
class ResNet34SteSign(resnet18.ResNet18SteSign):
    """ResNet-34 on ImageNet with Larq's straight-through estimator, the baseline."""

    network = Field("ResNet34")


@register
class ResNet34Float(ImageNetExperiment):
    """ResNet-34 on ImageNet in floating point, the teacher of the others."""

    network = Field("ResNet34")
    quantizer = Field(None)
    optimizer = Field("sgd")  # ours, as all that follows
    learning_rate = Field(0.1)
    schedule = Field("cosine")
    weight_decay = Field(1e-4)
    decay_norm_and_bias = Field(True)
