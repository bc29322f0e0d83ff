"""Networks for human poses: heatmaps of keypoints from the picture of one person."""

from larq_ext_zoo.pose.bhrnet import BHRNet
from larq_ext_zoo.pose.hrnet import HRNet
from larq_ext_zoo.pose.sbpn import SBPN
from larq_ext_zoo.pose.simple_baseline import SimpleBaseline

__all__ = ["SBPN", "BHRNet", "HRNet", "SimpleBaseline"]
