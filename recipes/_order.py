"""Which images of an epoch come in which batch, on which worker and replica."""

from __future__ import annotations

import numpy as np

from larq_ext_recipes._errors import UsageError

NOBODY = -1  # fills rows of batches that have fewer images than others


def batch_positions(
    size: int,
    batch_size: int,
    *,
    shard: tuple[int, int] = (0, 1),
    replicas: int = 1,
    keep_all: bool = False,
) -> np.ndarray:
    """Splits the positions of an epoch into one worker's batches.

    All workers together have exactly the batches of one process: of every global batch, worker
    and replica each have one contiguous part, and the parts differ by one image at most. So
    they do in the last, smaller batch of an epoch. If that has fewer images than there are parts,
    nobody could give all parts an image and nobody has that step; with `keep_all` its images join
    the batch before.

    # Arguments
        size: Images in the epoch.
        batch_size: Images in a global batch.
        shard: This worker's index, and the number of workers.
        replicas: Replicas of each worker.
        keep_all: Whether no image may be left out.

    # Returns
        Positions int64 `(steps, replicas, images)`; rows with fewer images end in `NOBODY`.

    # Raises
        UsageError: if there is no such shard, or a part would have no image.
    """
    index, count = shard
    if not 0 <= index < count or replicas < 1:
        raise UsageError(
            f"shard must be (index, count) with 0 <= index < count and replicas 1 or more, "
            f"received shard={shard}, replicas={replicas}."
        )
    parts = count * replicas
    if min(batch_size, size) < parts:
        raise UsageError(
            f"batch_size={batch_size} of {size} images cannot be shared by {count} workers with "
            f"{replicas} replicas each: both numbers must be {parts} or more."
        )
    starts = np.arange(0, size, batch_size)
    if size - starts[-1] < parts:
        size, starts = (size if keep_all else starts[-1]), starts[:-1]
    lengths = np.diff(starts, append=size)
    edges = starts[:, None] + np.arange(parts + 1) * lengths[:, None] // parts
    edges = edges[:, index * replicas : (index + 1) * replicas + 1]
    width = np.diff(edges).max()
    positions = edges[:, :-1, None] + np.arange(width)
    return np.where(positions < edges[:, 1:, None], positions, NOBODY)
