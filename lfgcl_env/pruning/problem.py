"""PruningProblem: the one object that environments, agents' runs and baselines talk to."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lfgcl_env.edge.one_at_a_time import alone
from lfgcl_env.networks.copying import copy_network
from lfgcl_env.networks.feeding import fed, feed_plainly
from lfgcl_env.networks.several_inputs import Several
from lfgcl_env.pruning.checks import check_outputs
from lfgcl_env.pruning.delivered_network import Delivered, Delivery
from lfgcl_env.pruning.evaluation import Evaluation
from lfgcl_env.pruning.inputs import fitting
from lfgcl_env.pruning.repair.cut_graph import warn_of_obstacle
from lfgcl_env.pruning.repair.interface import Cut
from lfgcl_env.pruning.repair.profiles import DELIVERING, SequentialOptions
from lfgcl_env.pruning.repair.sequential import repair_sequentially
from lfgcl_env.pruning.score.judge import Judge
from lfgcl_env.pruning.score.own_score import OwnScore, Score, name_of
from lfgcl_env.pruning.scored_problem import ScoredProblem
from lfgcl_env.pruning.structure.saved_form import save_pruned
from lfgcl_env.recovery import Recovered, RecoveryOptions, recover
from lfgcl_env.recovery.watching import watch_some

_logger = logging.getLogger(__name__)


class PruningProblem(ScoredProblem):
    """A trained network, some unlabelled images and a budget.

    Whatever does not depend on a strategy is computed here, once: groups, slice plan, costs,
    channel orders and the baseline's features. Scoring a strategy then takes index selections and
    forward passes of an already smaller network; a strategy scored before is looked up.

    A strategy is the number of channels kept in every group, or of bundles where a grouped layer
    lets channels go in bundles alone (``group.bundle`` in each): integers, (groups,). Every method
    that takes one raises a ValueError for what is no strategy of this network. Threads that score
    or repair by one problem wait for each other; ``engine=`` lets them work at once.

    Args:
        network: the baseline, as :func:`lfgcl_env.networks.load_baseline` returns it, or any
            module. It is copied: never changed, and free to be changed meanwhile.
        images: unlabelled inputs that orders and repairs go by, normalised as the network expects
            them; float (images, ...), such as (images, channels, height, width). For a network
            that takes several tensors a tuple of them, or a dictionary by its arguments' names.
        score_images: others that pruned networks are scored on; None: the same.
        **config: see :class:`~lfgcl_env.config.ProblemConfig`; the names of choices are in
            :data:`~lfgcl_env.pruning.registries.CHOICES`.

    Raises:
        ValueError: for unknown names, images that do not fit, an unreachable budget, or a network
            in which nothing can be pruned; the message says what is accepted.

    Attributes:
        baseline: a copy of the network to be pruned.
        network: its groups, costs and surgery, which need no images.
        groups: what a strategy has one entry for.
        channels: channels of every group, read-only; int64, (groups,).
        lowest: fewest channels that :meth:`project` leaves in every group, by all limits and
            rounding; int64, (groups,).
        layers: the baseline's convolutions and linear layers in order of use.
        excluded: what is not pruned, and why.
        baseline_cost: cost of the unpruned network.
        budget: fraction of the baseline's cost that may remain.
        scorer: reads features and compares them with the baseline's.
        candidate: the copy that every strategy is installed in.
        batches: the calibration images, as candidates see them.
        score_batches: the images that they are scored on.
    """

    @alone
    def compress(self, strategy: ArrayLike) -> nn.Module:
        """Return a physically smaller network for a strategy, as it was scored.

        A copy is cut; the repaired weights and statistics are then copied into it.
        """
        kept = self.kept_channels(strategy)
        smaller = self.network.cut(kept)
        self.candidate.install(kept)
        self._repair.carry(self.candidate, kept, smaller)
        return feed_plainly(smaller)

    def cut(self, strategy: ArrayLike) -> nn.Module:
        """Return a physically smaller network for a strategy, without any repair."""
        return feed_plainly(self.network.cut(self.kept_channels(strategy)))

    def finish(
        self,
        strategy: ArrayLike,
        images: Tensor | Several,
        options: SequentialOptions = DELIVERING,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        score: Score | None = None,
    ) -> tuple[nn.Module, Evaluation]:
        """Compress a strategy, repair it sequentially, and score the result.

        Takes seconds to minutes, so it is meant for the best few strategies. A network of which
        there is no graph of operations is repaired from its module calls; a warning says so. The
        score is not remembered: it belongs to another network than :meth:`evaluate`'s. Where the
        repair does not help, a better network is returned, see :meth:`keep_better`; a strategy that
        was not scored yet is scored for that.

        Args:
            strategy: channels kept in every group.
            images: unlabelled inputs to repair on, better others than the problem's own; float
                (images, channels, height, width), or several inputs as at construction.
            options: of the repair, see there.
            progress: called with the steps done and their number.
            score: your own, as a ``reward`` of environments: a function of a network and the images
                that pruned networks are scored on, the higher the better. It decides which network
                is returned; None compares similarities.

        Returns:
            The network, on the CPU, and its evaluation.

        Raises:
            ValueError: if the images do not fit, or the score fails.
        """
        return self.finish_all([strategy], images, options, progress, score=score)[0]

    def finish_all(
        self,
        strategies: Sequence[ArrayLike],
        images: Tensor | Several,
        options: SequentialOptions = DELIVERING,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        score: Score | None = None,
    ) -> list[tuple[nn.Module, Evaluation]]:
        """Do the same for several strategies in step, which share the baseline's forward pass.

        The activations of all these networks are held at the same time.
        """
        keeps = [self.network.check_strategy(strategy) for strategy in strategies]
        judge: OwnScore | None = None
        bare: list[float | None] = [None] * len(keeps)
        if score is not None:
            seen = torch.cat(self.score_batches).contiguous()
            judge = OwnScore(name_of(score), score, seen, self.device, self.baseline.feeding)
            # One that fails does so before minutes of repair.
            bare = [judge(self.cut(keep)) for keep in keeps]
        warn_of_obstacle(self.network)
        networks = self.repair_all(keeps, images, options, progress)
        each = zip(networks, keeps, bare, strict=True)
        best = [self.keep_better(one, keep, judge, of_cut) for one, keep, of_cut in each]
        return [(one.network, one.evaluation) for one in best]

    def keep_better(
        self,
        network: nn.Module,
        strategy: ArrayLike,
        judge: Callable[[nn.Module], float] | None = None,
        bare: float | None = None,
    ) -> Delivered:
        """Return a repaired network, or one of the same strategy that scores higher without.

        It is compared with the network merely cut and with the one that :meth:`evaluate` scored. By
        the problem's similarity the latter has an advantage where it was fitted to the images that
        it is scored on: there it is only taken if the repaired network is worse than the one merely
        cut. A warning says so where one of these is better.

        Args:
            network: repaired as it is to be delivered.
            strategy: its channels.
            judge: the run's own score of a network, the higher the better, which compares all
                three; None compares similarities.
            bare: the score of the network merely cut, where it is known.
        """
        keep = self.network.check_strategy(strategy)
        similarity = partial(self.score_network, strategy=keep)
        judged = judge or similarity
        score = best = judged(network)
        delivery: Delivery = "thorough"
        if bare is None:
            bare = judged(self.cut(keep))
        if bare > best:
            network, best, delivery = self.cut(keep), bare, "cut"
        fair = self.score_batches is not self.batches
        if judge is not None:
            scored = self.compress(keep)
            if (own := judge(scored)) > best:
                network, best, delivery = scored, own, "scored"
        elif (fair or best > score) and (known := self.evaluate(keep).similarity) > best:
            network, best, delivery = self.compress(keep), known, "scored"
        if best > score:
            _logger.warning(
                "a repair made the network worse (%s %.6f, %.6f without), so it was not used",
                "similarity" if judge is None else "score", score, best,
            )  # fmt: skip
        evaluation = self._evaluation(keep, best if judge is None else similarity(network))
        return Delivered(network.cpu(), evaluation, delivery)

    @alone
    def repair_all(
        self,
        strategies: Sequence[ArrayLike],
        images: Tensor | Several,
        options: SequentialOptions = DELIVERING,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[nn.Module]:
        """Do the same without scoring the networks, which are returned alone."""
        keeps = [self.network.check_strategy(strategy) for strategy in strategies]
        images = fitting(self.baseline, images, "repair")
        cuts = [self._cut(self.kept_channels(keep)) for keep in keeps]
        placed = images.to(self.device, next(self.candidate.network.parameters()).dtype)
        repair_sequentially(self.network, cuts, placed, options, progress)
        return [feed_plainly(cut.network.cpu()) for cut in cuts]

    def judge(self, images: Tensor | Several) -> Judge:
        """Return a judge of finished networks, by their outputs on other images.

        Args:
            images: that neither a search nor a repair has seen, where there are such; float
                (images, channels, height, width).

        Raises:
            ValueError: if they do not fit, or the outputs cannot be compared.
        """
        check_outputs(self.baseline, "kl", None)
        batches = self._place(fitting(self.baseline, images, "judge"), large=False)
        whole = self.network.candidate(self.device).network
        return Judge(whole, batches, self.baseline.outputs, self.baseline.feeding)

    def recover(
        self,
        network: nn.Module,
        images: Tensor | Several,
        options: RecoveryOptions | None = None,
        *,
        watched: Tensor | Several | None = None,
        score: Score | None = None,
        **more: Any,
    ) -> Recovered:
        """Train a pruned network on the baseline's outputs, without labels.

        Args:
            network: with any strategy's channels, as :meth:`compress` and :meth:`finish` return it.
            images: unlabelled inputs to train on; float (images, channels, height, width), or
                several inputs of a network that takes them.
            options: of the training, see there.
            watched: other images, on which the better one of before and after is found, best
                unknown to the repair; None takes an eighth of ``images`` out.
            score: your own, as a ``reward`` of environments: a function of a network and the
                watched images, the higher the better. None compares outputs with the baseline's.
            **more: see :func:`~lfgcl_env.recovery.recover`; ``labels`` need ``watched``.

        Raises:
            ValueError: if the images do not fit or are too few, or the score fails.
        """
        images = fitting(self.baseline, images, "training")
        if watched is None:
            if more.get("labels") is not None:
                raise ValueError("labels need watched=, images that have none")
            images, watched = watch_some(images, seed=0)
        judge: Callable[[nn.Module], float]
        feeding, packing = self.baseline.feeding, self.baseline.packing
        if score is None:
            judge = self.judge(watched)
        else:
            watched = fitting(self.baseline, watched, "judge")
            judge = OwnScore(name_of(score), score, watched, self.device, feeding)

        def judged(one: nn.Module) -> float:
            return judge(copy_network(one).to(self.device) if self.device.type != "cpu" else one)

        if packing is not None:  # among several inputs may be numbers that cannot be mixed
            options = replace(options or RecoveryOptions(), mixup=0.0)
        with fed(self.baseline.network, feeding), fed(network, feeding):
            done = recover(
                self.baseline.network, network, images, judged, options,
                **{"device": self.device, **more},
            )  # fmt: skip
        feed_plainly(done.network)
        return done

    def save(
        self,
        path: str | os.PathLike[str],
        strategy: ArrayLike,
        network: nn.Module | None = None,
        budget: float | None = None,
        **facts: Any,
    ) -> Path:
        """Write the pruned network of a strategy, see :func:`lfgcl_env.load_pruned`.

        Args:
            path: the file to write.
            strategy: channels kept in every group.
            network: what :meth:`compress` or :meth:`finish` returned; None compresses.
            budget: what it was made for, if not the problem's own.
            **facts: JSON-able facts to keep with it.

        Raises:
            ValueError: if the network has other channels.
            OSError: if the file cannot be written; nothing half-written stays.
        """
        evaluation = self.evaluate(strategy)
        channels = self.kept_channels(strategy)
        if network is not None:
            _check_channels(network, self.network.cut(channels))
        kept = {
            group.name: group.positions(left).tolist()
            for group, left in zip(self.groups, channels, strict=True)
        }
        return save_pruned(
            path,
            self.compress(strategy) if network is None else network,
            self.baseline,
            self.network.plan,
            kept_channels=kept,
            evaluation=asdict(evaluation),
            settings=self.settings() | ({} if budget is None else {"budget": budget}),
            **facts,
        )

    def _cut(self, kept: list[NDArray[np.int64]]) -> Cut:
        """Cut a network for a sequential repair."""
        smaller = self.network.cut(kept)
        self.candidate.install(kept)
        self._repair.carry_prior(self.candidate, kept, smaller)
        return Cut(smaller.to(self.device), kept)


def _check_channels(network: nn.Module, cut: nn.Module) -> None:
    """Refuse a network whose tensors have other shapes than those of one that was cut."""
    shapes, needed = (
        {k: tuple(one.shape) for k, one in net.state_dict().items() if isinstance(one, Tensor)}
        for net in (network, cut)
    )
    for key in sorted(shapes.keys() & needed.keys()):
        if shapes[key] != needed[key]:
            raise ValueError(
                f"the network has other channels than the strategy: its {key} is {shapes[key]}, "
                f"and the strategy's {needed[key]}"
            )
    if other := sorted(shapes.keys() ^ needed.keys()):
        raise ValueError(f"the network has other tensors than the pruned one: {', '.join(other)}")
