"""Networks for image classification."""

from larq_ext_zoo.classification.digits import DigitsNet
from larq_ext_zoo.classification.resnet import ResNet20
from larq_ext_zoo.classification.vgg import VGGSmall

__all__ = ["DigitsNet", "ResNet20", "VGGSmall"]
