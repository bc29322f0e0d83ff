"""The 17 keypoints of a person in COCO: names, mirror partners, tolerances and limbs."""

from __future__ import annotations

import numpy as np

_PAIRED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
KEYPOINTS: tuple[str, ...] = (
    "nose",
    *(f"{side}_{part}" for part in _PAIRED for side in ("left", "right")),
)
# A mirrored left wrist is a right one.
FLIP_PAIRS: tuple[tuple[int, int], ...] = tuple((left, left + 1) for left in range(1, 17, 2))
FLIPPED: np.ndarray = np.array([0, *(index for pair in FLIP_PAIRS for index in pair[::-1])])
UPPER_BODY = 11  # the keypoints before this one, nose to wrists
# How far persons who label disagree, as a share of the square root of the person's area.
SIGMAS: np.ndarray = (
    np.array(
        [0.26]
        + [sigma for sigma in (0.25, 0.35, 0.79, 0.72, 0.62, 1.07, 0.87, 0.89) for _ in range(2)]
    )
    / 10
)
# COCO's skeleton, by the part of the body that a colour stands for.
LIMBS: dict[str, tuple[tuple[int, int], ...]] = {
    "head": ((0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    "torso": ((5, 6), (5, 11), (6, 12), (11, 12)),
    "left": ((5, 7), (7, 9), (11, 13), (13, 15)),
    "right": ((6, 8), (8, 10), (12, 14), (14, 16)),
}
