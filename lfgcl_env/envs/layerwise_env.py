"""The layerwise environment of AMC: an action decides the prune ratio of one group."""

from typing import Any, Unpack

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lfgcl_env.config import LayerwiseConfig, complete, documented
from lfgcl_env.envs.amc_bound import ActionBound
from lfgcl_env.envs.amc_state import FEATURES, AMCState
from lfgcl_env.envs.pruning_env import PruningEnv
from lfgcl_env.envs.scoring_ahead import Action, Observation
from lfgcl_env.pruning.checks import check_ratios
from lfgcl_env.pruning.registries import CHOICES


@documented(LayerwiseConfig, CHOICES)
class AMCEnv(PruningEnv):
    """Prune a trained network to a budget layer by layer, as AMC does.

    ## Description

    An episode walks through the network's groups of channels in order. Each action asks for the
    prune ratio of one group; it is bounded so that the groups to come can still meet the budget.
    After the last group the network is pruned, and its accuracy on labelled images is the reward.

    It follows AMC (He, Lin, Liu, Wang, Li, Han: *AMC: AutoML for Model Compression and Acceleration
    on Mobile Devices*, ECCV 2018) with the same groups, criterion, repair and budget as `LFGCLEnv`,
    so that a comparison shows the effect of the layerwise decision and of the labels; with
    `reward="similarity"`, `max_prune_ratio=1.0` and `spend_budget=True` that of the layerwise
    decision alone, made from AMC's state in place of LFGCL's.

    What differs from the paper and from the authors' code (mit-han-lab/amc):

    | | AMC | here |
    |---|---|---|
    | decision | on a layer's input channels | on a group's channels, wherever they go |
    | bound | on the ratio, rounded afterwards: budgets are missed | on whole channels |
    | cut | L1 norms, least squares on sampled inputs | `criterion` and `repair` |
    | residual streams | the first layer decides for all | left alone; with `scope="all"` a group |
    | reward | minus the error; in the code top-5 by default | top-1 |
    | after the end | the last state again | the same with the last saving and action |

    The state's differences are listed in `lfgcl_env.envs.amc_state`, the bound's in
    `lfgcl_env.envs.amc_bound`, those of the agent in `baselines/amc.py`. The paper's other reward,
    which asks for few MACs without a budget, is left out.

    ## Action space

    `Box(0, 1, (1,), float32)`: the fraction of channels to remove from the group at hand. The
    executed one, after rounding and bounding, is `info["executed_action"]`.

    ## Observation space

    `Box(0, 1, (11,), float32)`: AMC's state of the layer that produces the group at hand
    (`lfgcl_env.envs.amc_state.FEATURES`). The first eight are scaled from their lowest to their
    highest value in this network, as in the authors' code; one that never changes is 0.

    | number | meaning |
    |---|---|
    | 0 | index of the group |
    | 1-2 | output channels, input channels |
    | 3-4 | height and width of the input |
    | 5-6 | stride (0 for a linear layer), side of the kernel |
    | 7 | MACs of the layer |
    | 8 | fraction of the network's MACs that the decisions so far have saved |
    | 9 | fraction of the network's MACs in the layers that follow, unpruned |
    | 10 | the executed action before; 0 at first |

    The budget is not among them: `info["budget"]` is.

    ## Reward

    0 until the last group, then the score of the pruned network, by the argument `reward`: as in
    `LFGCLEnv`, but `"accuracy"` by default. As in AMC the baseline was trained on the labelled
    images too. With `reward="similarity"` no label is read.

    ## Starting state

    The first group of the unpruned network. `reset(options={"budget": b})` sets this episode's
    budget; otherwise it is the `budget` argument, drawn uniformly from `np_random` if that is a
    range.

    ## Episode end

    `terminated` at the last group; never truncated.

    ## Info

    As in the global environment: `similarity`, `macs`, `macs_ratio`, `params_ratio`, `budget`,
    `prune_ratios` (float64, (groups,)), `keep` (channels, or bundles of them, kept; int64,
    (groups,)), and `is_success` (whether the budget is met by now). Groups to come count as
    unpruned. Before the last group nothing is scored, and `similarity` is 0. Besides,
    `executed_action`, and at the last group for rewards other than similarity the score under
    their name, such as `accuracy`. `reset` returns the same for the unpruned network, with
    similarity 1, less `is_success` and `executed_action`.

    ## Arguments

    ```python
    >>> import gymnasium as gym, lfgcl_env
    >>> env = gym.make("AMC-ResNet20-v0", weights="random", images="random", num_images=4,
    ...                reward="similarity")
    >>> env.action_space.shape, env.observation_space.shape
    ((1,), (11,))

    ```

    Ids set `network`, and those of ResNet-20, ResNet-56 and ResNet20-CIFAR100
    `weights="embedded"`. For `reward="accuracy"` the default of `images` is `"CIFAR10"`, or
    `"CIFAR100"` with 100 classes, whose training images have labels too. With `spend_budget=True`
    the last group that is not kept whole cannot keep more without exceeding the budget; without it,
    as in AMC, an agent may prune more than it has to.

    {arguments}

    ## Version history

    * v0: first version.
    """

    def __init__(self, **config: Unpack[LayerwiseConfig]) -> None:
        chosen = complete(LayerwiseConfig, config, "AMCEnv")
        super().__init__(chosen)
        self._bound = ActionBound(
            self.problem, self.problem.network.rounding, spend_budget=chosen["spend_budget"]
        )
        self._state = AMCState(self.problem)
        self.steps_per_strategy = len(self.problem.groups)
        self.action_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.observation_space = gym.spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode at the first group of the unpruned network.

        Args:
            seed: see Gymnasium.
            options: ``{"budget": b}`` sets this episode's budget.

        Raises:
            ValueError: for other options, or a budget that cannot be reached.
        """
        self._begin(seed, options)
        self._group = 0
        self._executed = 0.0
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info({"similarity": 1.0})

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide on the group at hand, and score the strategy if it is the last.

        Args:
            action: its prune ratio in [0, 1]; (1,).

        Raises:
            ValueError: for a wrong shape, NaN, or a ratio outside [0, 1].
            gymnasium.error.ResetNeeded: before the first reset and after an episode's end.
        """
        if self._keep is None or self._group >= len(self._keep):
            raise gym.error.ResetNeeded("the episode is over or has not begun: call reset() first")
        self._keep[self._group] = kept = self._decide(action)
        self._executed = float(1.0 - kept / self.problem.channels[self._group])
        self._group += 1
        terminated = self._group == len(self._keep)
        reward, scores = self._score() if terminated else (0.0, {"similarity": 0.0})
        info = self._info(scores)
        info["is_success"] = self.problem.meets(self._keep, self._budget)
        info["executed_action"] = self._executed
        if self.render_mode == "human":
            self.render()
        return self._observation(), reward, terminated, False, info

    def upcoming(self, action: Action) -> NDArray[np.int64] | None:
        """Return the strategy that a step would score; None unless it decides the last group."""
        if self._keep is None or self._group != len(self._keep) - 1:
            return None
        return np.array([*self._keep[:-1], self._decide(action)])

    def _decide(self, action: Action) -> int:
        """Return how many channels of the group at hand an action leads to."""
        assert self._keep is not None
        asked = float(check_ratios(action, 1)[0])
        return self._bound(self._keep, self._group, asked, self._budget)

    def _observation(self) -> Observation:
        assert self._keep is not None
        last = len(self._keep) - 1
        return self._state(min(self._group, last), self._keep, self._executed)
