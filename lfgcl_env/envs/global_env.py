"""The global environment: one action decides the prune ratios of all layers at once."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.envs.budget_range import Budget
from lfgcl_env.envs.embedding import Embedding
from lfgcl_env.envs.pruning_env import Action, Observation, PruningEnv
from lfgcl_env.networks import Baseline


class LFGCLEnv(PruningEnv):
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
    `params_ratio`, `budget`, `prune_ratios` (float64, (groups,)), `keep` (channels kept; int64,
    (groups,)), `is_success` (whether the budget was met). `reset` returns the same for the unpruned
    network, less `is_success`. `env.unwrapped.problem` counts the distinct strategies scored
    (`problem.evaluations`), compresses (`problem.compress(info["keep"])`) and saves.

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
    | `weights` | from the id | `"published"`, `"random"`, the path of a state dict, or |
    | | | `"embedded"`: from the package, the default of the ids of ResNet-20 and ResNet-56 |
    | `images` | None | `"CIFAR10"`, `"CIFAR100"`, a folder, an image sheet, a tensor, an array, |
    | | | `"synthetic"` (from the network alone), `"embedded"`, `"random"` (noise); None: |
    | | | `"embedded"` for embedded weights, else `"CIFAR10"` |
    | `num_images` | 256 | how many calibration images |
    | `budget` | 0.5 | fraction of the baseline's cost that may remain, or a range `(low, high)` |
    | `budget_metric` | `"macs"` | `"macs"` or `"params"` |
    | `criterion` | `"obs"` | channel order: `obs l1 l2 fpgm bn_scale thinet hrank random` |
    | `repair` | `"least_squares"` | also `"batchnorm"`, `"none"`; before scoring |
    | `similarity` | `"discounted_mse"` | also `"mse"`, `"cosine"`, `"cka"`, `"kl"`, `"agreement"` |
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

    def __init__(
        self,
        network: str | nn.Module | Baseline = "resnet56",
        *,
        weights: str = "published",
        images: str | Tensor | NDArray[Any] | None = None,
        num_images: int | None = 256,
        budget: Budget = 0.5,
        budget_metric: str = "macs",
        criterion: str = "obs",
        repair: str = "least_squares",
        similarity: str = "discounted_mse",
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
        super().__init__(
            network,
            weights=weights,
            images=images,
            num_images=num_images,
            budget=budget,
            budget_metric=budget_metric,
            criterion=criterion,
            repair=repair,
            similarity=similarity,
            features=features,
            scope=scope,
            round_to=round_to,
            min_channels=min_channels,
            seed=seed,
            data_root=data_root,
            download=download,
            device=device,
            input_shape=input_shape,
            normalization=normalization,
            network_arguments=network_arguments,
            render_mode=render_mode,
        )
        self.horizon = horizon
        self._embedding = Embedding(self.problem)
        groups = len(self.problem.groups)
        self.action_space = gym.spaces.Box(0.0, 1.0, (groups,), np.float32)
        self.observation_space = gym.spaces.Box(-1.0, 1.0, self._embedding.shape, np.float32)

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
        self._begin(seed, options)
        self._steps = 0
        self._last_similarity = 0.0
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info(1.0)

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
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
        info["is_success"] = self._meets_budget(info)
        if self.render_mode == "human":
            self.render()
        return self._observation(), float(reward), self._steps >= self.horizon, False, info

    def _observation(self) -> Observation:
        assert self._keep is not None
        return self._embedding(self._keep, self._budget)
