"""VGG-Small on CIFAR-10: the settings of ResNet-20, method by method.

The papers give one set of CIFAR-10 settings for both networks, and what is ours in
`larq_ext_recipes.resnet20` is kept here, so that the methods can be compared.
"""

import dataclasses

from larq_ext_recipes import resnet20
from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._registry import register


def _with_vgg_small(experiment: Experiment) -> Experiment:
    return register(
        dataclasses.replace(
            experiment,
            name=experiment.name.replace("ResNet20", "VGGSmall"),
            description=experiment.description.replace("ResNet-20", "VGG-Small"),
            network="VGGSmall",
        )
    )


VGGSmallFDA = _with_vgg_small(resnet20.ResNet20FDA)
VGGSmallLearnableScale = _with_vgg_small(resnet20.ResNet20LearnableScale)
VGGSmallSiMaN = _with_vgg_small(resnet20.ResNet20SiMaN)
VGGSmallMLPClassifier = _with_vgg_small(resnet20.ResNet20MLPClassifier)
VGGSmallSteSign = _with_vgg_small(resnet20.ResNet20SteSign)
