"""What both environments share: their problem and reward, budgets of episodes, info, rendering."""

from collections.abc import Sequence
from typing import Any, Self, cast

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lfgcl_env.config import Natural, ProblemConfig, RewardedConfig, part
from lfgcl_env.edge.choices import check_choice
from lfgcl_env.edge.schema import check_value, short
from lfgcl_env.edge.threads import leave_threads_of_parent
from lfgcl_env.edge.value_checks import budget_range
from lfgcl_env.engine import check_gpus
from lfgcl_env.envs.from_config import build_network, check_fit, check_labels, score_count
from lfgcl_env.envs.rendering import Window, picture, table
from lfgcl_env.envs.reward import check_reward, make_reward
from lfgcl_env.envs.scoring_ahead import ScoringAhead
from lfgcl_env.envs.workers import Workers
from lfgcl_env.images import LabelledImages, load_held_out
from lfgcl_env.images.calibration import default_data, default_images
from lfgcl_env.images.image_source import JUDGE_IMAGES, ImageSource
from lfgcl_env.networks.prepared import settle
from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.problem import PruningProblem
from lfgcl_env.pruning.score.judge import Judge


class PruningEnv(ScoringAhead):
    """A pruning problem, and a strategy that the steps of an episode decide.

    Args:
        config: the completed arguments of one of the environments.

    Attributes:
        problem: what is pruned.
        images: what calibration images were taken from; ``"given"`` for a tensor or array.
        labelled: labelled images that reward ``"accuracy"`` is measured on, else None.
        steps_per_strategy: how many steps decide one strategy that is scored.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared so by gymnasium.Env)
        "render_modes": ["ansi", "rgb_array", "human"],
        "render_fps": 4,
    }
    steps_per_strategy = 1

    def __init__(self, config: RewardedConfig) -> None:
        self.render_mode = config["render_mode"]
        if self.render_mode is not None:
            check_choice(self.render_mode, self.metadata["render_modes"], "render_mode")
        reward = check_reward(cast(Any, config)["reward"])
        images, labelled = config["images"], config["labelled"]
        needs_labels = reward == "accuracy" and labelled is None
        if needs_labels and images is not None:
            check_labels(images)
        leave_threads_of_parent()  # where AsyncVectorEnv forked it
        self._workers = Workers(
            config["engine"], config["workers"], config["ray_address"], config["ray_resources"]
        )
        check_gpus(self._workers.executor, config["device"])
        self._workers.join(self)
        self._budgets = budget_range(config["budget"])
        baseline = build_network(config)
        if images is None:
            images = default_data(baseline) if needs_labels else default_images(baseline)
        root, download = config["data_root"], config["download"]
        self._source = ImageSource(
            baseline,
            images,
            config["num_images"],
            seed=config["seed"],
            root=root,
            download=download,
            device=config["device"],
        )
        self.images = self._source.name
        calibration = self._source.calibration
        scored = self._source.for_scores(score_count(config, len(calibration)))
        self.problem = PruningProblem(
            baseline,
            calibration,
            scored,
            **(part(ProblemConfig, config) | {"budget": self._budgets[0]}),
        )
        self._judge: Judge | None = None
        self.labelled: LabelledImages | None = None
        if reward == "accuracy":
            self.labelled = labelled or load_held_out(
                self.images,
                config["num_labelled"],
                used=self.problem.images,
                shape=baseline.input_shape,
                normalization=baseline.normalization,
                seed=config["seed"],
                root=root,
                download=download,
            )
            check_fit(self.labelled, baseline)
        seen = calibration if scored is None else scored
        self._reward = make_reward(reward, self.problem, seen, self.labelled)
        self._keep: NDArray[np.int64] | None = None
        self._evaluation: Evaluation | None = None
        self._window = Window()
        self._workers.connect()

    @property
    def budget(self) -> float:
        """This episode's budget."""
        return self._budget if self._keep is not None else self._budgets[0]

    @property
    def budgets(self) -> tuple[float, float]:
        """The lowest and the highest budget of an episode; equal for a fixed one."""
        return self._budgets

    @property
    def reward_name(self) -> str:
        """``"similarity"``, ``"accuracy"``, or ``"module:function"``."""
        return self._reward.name

    def score(self, network: nn.Module, keep: ArrayLike) -> float:
        """Return the reward of any network with a strategy's channels, repaired or trained.

        Args:
            network: copied if it is in training mode or on another device.
            keep: channels kept in every group.

        Raises:
            ValueError: if it is no strategy of this problem, or the reward fails.
        """
        return self._reward.score_network(network, keep)

    def twin(self) -> Self:
        """Return an environment before its first reset that shares problem, scores and workers."""
        other = super().twin()
        other._keep = other._evaluation = None
        other._window = Window()
        return other

    def remember(self, keep: Sequence[int], reward: float) -> None:
        """Store the score of a strategy that was measured before, so that it is looked up.

        Args:
            keep: channels kept in every group.
            reward: the return of the episode that scored it.
        """
        self._reward.remember(keep, reward)

    def judge(self, network: nn.Module, keep: ArrayLike) -> float:
        """Return what a finished network is worth, on images that nothing else has seen.

        Where there are too few images, views of them stand in for such images.

        For reward ``"similarity"`` it is the similarity of outputs to the baseline's on
        :meth:`judge_images` (:func:`~lfgcl_env.pruning.score.similarities.kl`), whatever the
        search compares; for other rewards, and for networks whose outputs cannot be compared, it
        is :meth:`score`.

        Args:
            network: copied if it is in training mode or on another device.
            keep: channels kept in every group.

        Raises:
            ValueError: if it is no strategy of this problem, or the reward fails.
        """
        if self.reward_name != "similarity" or not self.problem.baseline.outputs:
            return self.score(network, keep)
        if self._judge is None:
            self._judge = self.problem.judge(self.judge_images())
        return self._judge(settle(network, self.problem.device))

    def other_images(self, count: int, *, after: int = 0) -> Tensor | None:
        """Load more images from the source of the calibration images, which scores do not use.

        Args:
            count: how many.
            after: how many such images to leave out first.

        Returns:
            Normalised images (count, channels, height, width), or None if there are not so many.
        """
        return self._source.others(count, after=after)

    def repair_images(self, count: int | None = None) -> Tensor:
        """Load images for sequential repair from the source of the calibration images.

        Args:
            count: how many that neither scores nor :meth:`judge_images` use; None for 4,096, or
                fewer large ones. If there are fewer, or the images were made for the purpose, they
                are all images of the source that are not to be judged on and views of them
                (:func:`~lfgcl_env.images.views.make_views`), at most four for each image.

        Returns:
            Normalised images (images, channels, height, width).
        """
        return self._source.for_repair(count)

    def judge_images(self, count: int = JUDGE_IMAGES) -> Tensor:
        """Load images that neither scores nor :meth:`repair_images` use; see :meth:`judge`.

        Args:
            count: how many, at most 2,048. If there are fewer than 2,048, they are views of all
                images of the source, at most four for each.
        """
        return self._source.for_judging(count)

    def forget(self) -> None:
        """Drop all scores, so that the next search measures every strategy anew."""
        self.give_up()
        self.problem.forget()
        self._reward.forget()

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
        self._window.show(frame)
        return None

    def close(self) -> None:
        """End the workers, if they are not a user's or another twin's, and close an open window.

        The workers start anew when there is something to score together.
        """
        self._workers = self._workers.end_for(self)
        self._workers.join(self)
        self._window.close()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._workers.join(self)

    def _begin(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """Begin an episode with the unpruned network and its budget, or leave all as it was."""
        if seed is not None:
            seed = check_value(seed, Natural, "seed", "a whole number of at least 0, or None")
        if not isinstance(options, dict | None):
            raise ValueError(
                f"options of reset must be a dictionary, or None, got {short(options)}"
            )
        others = [name for name in options or {} if name != "budget"]
        if others:
            raise ValueError(f"reset has the option 'budget' only, got {short(others)}")
        chosen = (options or {}).get("budget")
        super().reset(seed=seed)
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

    def _score(self) -> tuple[float, dict[str, float]]:
        """Score the strategy at hand; return the score, and it and the similarity for info."""
        assert self._keep is not None
        self._workers.wait(tuple(self._keep.tolist()))
        self._evaluation = self.problem.evaluate(self._keep)
        score = self._reward.score(self._keep)
        return score, {"similarity": self._evaluation.similarity, self.reward_name: score}

    def _info(self, scores: dict[str, float]) -> dict[str, Any]:
        """Describe the strategy at hand, for people and logs."""
        assert self._keep is not None
        cost, whole = self.problem.cost(self._keep), self.problem.baseline_cost
        return {
            **scores,
            "macs": cost.macs,
            "macs_ratio": cost.macs / whole.macs,
            "params_ratio": cost.params / whole.params,
            "budget": self._budget,
            "prune_ratios": self.problem.prune_ratios(self._keep),
            "keep": self._keep.copy(),
        }
