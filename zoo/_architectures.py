"""The architectures of the zoo, and the papers of the methods they are binarized with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from larq_ext_zoo._entry import Paper

PAPERS = {
    "fda": Paper(
        "Learning Frequency Domain Approximation for Binary Neural Networks", "2103.00841"
    ),
    "learnable_scale": Paper(
        "Accurate and Compact Convolutional Neural Networks with Trained Binarization",
        "1909.11366",
    ),
    "siman": Paper("SiMaN: Sign-to-Magnitude Network Binarization", "2102.07981"),
    "mlp_classifier": Paper(
        "Binarizing by Classification: Is soft function really necessary?", "2205.07433"
    ),
    "ste_sign": Paper(
        "Bi-Real Net: Enhancing the Performance of 1-bit CNNs With Improved Representational "
        "Capability and Advanced Training Algorithm",
        "1808.00278",
    ),
}
# What `variant=` of a network may name: the blocks of a method's paper, or of another one.
VARIANT_PAPERS = {
    **PAPERS,
    "reactnet": Paper(
        "ReActNet: Towards Precise Binary Neural Network with Generalized Activation Functions",
        "2003.03488",
    ),
}
_SIMPLE_BASELINE = Paper("Simple Baselines for Human Pose Estimation and Tracking", "1804.06208")
_HRNET = Paper(
    "Deep High-Resolution Representation Learning for Human Pose Estimation", "1902.09212"
)


@dataclass(frozen=True)
class Architecture:
    """What the first part of a name stands for.

    # Arguments
        network: Name of the function that makes the network.
        data: The data set that the network is for.
        arguments: What the function is called with.
        paper: The paper of a real-valued network, whose only tag without training is `"float"`;
            `None` for networks that are binarized with any method.
    """

    network: str
    data: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    paper: Paper | None = None

    @property
    def papers(self) -> Mapping[str, Paper]:
        """The second parts of the names without training, with their papers."""
        return {"float": self.paper} if self.paper else PAPERS


ARCHITECTURES = {
    "alexnet": Architecture("AlexNet", "imagenet"),
    "digits_net": Architecture("DigitsNet", "digits"),
    "resnet18": Architecture("ResNet18", "imagenet"),
    "resnet18_cifar": Architecture("ResNet18Cifar", "cifar10"),
    "resnet20": Architecture("ResNet20", "cifar10"),
    "resnet34": Architecture("ResNet34", "imagenet"),
    "vgg_small": Architecture("VGGSmall", "cifar10"),
    **{
        f"sbpn{depth}": Architecture("SBPN", "coco_keypoints", {"backbone": depth})
        for depth in (18, 34, 50)
    },
    **{
        f"bhrnet_w{width}": Architecture("BHRNet", "coco_keypoints", {"width": width})
        for width in (16, 24, 32)
    },
    **{
        f"simple_baseline{depth}": Architecture(
            "SimpleBaseline", "coco_keypoints", {"backbone": depth}, _SIMPLE_BASELINE
        )
        for depth in (18, 34, 50, 101, 152)
    },
    **{
        f"hrnet_w{width}": Architecture("HRNet", "coco_keypoints", {"width": width}, _HRNET)
        for width in (16, 24, 32, 48)
    },
}
