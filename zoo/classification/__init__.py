"""Networks for image classification."""

from larq_ext_zoo.classification.alexnet import AlexNet
from larq_ext_zoo.classification.digits import DigitsNet
from larq_ext_zoo.classification.resnet import ResNet18Cifar, ResNet20
from larq_ext_zoo.classification.resnet_imagenet import ResNet18, ResNet34
from larq_ext_zoo.classification.vgg import VGGSmall

__all__ = [
    "AlexNet",
    "DigitsNet",
    "ResNet18",
    "ResNet18Cifar",
    "ResNet20",
    "ResNet34",
    "VGGSmall",
]
