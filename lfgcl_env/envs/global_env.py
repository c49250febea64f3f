"""The global environment: one action decides the prune ratios of all layers at once."""

import math
import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.envs.embedding import Embedding
from lfgcl_env.envs.rendering import picture, table
from lfgcl_env.images import TooFewImages, load_images
from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.problem import PruningProblem

Budget = float | Sequence[float]
Observation = NDArray[np.float32]

_IMPORTED_BY = os.getpid()


class LFGCLEnv(gym.Env[Observation, NDArray[np.floating[Any]]]):
    """Prune a trained network to a budget by choosing all layers' prune ratios at once.

    ## Description

    The environment holds a trained network (the *baseline*) and unlabelled images. An action asks
    for a prune ratio in every group of channels; it is projected onto the budget, the network is
    cut accordingly, and the reward is how similar the cut network's features are to the
    baseline's. No label is ever seen, and nothing is trained.

    It follows LFGCL (Liu, Du, Yu, Song: *Label-Free Network Pruning via Reinforcement Learning*,
    Pattern Recognition and Artificial Intelligence 34(3), 2021), whose abstract fixes the global
    decision, the label-free reward and DDPG. What it leaves open is decided here: the embedding,
    the projection onto the budget, the repair before scoring, and the similarity.

    ## Action space

    `Box(0, 1, (groups,), float32)`: the fraction of channels to remove from every group. All ratios
    are shifted together onto the budget, never above it (see `PruningProblem.project`), so what
    counts is how they differ from each other. `info["prune_ratios"]` holds the executed ones.

    ## Observation space

    `Box(-1, 1, (groups, features), float32)`: one embedding row per group. Its columns
    (`lfgcl_env.envs.embedding.FEATURES`) are scaled from fixed ranges, so that they mean the same
    for every network:

    | columns | meaning |
    |---|---|
    | 0 | position of the group in the network |
    | 1-3 | kind: convolution, depthwise follows, coupled by an addition |
    | 4-9 | channels, inputs (log2), kernels of producer and consumer, stride, resolution (log2) |
    | 10-12 | share of MACs, share of parameters, MACs saved by halving the group alone |
    | 13-15 | spread, lowest and highest of the filters' L1 norms |
    | 16-18 | measured sensitivity: error of the consumers with 75, 50 and 25 % of channels kept |
    | 19-20 | keep ratio of the group and cost ratio of the network at the moment |
    | 21 | budget |

    ## Reward

    The similarity of the cut network's features to the baseline's, at most 1. With `horizon > 1`
    rewards are gains: the first step gives the similarity, each later one its change, so that
    they sum to the last similarity.

    ## Starting state

    The unpruned network. `reset(options={"budget": b})` sets this episode's budget; otherwise it is
    the `budget` argument, drawn uniformly from `np_random` if that is a range.

    ## Episode end

    `terminated` after `horizon` steps; never truncated.

    ## Info

    After every step plain numbers and NumPy arrays: `similarity`, `macs`, `macs_ratio`,
    `params_ratio`, `budget`, `prune_ratios` (float64, (groups,)), `channels` (kept; int64,
    (groups,)), `is_success` (whether the budget was met). `reset` returns the same for the unpruned
    network, less `is_success`. `env.unwrapped.problem` counts the distinct strategies scored
    (`problem.evaluations`), compresses (`problem.compress(info["channels"])`) and saves.

    ## Arguments

    ```python
    >>> import gymnasium as gym, lfgcl_env
    >>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=4)
    >>> env.action_space.shape, env.observation_space.shape
    ((9,), (9, 22))

    ```

    | argument | default | meaning |
    |---|---|---|
    | `network` | from the id | name, `"torchvision:NAME"`, `"package.module:function"`, module |
    | `weights` | `"published"` | `"published"`, `"random"`, or the path of a state dict |
    | `images` | `"CIFAR10"` | also `"CIFAR100"`, a folder, a tensor, an array, `"random"` (noise) |
    | `num_images` | 256 | how many calibration images |
    | `budget` | 0.5 | fraction of the baseline's cost that may remain, or a range `(low, high)` |
    | `budget_metric` | `"macs"` | `"macs"` or `"params"` |
    | `criterion` | `"obs"` | channel order: `obs l1 l2 fpgm bn_scale thinet hrank random` |
    | `repair` | `"least_squares"` | also `"batchnorm"`, `"none"`; before scoring |
    | `similarity` | `"mse"` | also `"cosine"`, `"cka"`, `"kl"`, `"agreement"` |
    | `features` | None | modules to compare at; None: the classifier's input |
    | `scope` | `"inner"` | `"all"` also prunes groups coupled by additions |
    | `horizon` | 1 | steps per episode |
    | `round_to` | 1 | kept counts are multiples of it |
    | `min_channels` | 1 | fewest channels that stay in a group |
    | `seed` | 0 | of the choice of images and of random weights and orders |
    | `data_root` | None | folder of data sets; else `LFGCL_DATA`, else `~/.cache/lfgcl/data` |
    | `download` | False | fetch a missing data set |
    | `device` | `"cpu"` | where candidates run |
    | `input_shape` | None | (channels, height, width), for networks that do not come with one |
    | `normalization` | None | `(mean, std)` of inputs, for networks that do not come with one |
    | `network_arguments` | None | keyword arguments of the network's builder |
    | `render_mode` | None | `"ansi"`, `"rgb_array"` or `"human"` |

    ## Version history

    * v0: first version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared so by gymnasium.Env)
        "render_modes": ["ansi", "rgb_array", "human"],
        "render_fps": 4,
    }

    def __init__(
        self,
        network: str | nn.Module | Baseline = "resnet56",
        *,
        weights: str = "published",
        images: str | Tensor | NDArray[Any] = "CIFAR10",
        num_images: int | None = 256,
        budget: Budget = 0.5,
        budget_metric: str = "macs",
        criterion: str = "obs",
        repair: str = "least_squares",
        similarity: str = "mse",
        features: Sequence[str] | None = None,
        scope: str = "inner",
        horizon: int = 1,
        round_to: int = 1,
        min_channels: int = 1,
        seed: int = 0,
        data_root: str | None = None,
        download: bool = False,
        device: str = "cpu",
        input_shape: Sequence[int] | None = None,
        normalization: Sequence[Sequence[float]] | None = None,
        network_arguments: dict[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not isinstance(horizon, int) or isinstance(horizon, bool) or horizon < 1:
            raise ValueError(f"horizon must be a whole number of at least 1, got {horizon!r}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(self.metadata["render_modes"])
            raise ValueError(f"unknown render_mode {render_mode!r}: choose one of {modes}, or None")
        _leave_threads_of_parent()
        self.render_mode = render_mode
        self.horizon = horizon
        self._budgets = _budget_range(budget)
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
        self._load = partial(
            load_calibration, baseline, images, seed=seed, root=data_root, download=download
        )
        calibration = self._load(num_images)
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
        self._embedding = Embedding(self.problem)
        groups = len(self.problem.groups)
        self.action_space = gym.spaces.Box(0.0, 1.0, (groups,), np.float32)
        self.observation_space = gym.spaces.Box(-1.0, 1.0, self._embedding.shape, np.float32)
        self._keep: NDArray[np.int64] | None = None
        self._evaluation: Evaluation | None = None
        self._window: Any = None

    @property
    def budget(self) -> float:
        """This episode's budget."""
        return self._budget if self._keep is not None else self._budgets[0]

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

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode from the unpruned network.

        Args:
            seed: see Gymnasium.
            options: ``{"budget": b}`` sets this episode's budget.

        Raises:
            ValueError: for other options, or a budget that cannot be reached.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        chosen = options.pop("budget", None)
        if options:
            raise ValueError(f"reset knows the option 'budget' only, got {sorted(options)}")
        low, high = self._budgets
        if chosen is not None:
            self._budget = self.problem.check_budget(chosen)
        else:
            self._budget = low if low == high else float(self.np_random.uniform(low, high))
        self._keep = self.problem.channels.copy()
        self._evaluation = None
        self._steps = 0
        self._last_similarity = 0.0
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info(1.0)

    def step(
        self, action: NDArray[np.floating[Any]]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Prune to the budget by the ratios asked for, and score the result.

        Args:
            action: prune ratios in [0, 1]; (groups,).

        Raises:
            ValueError: for a wrong shape, NaN, or entries outside [0, 1].
            gymnasium.error.ResetNeeded: before the first reset and after an episode's end.
        """
        if self._keep is None or self._steps >= self.horizon:
            raise gym.error.ResetNeeded("the episode is over or has not begun: call reset() first")
        self._keep = self.problem.project(action, self._budget)
        self._evaluation = self.problem.evaluate(self._keep)
        self._steps += 1
        similarity = self._evaluation.similarity
        reward = similarity - self._last_similarity
        self._last_similarity = similarity
        info = self._info(similarity)
        metric = self.problem.budget_metric
        spent = getattr(self._evaluation, f"{metric}_ratio")
        info["is_success"] = bool(spent <= self._budget * (1 + 1e-12))
        if self.render_mode == "human":
            self.render()
        return self._observation(), float(reward), self._steps >= self.horizon, False, info

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

    def _observation(self) -> Observation:
        assert self._keep is not None
        return self._embedding(self._keep, self._budget)

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
            "channels": self._keep.copy(),
        }


def _leave_threads_of_parent() -> None:
    """Use one thread in a forked process, as AsyncVectorEnv starts them.

    A fork inherits OpenMP's thread pool without its threads, and waits for them forever.
    """
    if os.getpid() != _IMPORTED_BY:
        torch.set_num_threads(1)


def load_calibration(
    baseline: Baseline,
    images: str | Tensor | NDArray[Any],
    count: int | None,
    *,
    seed: int,
    root: str | None,
    download: bool,
) -> Tensor:
    """Calibration images for a baseline, normalised as it expects; ``"random"`` gives noise.

    Raises:
        ValueError, FileNotFoundError, OSError: see :func:`lfgcl_env.images.load_images`.
    """
    if isinstance(images, str) and images == "random":
        count = 256 if count is None else count
        if count < 2:
            raise ValueError(f"at least 2 calibration images are needed, got {count}")
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, *baseline.input_shape, generator=generator)
    if baseline.normalization is None and (
        isinstance(images, str) or images.dtype in (torch.uint8, np.dtype(np.uint8))
    ):
        warnings.warn(
            "how this network's inputs are normalised is not known, so that pixels are only scaled "
            "to [0, 1]: give normalization=((mean, ...), (std, ...)) unless that is right",
            stacklevel=2,
        )
    return load_images(
        images,
        count,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
        seed=seed,
        root=root,
        download=download,
    )


def _budget_range(budget: Budget) -> tuple[float, float]:
    """The lowest and highest budget of an episode; the problem checks that they can be reached."""
    if isinstance(budget, Sequence) and not isinstance(budget, str):
        if len(budget) != 2 or not all(_is_number(b) for b in budget) or budget[0] > budget[1]:
            raise ValueError(f"a range of budgets is (low, high) with low <= high, got {budget!r}")
        if not 0 < budget[0] <= budget[1] <= 1:
            raise ValueError(f"budgets lie above 0 and at most at 1, got {budget!r}")
        return float(budget[0]), float(budget[1])
    if not _is_number(budget):
        raise ValueError(f"budget must be a number or a range (low, high), got {budget!r}")
    return float(budget), float(budget)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(float(value))
