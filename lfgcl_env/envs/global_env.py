"""The global environment: one action decides the prune ratios of all layers at once."""

from typing import Any, Unpack

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lfgcl_env.config import GlobalConfig, complete, documented
from lfgcl_env.envs.embedding import Embedding
from lfgcl_env.envs.pruning_env import PruningEnv
from lfgcl_env.envs.scoring_ahead import Action, Observation
from lfgcl_env.pruning.registries import CHOICES


@documented(GlobalConfig, CHOICES)
class LFGCLEnv(PruningEnv):
    """Prune a trained network to a budget by choosing all layers' prune ratios at once.

    ## Description

    The environment holds a trained network (the *baseline*) and unlabelled images. An action asks
    for a prune ratio in every group of channels; it is projected onto the budget, the network is
    pruned accordingly, and the reward is how similar the pruned network stays to the baseline. By
    default no label is used, and nothing is trained.

    Any network that takes and returns one tensor or several will do, such as a classifier, a
    segmentation network or one with several heads; what is compared of them is described in
    docs/own_network.md.

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

    The score of the pruned network, by the argument `reward`:

    | `reward` | score |
    |---|---|
    | `"similarity"` | similarity to the baseline on the score images, at most 1: of outputs after |
    | | sequential repair, else of what the layers read that feed the outputs (`similarity`) |
    | `"accuracy"` | top-1 in [0, 1] on `num_labelled` training images that are no calibration |
    | | images (the baseline was trained on them), or on `labelled` |
    | your own | of a function `(network, images) -> float`, higher is better, or its name |
    | | `"module:function"`; it gets the pruned and repaired network and the calibration images |

    With `horizon > 1` rewards are gains: the first step gives the score, each later one its change,
    so that they sum to the last score.

    The reward is all that agents and searches learn from: a wrapper that changes it
    (`gymnasium.wrappers.TransformReward`) changes what is found.

    After `repair="sequential"` a step takes about eight times as long, and says more about the
    network that is delivered. `env.unwrapped.screen(actions)` then gives cheap scores of actions
    (strategies, groups), by which an agent may choose what to execute; `env.unwrapped.screens` says
    whether they are much cheaper than a step.

    ## Starting state

    The unpruned network. `reset(options={"budget": b})` sets this episode's budget; otherwise it is
    the `budget` argument, drawn uniformly from `np_random` if that is a range.

    ## Episode end

    `terminated` after `horizon` steps; never truncated.

    ## Info

    After every step plain numbers and NumPy arrays: `similarity`, `macs`, `macs_ratio`,
    `params_ratio`, `budget`, `prune_ratios` (float64, (groups,)), `keep` (channels kept, or bundles
    of them where a grouped layer ties channels; int64, (groups,)), `is_success` (whether the budget
    was met), and for rewards other than similarity the score under their name, such as `accuracy`.
    `reset` returns the same for the unpruned network, less `is_success` and other scores.
    `env.unwrapped.problem` prunes
    (`problem.compress(info["keep"])`) and saves; `env.unwrapped.score(network, keep)` is the score
    of any network with these channels, however it was repaired or trained.

    ## Arguments

    ```python
    >>> import gymnasium as gym, lfgcl_env
    >>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=4)
    >>> env.action_space.shape, env.observation_space.shape
    ((9,), (9, 22))

    ```

    Ids of a network set `network` and `repair="sequential"`, and those of ResNet-20, ResNet-56 and
    ResNet20-CIFAR100 `weights="embedded"`. With 100 classes the default of `images` is `"CIFAR100"`
    where it would be `"CIFAR10"`.

    {arguments}

    ## Version history

    * v0: first version.
    """

    def __init__(self, **config: Unpack[GlobalConfig]) -> None:
        chosen = complete(GlobalConfig, config, "LFGCLEnv")
        super().__init__(chosen)
        self.horizon = chosen["horizon"]
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
        self._last_score = 0.0
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info({"similarity": 1.0})

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
        score, scores = self._score()
        self._steps += 1
        reward, self._last_score = score - self._last_score, score
        info = self._info(scores)
        info["is_success"] = self.problem.meets(self._keep, self._budget)
        if self.render_mode == "human":
            self.render()
        return self._observation(), reward, self._steps >= self.horizon, False, info

    def upcoming(self, action: Action) -> NDArray[np.int64] | None:
        """Return the strategy that a step would score; None before a reset."""
        if self._keep is None:
            return None
        return self.problem.project(action, self._budget)

    def _observation(self) -> Observation:
        assert self._keep is not None
        return self._embedding(self._keep, self._budget)
