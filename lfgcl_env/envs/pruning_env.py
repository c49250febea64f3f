"""What the environments share: the problem they are about, budgets of episodes, info, rendering."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.envs.budget_range import Budget, budget_range
from lfgcl_env.envs.rendering import picture, table
from lfgcl_env.images import TooFewImages
from lfgcl_env.images.arrays import choose
from lfgcl_env.images.calibration import MADE, default_images, load_calibration
from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.pruning.budget.tolerance import meets
from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.problem import PruningProblem

Observation = NDArray[np.float32]
Action = NDArray[np.floating[Any]]

_IMPORTED_BY = os.getpid()


class PruningEnv(gym.Env[Observation, Action]):
    """A pruning problem, and a strategy that the steps of an episode decide.

    Its arguments are explained at the environments, which have their own defaults for them.

    Attributes:
        problem: what is pruned.
        images: what calibration images were taken from; ``"given"`` for a tensor or array.
        steps_per_strategy: how many steps decide one strategy that is scored.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared so by gymnasium.Env)
        "render_modes": ["ansi", "rgb_array", "human"],
        "render_fps": 4,
    }
    steps_per_strategy = 1

    def __init__(
        self,
        network: str | nn.Module | Baseline,
        *,
        weights: str,
        images: str | Tensor | NDArray[Any] | None,
        num_images: int | None,
        budget: Budget,
        budget_metric: str,
        criterion: str,
        repair: str,
        similarity: str,
        features: Sequence[str] | None,
        scope: str,
        round_to: int,
        min_channels: int,
        seed: int,
        data_root: str | None,
        download: bool,
        device: str,
        input_shape: Sequence[int] | None,
        normalization: Sequence[Sequence[float]] | None,
        network_arguments: dict[str, Any] | None,
        render_mode: str | None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(self.metadata["render_modes"])
            raise ValueError(f"unknown render_mode {render_mode!r}: choose one of {modes}, or None")
        _leave_threads_of_parent()
        self.render_mode = render_mode
        self._budgets = budget_range(budget)
        baseline = (
            network
            if isinstance(network, Baseline)
            else load_baseline(
                network,
                weights,
                input_shape=input_shape,
                normalization=normalization,
                seed=seed,
                **(network_arguments or {}),
            )
        )
        images = default_images(baseline) if images is None else images
        self.images = images if isinstance(images, str) else "given"
        self._load = partial(
            load_calibration,
            baseline,
            images,
            seed=seed,
            root=data_root,
            download=download,
            device=device,
        )
        calibration = self._load(num_images)
        self._seed = seed
        self._made = calibration if self.images in MADE else None
        self.problem = PruningProblem(
            baseline,
            calibration,
            budget=self._budgets[0],
            budget_metric=budget_metric,
            criterion=criterion,
            repair=repair,
            similarity=similarity,
            scope=scope,
            features=features,
            round_to=round_to,
            min_channels=min_channels,
            seed=seed,
            device=device,
        )
        self._keep: NDArray[np.int64] | None = None
        self._evaluation: Evaluation | None = None
        self._window: Any = None

    @property
    def budget(self) -> float:
        """This episode's budget."""
        return self._budget if self._keep is not None else self._budgets[0]

    @property
    def budgets(self) -> tuple[float, float]:
        """The lowest and the highest budget of an episode; equal for a fixed one."""
        return self._budgets

    def other_images(self, count: int) -> Tensor | None:
        """More images from where the calibration images came from, and none of them.

        Args:
            count: how many.

        Returns:
            Normalised images (count, channels, height, width), or None if there are not so many.
        """
        used = self.problem.images
        try:
            return self._load(used + count)[used:]
        except TooFewImages:
            return None

    def repair_images(self, count: int = 1024) -> Tensor:
        """Images for sequential repair, from where the calibration images came from.

        Args:
            count: how many others than the calibration images; if there are not so many, all that
                there are, calibration images included. Of images that are made when they are asked
                for, the calibration images themselves.

        Returns:
            Normalised images (images, channels, height, width).
        """
        if self._made is not None:
            return self._made
        others = self.other_images(count)
        if others is not None:
            return others
        # All, but in the seed's order: a folder's own is often that of its classes.
        images = self._load(None)
        return images[choose(len(images), len(images), self._seed, self.images)]

    def forget(self) -> None:
        """Forget all scores, so that every strategy is an evaluation again, for the next search."""
        self.problem.forget()

    def render(self) -> Any:
        """Show the strategy at hand: a table, an RGB array, or a window.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
            ImportError: if matplotlib is needed and missing.
        """
        if self.render_mode is None:
            gym.logger.warn(
                'render() does nothing without a render mode: pass gym.make render_mode="ansi"'
            )
            return None
        if self._keep is None:
            raise gym.error.ResetNeeded("nothing to render yet: call reset() first")
        if self.render_mode == "ansi":
            return table(self.problem, self._keep, self._evaluation)
        frame = picture(self.problem, self._keep, self._evaluation)
        if self.render_mode == "rgb_array":
            return frame
        self._show(frame)
        return None

    def close(self) -> None:
        """Close the window of ``render_mode="human"``, if there is one."""
        if self._window is not None:
            from matplotlib import pyplot

            pyplot.close(self._window)
            self._window = None

    def _begin(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """Begin an episode with the unpruned network and its budget, or leave all as it was."""
        super().reset(seed=seed)
        options = dict(options or {})
        chosen = options.pop("budget", None)
        if options:
            raise ValueError(f"reset knows the option 'budget' only, got {sorted(options)}")
        low, high = self._budgets
        if chosen is not None:
            self._budget = self._check_budget(chosen)
        else:
            self._budget = low if low == high else float(self.np_random.uniform(low, high))
        self._keep = self.problem.channels.copy()
        self._evaluation = None

    def _check_budget(self, budget: float) -> float:
        """Return ``budget`` as a float, or raise ValueError if episodes cannot reach it."""
        return self.problem.check_budget(budget)

    def _show(self, frame: NDArray[np.uint8]) -> None:
        from matplotlib import pyplot

        if self._window is None:
            pyplot.ion()
            self._window = pyplot.figure("LFGCL", figsize=(8, 4.8))
            axes = self._window.add_axes((0, 0, 1, 1))
            axes.axis("off")
            self._shown = axes.imshow(frame)
        self._shown.set_data(frame)
        self._window.canvas.draw_idle()
        self._window.canvas.flush_events()

    def _info(self, similarity: float) -> dict[str, Any]:
        assert self._keep is not None
        cost, whole = self.problem.cost(self._keep), self.problem.baseline_cost
        return {
            "similarity": similarity,
            "macs": cost.macs,
            "macs_ratio": cost.macs / whole.macs,
            "params_ratio": cost.params / whole.params,
            "budget": self._budget,
            "prune_ratios": self.problem.prune_ratios(self._keep),
            "keep": self._keep.copy(),
        }

    def _meets_budget(self, info: dict[str, Any]) -> bool:
        spent = info[f"{self.problem.budget_metric}_ratio"]
        return meets(spent, self._budget)


def _leave_threads_of_parent() -> None:
    """Use one thread in a forked process, as AsyncVectorEnv starts them.

    A fork inherits OpenMP's thread pool without its threads, and waits for them forever.
    """
    if os.getpid() != _IMPORTED_BY:
        torch.set_num_threads(1)
