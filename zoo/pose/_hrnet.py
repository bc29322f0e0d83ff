"""The body of a high-resolution network: branches of several sizes that are merged repeatedly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.pose import _common as pose
from larq_ext_zoo.pose._units import Units

# The groups of convolutions that a budget makes binary or leaves real.
GROUPS = ("branches", "fuse", "transitions", "transition1", "layer1", "projection")


class HighResolution:
    """Makes the parts of a high-resolution network.

    # Arguments
        units: Makes the units.
        width: Channels of the largest branch, doubled in each smaller one.
        blocks: How many blocks of two convolutions a branch has in a module.
        binary: The groups of `GROUPS` whose convolutions are binary.
    """

    def __init__(self, units: Units, width: int, blocks: int, binary: frozenset[str]):
        if blocks < 1:
            raise ValueError(f"`blocks` is an integer from 1, received {blocks!r}.")
        self.units, self.width, self._blocks, self._binary = units, width, blocks, binary

    def unit(self, group: str) -> Callable:
        """What makes the units of a group."""
        return self.units.binary if group in self._binary else self.units.real

    def body(self, image, stem_filters: int, layer1: Callable, modules: Sequence[int]) -> list:
        """The maps of all branches behind the last module, of which only the largest is merged.

        # Arguments
            image: The input.
            stem_filters: Channels of the stem.
            layer1: What stands between the stem and the branches, from a map to a map.
            modules: Modules with two branches, with three and so on.
        """
        x = self.units.real(image, stem_filters, 3, 2, name="stem1")
        x = layer1(self.units.real(x, stem_filters, 3, 2, name="stem2"))
        maps = [self._start("transition1", x, branch, 1 + branch) for branch in (0, 1)]
        for stage, count in enumerate(modules, start=2):
            if stage > 2:
                maps.append(self._start("transitions", maps[-1], stage - 1, 2))
            for module in range(1, count + 1):
                name = f"stage{stage}_module{module}"
                maps = [
                    self._branch(x, f"{name}_branch{branch}")
                    for branch, x in enumerate(maps, start=1)
                ]
                is_last = stage == len(modules) + 1 and module == count
                merged = [self._merge(maps, i, name) for i in range(1 if is_last else len(maps))]
                maps = merged + maps[len(merged) :]
        return maps

    def _start(self, group: str, x, branch: int, strides: int):
        """The first map of a branch."""
        name = f"transition{max(branch, 1)}_branch{branch + 1}"
        filters = self.width * 2**branch
        if group not in self._binary:
            return self.units.real(x, filters, 3, strides, name=name)
        x = self.units.binary(x, filters, 3, strides, name=name, activated=False)
        return self._balanced(x, name)

    def _balanced(self, x, name: str):
        """A norm and the activation.

        Nothing else brings values back that shortcuts and PReLUs have moved up, and without it
        all signs of the fourth stage are +1 at first.
        """
        return self.units.activate(common.norm(x, f"{name}_balance"), name)

    def _branch(self, x, name: str):
        for block in range(self._blocks):
            x = self._block(x, [f"{name}_unit{2 * block + unit}" for unit in (1, 2)])
        return x

    def _block(self, x, names: Sequence[str]):
        """Two 3x3 convolutions: real ones with a shortcut around both, binary ones each."""
        unit, filters = self.unit("branches"), x.shape[-1]
        shortcut = None if "branches" in self._binary else x
        y = unit(x, filters, name=names[0])
        return unit(y, filters, name=names[1], shortcut=shortcut)

    def _merge(self, maps: Sequence, target: int, module: str):
        """The sum of all branches, brought to the size and the width of one of them."""
        name = f"{module}_fuse{target + 1}"
        terms = []
        for source, x in enumerate(maps):
            part = f"{name}_from{source + 1}"
            if source > target:
                x = self._up(x, self.width * 2**target, 2 ** (source - target), part)
            elif source < target:
                x = self._down(x, target, target - source, part)
            terms.append(x)
        merged = tf.keras.layers.Add(name=f"{name}_add")(terms)
        return (self._balanced if self._binary else self.units.activate)(merged, name)

    def _up(self, x, filters: int, factor: int, name: str):
        x = self.unit("fuse")(x, filters, 1, name=name, activated=False)
        return pose.upsample(x, factor, f"{name}_upsample")

    def _down(self, x, target: int, steps: int, name: str):
        """3x3 convolutions of stride 2; the last has the width of the target."""
        for step in range(1, steps + 1):
            last = step == steps
            filters = self.width * 2**target if last else x.shape[-1]
            unit_name = f"{name}_step{step}"
            x = self.unit("fuse")(x, filters, 3, 2, name=unit_name, activated=not last)
        return x


def check_modules(modules: Sequence[int]) -> None:
    """Whether there are two to four branches.

    # Raises
        ValueError: if there are not.
    """
    if not 1 <= len(modules) <= 3 or any(count < 1 for count in modules):
        raise ValueError(
            "`modules` is how many modules have two branches, three and four, such as (1, 4, 3), "
            f"each at least 1 and none left out but at the end, received {modules!r}."
        )


def finish(
    image, maps: Sequence, name: str, weights, *, num_keypoints: int, num_classes: int | None
) -> tf.keras.Model:
    """The model: heatmaps of the largest branch, or a classifier that sees all branches."""
    x = pose.ending(maps[0], maps, num_keypoints=num_keypoints, num_classes=num_classes)
    return common.finish(image, x, name, weights)
