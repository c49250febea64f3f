"""The layerwise environment of AMC: an action decides the prune ratio of one group."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.envs.accuracy import StrategyAccuracy
from lfgcl_env.envs.amc_bound import ActionBound
from lfgcl_env.envs.amc_state import FEATURES, AMCState
from lfgcl_env.envs.budget_range import Budget
from lfgcl_env.envs.pruning_env import Action, Observation, PruningEnv
from lfgcl_env.images import LabelledImages, load_held_out
from lfgcl_env.images.datasets import DATASETS
from lfgcl_env.networks import Baseline
from lfgcl_env.pruning.checks import check_ratios

REWARDS = ("accuracy", "similarity")


class AMCEnv(PruningEnv):
    """Prune a trained network to a budget layer by layer, as AMC does.

    ## Description

    An episode walks through the network's groups of channels in order. Each action asks for the
    prune ratio of one group; it is bounded so that the groups to come can still meet the budget.
    After the last group the network is cut and rewarded with its accuracy on labelled images.

    It follows AMC (He, Lin, Liu, Wang, Li, Han: *AMC: AutoML for Model Compression and Acceleration
    on Mobile Devices*, ECCV 2018) with the same groups, criterion, repair and budget as `LFGCLEnv`,
    so that what is compared is the layerwise decision and the labels; with `reward="similarity"`,
    `max_prune_ratio=1.0` and `spend_budget=True` the layerwise decision alone, which sees AMC's
    state in place of LFGCL's.

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

    The budget is not among them: an agent for a range of budgets has to be told by other means.

    ## Reward

    0 until the last group. Then, with `reward="accuracy"`, the top-1 accuracy in [0, 1] on
    `num_labelled` labelled images: training images of the data set that are no calibration images.
    As in AMC the baseline was trained on them too. With `reward="similarity"` it is the similarity
    of features on the calibration images, as in the global environment, and no label is read.

    ## Starting state

    The first group of the unpruned network. `reset(options={"budget": b})` sets this episode's
    budget; otherwise it is the `budget` argument, drawn uniformly from `np_random` if that is a
    range.

    ## Episode end

    `terminated` at the last group; never truncated.

    ## Info

    As in the global environment: `similarity`, `macs`, `macs_ratio`, `params_ratio`, `budget`,
    `prune_ratios` (float64, (groups,)), `channels` (kept; int64, (groups,)), and `is_success`
    (whether the budget is met by now). Groups to come count as unpruned. Before the last group
    nothing is scored, and `similarity` is 0. Besides, `executed_action`, and at the last group of
    `reward="accuracy"` also `accuracy`. `reset` returns the same for the unpruned network, with
    similarity 1, less `is_success` and `executed_action`.

    A strategy is scored in both senses at the end of an episode, so that
    `env.unwrapped.problem.evaluations` counts as in the global environment.

    ## Arguments

    ```python
    >>> import gymnasium as gym, lfgcl_env
    >>> env = gym.make("AMC-ResNet20-v0", weights="random", images="random", num_images=4,
    ...                reward="similarity")
    >>> env.action_space.shape, env.observation_space.shape
    ((1,), (11,))

    ```

    | argument | default | meaning |
    |---|---|---|
    | `reward` | `"accuracy"` | `"accuracy"` (needs labels) or `"similarity"` |
    | `num_labelled` | 5000 | labelled images; as many as in the authors' code for CIFAR |
    | `labelled` | None | `lfgcl_env.images.LabelledImages`, instead of a part of `images` |
    | `max_prune_ratio` | 0.8 | most that is pruned of any group, AMC's `a_max` |
    | `spend_budget` | False | whether actions are also bounded so that the budget is spent |

    All others are those of `LFGCLEnv`, less `horizon`, with the same defaults, except that
    `images` is `"CIFAR10"` where it has to provide labels too. With
    `spend_budget=True` the last group that is not kept whole cannot keep more without exceeding the
    budget; without it, as in AMC, an agent may prune more than it has to.

    ## Version history

    * v0: first version.
    """

    def __init__(
        self,
        network: str | nn.Module | Baseline = "resnet56",
        *,
        reward: str = "accuracy",
        num_labelled: int = 5000,
        labelled: LabelledImages | None = None,
        max_prune_ratio: float = 0.8,
        spend_budget: bool = False,
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
        self.reward = check_choice(reward, REWARDS, "reward")
        if reward == "accuracy" and labelled is None:
            images = "CIFAR10" if images is None else images
            _check_labels_wanted(images, num_labelled)
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
        baseline = self.problem.baseline
        self.labelled: LabelledImages | None = None
        self._accuracy: StrategyAccuracy | None = None
        if reward == "accuracy":
            self.labelled = labelled or load_held_out(
                str(images),
                num_labelled,
                used=self.problem.images,
                shape=baseline.input_shape,
                normalization=baseline.normalization,
                seed=seed,
                root=data_root,
                download=download,
            )
            _check_labels_fit(self.labelled, baseline)
            self._accuracy = StrategyAccuracy(self.problem, self.labelled)
        self._bound = ActionBound(
            self.problem,
            round_to=round_to,
            min_channels=min_channels,
            max_prune_ratio=max_prune_ratio,
            spend_budget=spend_budget,
        )
        self._check_budget(self._budgets[0])
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
        return self._observation(), self._info(1.0)

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
        asked = float(check_ratios(action, 1)[0])
        kept = self._bound(self._keep, self._group, asked, self._budget)
        self._keep[self._group] = kept
        self._executed = float(1.0 - kept / self.problem.channels[self._group])
        self._group += 1
        terminated = self._group == len(self._keep)
        reward, scored = self._score() if terminated else (0.0, {"similarity": 0.0})
        info = self._info(0.0) | scored
        info["is_success"] = self._meets_budget(info)
        info["executed_action"] = self._executed
        if self.render_mode == "human":
            self.render()
        return self._observation(), reward, terminated, False, info

    def remember(self, keep: Sequence[int], reward: float) -> None:
        """Take over the reward of a strategy that was scored before, so that it is looked up.

        Args:
            keep: channels kept in every group.
            reward: of its last step.
        """
        if self._accuracy is not None:
            self._accuracy.remember(keep, reward)

    def forget(self) -> None:
        """Forget all scores, accuracies among them."""
        super().forget()
        if self._accuracy is not None:
            self._accuracy.forget()

    def _check_budget(self, budget: float) -> float:
        return self._bound.check_budget(budget)

    def _score(self) -> tuple[float, dict[str, float]]:
        """The reward of the strategy at hand, and what info has to say about it."""
        assert self._keep is not None
        self._evaluation = self.problem.evaluate(self._keep)
        scored = {"similarity": self._evaluation.similarity}
        if self._accuracy is not None:
            scored["accuracy"] = self._accuracy(self._keep)
        return scored[self.reward], scored

    def _observation(self) -> Observation:
        assert self._keep is not None
        last = len(self._keep) - 1
        return self._state(min(self._group, last), self._keep, self._executed)


def _check_labels_wanted(images: object, count: object) -> None:
    """Refuse a reward that needs labels where there are none, before anything is loaded."""
    if not isinstance(images, str) or images not in DATASETS:
        given = f"images={images!r}" if isinstance(images, str) else "these images"
        raise ValueError(
            f"reward='accuracy' needs labels, and {given} have none: choose images from "
            f"{', '.join(DATASETS)}, pass labelled=lfgcl_env.images.LabelledImages(...), or use "
            "reward='similarity'"
        )
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"num_labelled must be a whole number of at least 1, got {count!r}")


def _check_labels_fit(labelled: LabelledImages, baseline: Baseline) -> None:
    """Refuse images that the network cannot take, and classes that it does not know."""
    shape, classes = tuple(labelled.images.shape[1:]), int(labelled.labels.max()) + 1
    if shape != tuple(baseline.input_shape) or classes > baseline.num_classes:
        raise ValueError(
            f"{labelled.name} have shape {shape} and {classes} classes, and the network takes "
            f"{tuple(baseline.input_shape)} and tells {baseline.num_classes} classes apart"
        )
