"""Images for calibration, scores, repair and judging, of which none is used for two of these."""

import math
import os
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.edge.value_checks import check_count
from lfgcl_env.images.arrays import TooFewImages, choose
from lfgcl_env.images.calibration import MADE, load_calibration
from lfgcl_env.images.views import make_views
from lfgcl_env.networks.baseline import Baseline
from lfgcl_env.networks.several_inputs import Several

REPAIR_IMAGES = 4096
"""Images that the network that is handed over is repaired on, where there are so many."""

REPAIR_NUMBERS = 2**24
"""Numbers in these images, beyond which there are fewer images: 5,461 CIFAR images."""

FEWEST_REPAIR_IMAGES = 1024
"""Images that it is repaired on, however large they are."""

JUDGE_IMAGES = 2048
"""Images that finished networks are compared on, where there are so many."""

VIEWS = 4
"""Views of an image where there are too few images; for repair the image itself is one."""


class ImageSource:
    """The images of one source, in an order that the seed decides.

    Args:
        baseline: the network that they are for.
        images: as environments take them.
        calibration: how many are for calibration; None for all of them.
        seed: of their order, and of views.
        root: folder of data sets.
        download: whether to fetch missing data.
        device: where they are put.

    Attributes:
        name: of the source; ``"given"`` for a tensor or array.
        calibration: normalised images, (images, channels, height, width).

    Raises:
        ValueError: if the images do not fit, or there are too few.
        FileNotFoundError: if they are missing.
    """

    def __init__(
        self,
        baseline: Baseline,
        images: str | os.PathLike[str] | Tensor | NDArray[Any] | Several,
        calibration: int | None,
        *,
        seed: int,
        root: str | os.PathLike[str] | None,
        download: bool,
        device: str,
    ) -> None:
        self._shape, self._seed = baseline.input_shape, seed
        self.name = images if isinstance(images, str) else "given"
        self._load = partial(
            load_calibration,
            baseline,
            images,
            seed=seed,
            root=root,
            download=download,
            device=device,
        )
        self.calibration = self._load(calibration)
        self._made = self.calibration if self.name in MADE else None
        self._used = len(self.calibration)

    def for_scores(self, count: int) -> Tensor | None:
        """Return others to score on, or views; None for the images of calibration."""
        if not count:
            return None
        others = self._unless_made(count)
        if others is None:
            return make_views(self.calibration, count, self._seed + 2)
        self._used += count
        return others

    def others(self, count: int, *, after: int = 0) -> Tensor | None:
        """Return images that neither calibration nor scores use; None if there are not so many.

        Args:
            count: how many.
            after: how many such images to leave out first.
        """
        check_count(count, "the number of images")
        used = self._used + after
        try:
            return self._load(used + count)[used:]
        except TooFewImages:
            return None

    def for_repair(self, count: int | None) -> Tensor:
        """Return images for the repair of a network that is handed over.

        Args:
            count: how many that neither scores nor :meth:`for_judging` use; None for 4,096, or
                fewer large ones. If there are fewer, or the images were made for the purpose, they
                are all images of the source that are not to be judged on and views of them, at most
                four for each image.
        """
        if count is None:
            fitting = REPAIR_NUMBERS // math.prod(self._shape)
            count = min(max(fitting, FEWEST_REPAIR_IMAGES), REPAIR_IMAGES)
        count = check_count(count, "the number of images")
        others = self._unless_made(count, after=JUDGE_IMAGES)
        if others is not None:
            return others
        judged = 0 if self._unless_made(JUDGE_IMAGES) is None else JUDGE_IMAGES
        if not judged and (others := self._unless_made(count)) is not None:
            return others
        images = self._all()
        images = torch.cat([images[: self._used], images[self._used + judged :]])
        more = min(count, VIEWS * len(images)) - len(images)
        if more <= 0:
            return images
        return torch.cat([images, make_views(images, more, self._seed)])

    def for_judging(self, count: int = JUDGE_IMAGES) -> Tensor:
        """Return images that neither scores nor :meth:`for_repair` use.

        Args:
            count: how many, at most 2,048. If there are fewer than 2,048, they are views of all
                images of the source, at most four for each.
        """
        count = min(check_count(count, "the number of images"), JUDGE_IMAGES)
        others = self._unless_made(JUDGE_IMAGES)
        if others is not None:
            return others[:count]
        images = self._all()
        return make_views(images, min(count, VIEWS * len(images)), self._seed + 1)

    def _all(self) -> Tensor:
        """Return all images of the source, in the seed's order: folders are sorted by class."""
        if self._made is not None:
            return self._made
        images = self._load(None)
        return images[choose(len(images), len(images), self._seed, self.name)]

    def _unless_made(self, count: int, *, after: int = 0) -> Tensor | None:
        """Return images that nothing has used; None where there are too few, or all are made."""
        return None if self._made is not None else self.others(count, after=after)
