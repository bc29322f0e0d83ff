"""Human poses on COCO: SBPN- and BHRNet-style networks and their real-valued parents.

What trains the parents is of their official code; SBPN and BHRNet are reconstructions, and their
paper's training is not known. So they have the settings of their parents, the quantizer of their
paper, and backbones trained on ImageNet first. The comments say where else a setting comes from.

In all of them: Adam without weight decay (the configurations list one, the code of the optimizer
leaves it out), 32 persons on each of 4 GPUs, boxes that are labelled, and the flip test.
"""

from zookeeper import Field

from larq_ext_recipes._pose_experiment import PoseExperiment
from larq_ext_recipes._registry import register
from larq_ext_recipes.imagenet import ImageNetExperiment


class PoseBackbone(ImageNetExperiment):
    """A classifier on ImageNet whose weights a pose network starts from, layers by name."""

    quantizer = Field(None)
    optimizer = Field("adam")  # ours, as the schedule: the parents take weights of others
    learning_rate = Field(1e-3)
    schedule = Field("linear")


class BinaryPoseBackbone(PoseBackbone):
    """Of binary ones: the settings of ResNet18MLPClassifier without its teacher."""

    quantizer = Field("mlp_classifier")
    learning_rate = Field(2.5e-3)
    quantizer_learning_rate = Field(1e-3)
    quantizer_milestones = Field((69, 89, 99, 109))
    lighting = Field(0.1)


class SimpleBaselineExperiment(PoseExperiment):
    """What the official code of Simple Baseline trains with, but RGB in the place of BGR."""

    epochs = Field(140)
    schedule = Field("step")
    milestones = Field((90, 120))
    scale = Field(0.3)
    rotation = Field(40.0)
    half_body = Field(0.0)


class HRNetExperiment(PoseExperiment):
    """What the official code of HRNet trains with."""

    epochs = Field(210)
    schedule = Field("step")
    milestones = Field((170, 200))
    scale = Field(0.35)
    rotation = Field(45.0)
    half_body = Field(0.3)


@register
class SimpleBaseline18(SimpleBaselineExperiment):
    """Simple Baseline with ResNet-18 on COCO, the real-valued parent of SBPN18."""

    network = Field("SimpleBaseline")
    quantizer = Field(None)
    network_options = Field("backbone=18")
    initial_weights = Field("runs/SimpleBaseline18Backbone")


@register
class SimpleBaseline50(SimpleBaseline18):
    """Simple Baseline with ResNet-50 on COCO, the real-valued parent of SBPN50."""

    network_options = Field("backbone=50")
    initial_weights = Field("runs/SimpleBaseline50Backbone")


@register
class SBPN18(SimpleBaselineExperiment):
    """SBPN-style binary pose network with ResNet-18 on COCO."""

    network = Field("SBPN")
    quantizer = Field("mlp_classifier")
    network_options = Field("backbone=18")
    quantizer_learning_rate = Field(1e-3)  # the paper's code, for its classifiers
    quantizer_milestones = Field((90, 120))  # ours
    initial_weights = Field("runs/ResNet18MLPClassifier")


@register
class SBPN34(SBPN18):
    """SBPN-style binary pose network with ResNet-34 on COCO."""

    network_options = Field("backbone=34")
    initial_weights = Field("runs/ResNet34MLPClassifier")


@register
class SBPN50(SBPN18):
    """SBPN-style binary pose network with ResNet-50 on COCO."""

    network_options = Field("backbone=50")
    initial_weights = Field("runs/SBPN50Backbone")


@register
class HRNetW32(HRNetExperiment):
    """HRNet-W32 on COCO, the real-valued parent of BHRNetW32."""

    network = Field("HRNet")
    quantizer = Field(None)
    network_options = Field("width=32")
    initial_weights = Field("runs/HRNetW32Backbone")


@register
class BHRNetW32(HRNetExperiment):
    """BHRNet-style binary pose network of width 32 on COCO, all but stem and last layer binary."""

    network = Field("BHRNet")
    quantizer = Field("mlp_classifier")
    network_options = Field("width=32,budget=E")
    quantizer_learning_rate = Field(1e-3)  # the paper's code, for its classifiers
    quantizer_milestones = Field((170, 200))  # ours
    initial_weights = Field("runs/BHRNetW32Backbone")


@register
class SimpleBaseline18Backbone(PoseBackbone):
    """ResNet-18 on ImageNet, the backbone of SimpleBaseline18."""

    network = Field("SimpleBaseline")
    network_options = Field("backbone=18")


@register
class SimpleBaseline50Backbone(PoseBackbone):
    """ResNet-50 on ImageNet, the backbone of SimpleBaseline50."""

    network = Field("SimpleBaseline")
    network_options = Field("backbone=50")


@register
class SBPN50Backbone(BinaryPoseBackbone):
    """Binary ResNet-50 on ImageNet, the backbone of SBPN50."""

    network = Field("SBPN")
    network_options = Field("backbone=50")


@register
class HRNetW32Backbone(PoseBackbone):
    """HRNet-W32 as a classifier on ImageNet, the backbone of HRNetW32."""

    network = Field("HRNet")
    network_options = Field("width=32")


@register
class BHRNetW32Backbone(BinaryPoseBackbone):
    """BHRNet-W32 as a classifier on ImageNet, the backbone of BHRNetW32."""

    network = Field("BHRNet")
    network_options = Field("width=32,budget=E")
