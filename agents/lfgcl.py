"""The LFGCL agent: a search guided by an ensemble of critics.

Every step executes one whole strategy. Noise around several centres makes many proposals, critics
that learn from every evaluation value them, and the best-valued one is executed. The centres are
the best strategies so far and the action of an actor that follows the critics' gradient: a
deterministic policy gradient (DDPG; Lillicrap et al., ICLR 2016), which LFGCL (Liu et al., 2021)
uses alone, is one source of proposals among others. ``docs/agent.md`` measures what each part is
worth; ``plain_ddpg.py`` is DDPG without them.

Differences from DDPG:

* Actor and critics apply the same weights to every group and exchange a mean message, so that the
  number of groups is not built in and a trained agent transfers to other networks.
* The critics see the *executed* keep ratios, after projection and rounding, and the error that the
  sensitivity curve in the observation predicts for them. DDPG stores the requested action, by which
  two actions that gave the same network look different.
* There are no target networks and no bootstrapping: an action is a whole strategy, and its return
  does not depend on the state. With a horizon above one, a step's strategy is worth the return of
  the episode up to it.
* The critics regress on ranks of returns as normal scores, relative to what is usual on the budget
  at hand, with a Huber loss and weight decay. The actor's gradient is clipped.
* Inputs are the observation's columns, the same relative to the network's other groups, and sines
  and cosines of the position. Columns that change within an episode are left out.
* Four critics with batches of their own, many updates per evaluation; the actor follows their mean,
  less often. The projection onto the budget is part of the actor: the gradient passes through it.
* Noise is Gaussian in logits of keep ratios and anneals. A part of it varies smoothly over depth,
  since independent noise in many groups averages out and leaves the budget where it was among the
  stages. The critics' mean plus a part of their spread decides between proposals. The first action
  is the actor's own, without noise.
* A strategy that was scored before is no news: the noise grows until a new one is executed.
* ``predict`` returns the best strategy so far, unless the critics value the actor's more.

Besides these it differs from AMC's agent (He et al., ECCV 2018) in deciding all layers at once, and
in eight evaluations around the untrained actor instead of a hundred random episodes. Of LFGCL's
paper only the abstract can be read: the parts that are not DDPG are our own.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.envs.embedding import FEATURES

from . import _agent_file as agent_file
from ._groups import BUDGET, POSITION, Groups, View, logits_of

Action = NDArray[np.float32]
Observation = NDArray[np.float32]


@dataclass(frozen=True)
class Arguments(View):
    """Settings of the agent, besides those of its view of a network."""

    # networks
    hidden: int = 64  # units of every hidden layer
    critics: int = 4  # members of the ensemble
    logit_bound: float = 4.0  # the actor's logits lie within +- this
    # learning
    actor_learning_rate: float = 3e-3  # of Adam
    critic_learning_rate: float = 3e-3  # of AdamW
    weight_decay: float = 1e-3  # of the critics
    batch_size: int = 32  # strategies in a critic's batch
    actor_batch_size: int = 16  # observations in the actor's batch, where budgets differ
    updates: int = 20  # of critics after every evaluation, of the actor whenever it is trained
    actor_interval: int = 4  # evaluations from one training of the actor to the next
    gradient_clip: float = 1.0  # norm of the actor's gradient
    trend_degree: int = 3  # of the polynomial of the budget that is subtracted from values
    # proposals
    candidates: int = 64  # proposals for every evaluation
    elites: int = 4  # best strategies so far that are centres of noise
    noise: float = 0.6  # standard deviation of the noise at the start, in logits
    last_noise: float = 0.1  # and at the end
    anneal: int = 250  # evaluations until the end
    least_scale: float = 0.3  # a proposal's noise is scaled by a uniform draw between this
    most_scale: float = 1.7  # and this
    least_share: float = 0.2  # share of groups that a proposal moves: between this and all
    smooth: float = 1.0  # noise that varies smoothly over depth, relative to that of single groups
    smooth_share: float = 0.7  # of proposals that have it
    growth: float = 1.5  # factor of the noise for every repeated strategy in a row
    most_growths: int = 8  # of them
    # choice
    warm_up: int = 8  # evaluations before the critics choose and elites are centres
    head_start: int = 125  # evaluations of annealing and warm-up that another run's agent saves
    optimism: float = 0.5  # weight of the critics' spread in the choice
    # ablation
    actor: bool = True  # False: elites are the only centres
    choice: bool = True  # False: the first proposal is executed, whatever critics say

    def __post_init__(self) -> None:
        if not self.actor and not self.elites:
            raise ValueError("without an actor, elites must be at least 1: noise needs a centre")


# Networks


class Actor(nn.Module):
    """Maps groups to logits of keep ratios, which are equal before it learns."""

    def __init__(self, arguments: Arguments, generator: torch.Generator) -> None:
        super().__init__()
        self.bound, hidden = arguments.logit_bound, arguments.hidden
        self.first = linear(arguments.inputs, hidden, generator)
        self.second = linear(2 * hidden, hidden, generator)
        self.last = linear(hidden, 1, generator)
        nn.init.zeros_(self.last.weight)

    def forward(self, groups: Groups) -> Tensor:
        """Return logits; (batch, groups)."""
        hidden = exchange(F.silu(self.first(groups.inputs)))
        logits: Tensor = self.last(F.silu(self.second(hidden)))[..., 0]
        return self.bound * torch.tanh(logits / self.bound)


class Critics(nn.Module):
    """An ensemble that maps groups and keep ratios to values of strategies."""

    def __init__(self, arguments: Arguments, generator: torch.Generator) -> None:
        super().__init__()
        members, hidden = arguments.critics, arguments.hidden
        self.first = EnsembleLinear(members, arguments.inputs + 4, hidden, generator)
        self.second = EnsembleLinear(members, 2 * hidden, hidden, generator)
        self.last = EnsembleLinear(members, hidden, 1, generator)

    def forward(self, groups: Groups, keep: Tensor) -> Tensor:
        """Return values; (members, batch).

        Args:
            groups: of a batch, or of one observation that holds for all.
            keep: keep ratios (batch, groups), or a batch for every member (members, batch, groups).
        """
        return self.value(groups, groups.describe(keep))

    def value(self, groups: Groups, strategy: Tensor) -> Tensor:
        """Return values (members, batch) of what :meth:`Groups.describe` says of keep ratios."""
        described = groups.inputs if groups.inputs.dim() == 4 else groups.inputs[None]
        strategy = strategy if strategy.dim() == 4 else strategy[None]
        hidden = F.silu(self.first(described, strategy))
        hidden = F.silu(self.second(hidden, hidden.mean(-2, keepdim=True)))
        value: Tensor = self.last(hidden.mean(-2, keepdim=True))[..., 0, 0]
        return value * hidden.shape[-2]


class EnsembleLinear(nn.Module):
    """The linear layers of all members of an ensemble."""

    def __init__(self, members: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = torch.randn(members, inputs, outputs, generator=generator) / inputs**0.5
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(members, outputs))

    def forward(self, *parts: Tensor) -> Tensor:
        """Map inputs, given in parts that stand side by side, to (members, batch, groups, outputs).

        What a part says of all members, strategies or groups alike is multiplied once.

        Args:
            *parts: (members or 1, batch or 1, groups or 1, some of the inputs) each.
        """
        products = []
        weights = torch.split(self.weight, [part.shape[-1] for part in parts], dim=1)
        for part, weight in zip(parts, weights, strict=True):
            flat = part.expand(len(self.weight), -1, -1, -1).flatten(1, 2)
            products.append(torch.bmm(flat, weight).view(len(flat), *part.shape[1:3], -1))
        total = self.bias[:, None, None]
        for product in sorted(products, key=Tensor.numel):  # large ones are added to last
            total = total + product
        return total


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Make a linear layer that leaves the scale of its inputs as it is."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        layer.weight.copy_(torch.randn(inputs, outputs, generator=generator).T / inputs**0.5)
        layer.bias.zero_()
    return layer


def exchange(hidden: Tensor) -> Tensor:
    """Append the mean over all groups to every group; (..., groups, 2 x hidden)."""
    return torch.cat([hidden, hidden.mean(-2, keepdim=True).expand_as(hidden)], dim=-1)


# Replay


class Replay:
    """All distinct strategies so far: observation, executed keep ratios, return."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._items: dict[tuple[bytes, float], tuple[Observation, Action, float]] = {}
        self._tensors: tuple[Groups, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def many_budgets(self) -> bool:
        """Whether its budgets differ."""
        return len({budget for _, budget in self._items}) > 1

    def add(self, observation: Observation, keep: Action, episode_return: float) -> bool:
        """Add a strategy, and return whether it is new; of a known one the first return stays."""
        key = (keep.tobytes(), float(observation[0, BUDGET]))
        new = key not in self._items
        if new:
            self._items[key] = (np.asarray(observation), keep, float(episode_return))
            self._tensors = None
        return new

    def arrays(self) -> list[NDArray[Any]]:
        """Return observations, keep ratios and returns, in their order; nothing if it is empty."""
        return [np.stack(part) for part in zip(*self._items.values(), strict=True)]

    def tensors(self) -> tuple[Groups, Tensor, Tensor]:
        """Return groups, keep ratios (strategies, groups), and values (strategies,).

        On a single budget one observation stands for all. Values are the ranks of returns relative
        to what is usual on their budget, a polynomial fitted to all of them; as normal scores.
        """
        if self._tensors is not None:
            return self._tensors
        a = self._arguments
        observations, keep, returns = self.arrays()
        groups = Groups.of(observations if self.many_budgets else observations[:1], a)
        value = values_of(returns)
        budgets = logits_of(groups.budget.double(), a).expand(len(value)).numpy()
        degree = min(a.trend_degree, len(set(budgets.tolist())) - 1)
        value = normal_scores(value - np.polyval(np.polyfit(budgets, value, degree), budgets))
        self._tensors = groups, torch.from_numpy(keep), torch.from_numpy(value).float()
        return self._tensors


def values_of(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map returns to values whose differences count alike everywhere, in the same order.

    Returns in [0, 1], as similarities and accuracies are, crowd below 1 and become
    ``-log(1 - return)``. Those on any other scale (or a tiny one) become :func:`normal_scores`.

    >>> values_of(np.array([0.0, 0.5, 0.75])).round(2).tolist()
    [-0.0, 0.69, 1.39]
    """
    if returns.min() >= 0 and returns.max() <= 1:
        values: NDArray[np.float64] = -np.log(np.maximum(1.0 - returns, 1e-6))
        if np.ptp(values) > 1e-4:
            return values
    return normal_scores(returns)


def normal_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map values to the normal distribution's quantiles at their ranks, equal ones to the same.

    The order alone counts, so that penalties of any size are no outliers.

    >>> normal_scores(np.array([-1e9, 3.0, 8.0])).round(2).tolist()
    [-0.97, 0.0, 0.97]
    """
    _, rank, count = np.unique(values, return_inverse=True, return_counts=True)
    quantiles = (np.cumsum(count) - count / 2) / len(values)
    scores: NDArray[np.float64] = torch.special.ndtri(torch.from_numpy(quantiles[rank])).numpy()
    return scores


# Agent


class LFGCLAgent:
    """See the module's docstring.

    Args:
        env: an environment with observations (groups, features), actions in [0, 1] (groups,).
        seed: decides everything.
        arguments: settings.

    Attributes:
        losses: the latest, by name.

    Raises:
        ValueError: if the environment is another.
    """

    name = "lfgcl"

    def __init__(
        self, env: gym.Env[Any, Any], seed: int, arguments: Arguments | None = None
    ) -> None:
        shape = env.observation_space.shape or ()
        if len(shape) != 2 or shape[1] != len(FEATURES):
            raise ValueError(
                f"the LFGCL agent sees rows of {len(FEATURES)} numbers, one for each group, not "
                f"observations {shape}: give it a global environment, LFGCL-..., unwrapped"
            )
        self.env, self.seed = env, seed
        self.arguments = a = arguments or Arguments()
        self.losses: dict[str, float] = {}
        self.draws = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.actor = Actor(a, self.generator)
        self.critics = Critics(a, self.generator)
        self.networks = nn.ModuleDict({"actor": self.actor, "critics": self.critics})
        self._actor_optimizer = torch.optim.Adam(
            self.actor.parameters(), a.actor_learning_rate, fused=True
        )
        self._critic_optimizer = torch.optim.AdamW(
            self.critics.parameters(),
            a.critic_learning_rate,
            weight_decay=a.weight_decay,
            fused=True,
        )
        self.optimizers: Sequence[torch.optim.Optimizer]
        self.optimizers = (self._actor_optimizer, self._critic_optimizer)
        self.replay = Replay(a)
        self._repeated = 0  # strategies in a row that were known
        self._head_start = 0
        self._first: Action | None = None

    def begin_at(self, action: Action) -> None:
        """Execute a strategy first, which is then the first elite.

        Args:
            action: its prune ratios; (groups,).
        """
        self._first = action

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
    ) -> "LFGCLAgent":
        """Step the environment until ``callback`` returns False, at most ``total_timesteps`` times.

        Args:
            total_timesteps: most steps.
            callback: called after every step with the local and the global variables; of
                Stable-Baselines3's callbacks, the functions.
        """
        observation, _ = self.env.reset(seed=self.seed)
        episode_return = 0.0
        for _ in range(total_timesteps):
            action = self._explore(observation)
            following, reward, terminated, truncated, info = self.env.step(action)
            episode_return += float(reward)
            keep = 1.0 - np.asarray(info["prune_ratios"], dtype=np.float32)
            new = self.replay.add(observation, keep, episode_return)
            self._repeated = 0 if new else self._repeated + 1
            if new and len(self.replay) > self.arguments.warm_up:
                self.update()
            observation = following
            if terminated or truncated:
                observation, _ = self.env.reset()
                episode_return = 0.0
            if callback is not None and not callback(locals(), globals()):
                break
        return self

    @torch.no_grad()
    def predict(self, observation: Observation, **_: Any) -> tuple[Action, None]:
        """Return the best action for the observation's budget, and no state.

        It is the best strategy so far, moved to this budget, or the actor's, whichever the critics
        value more; before the first evaluation, of a loaded agent too, the actor's.
        Observations (n, groups, features) have actions (n, groups).
        """
        if np.ndim(observation) == 3:
            return np.stack([self.predict(one)[0] for one in observation]), None
        groups = Groups.of(observation, self.arguments)
        logits = self._actors(groups)
        if len(self.replay):
            value, known = self._best(groups)
            own = self.critics(groups, groups.on_budget(logits)).mean()
            if not self.arguments.actor or float(value[0]) >= float(own):
                logits = known[:1]
        return _action(groups.on_budget(logits)[0]), None

    def update(self) -> None:
        """Train critics and actor on the replay for ``updates`` steps each."""
        a = self.arguments
        groups, keep, value = self.replay.tensors()
        strategy = groups.describe(keep)
        shape = (a.critics, min(a.batch_size, len(value)))
        for batch in torch.randint(len(value), (a.updates, *shape), generator=self.generator):
            found = self.critics.value(groups[batch], strategy[batch])
            critic_loss = F.smooth_l1_loss(found, value[batch])
            _descend(critic_loss, self._critic_optimizer)
        self.losses["critic"] = float(critic_loss.detach())
        if not a.actor or len(self.replay) % a.actor_interval:
            return
        some = torch.randperm(len(value), generator=self.generator)[: a.actor_batch_size]
        seen = groups[some]
        for _ in range(a.updates):
            actor_loss = -self.critics(seen, seen.on_budget(self.actor(seen))).mean()
            _descend(actor_loss, self._actor_optimizer, a.gradient_clip)
        self.losses["actor"] = float(actor_loss.detach())

    @torch.no_grad()
    def _explore(self, observation: Observation) -> Action:
        """Return the action to execute next: the best-valued of many proposals."""
        a, count = self.arguments, len(self.replay)
        groups = Groups.of(observation, a)
        centres = self._actors(groups)
        if count == 0:
            return _action(groups.on_budget(centres)[0]) if self._first is None else self._first
        count += self._head_start
        if count > a.warm_up or self._first is not None:
            elites = self._best(groups)[1][: a.elites]
            centres = torch.cat([centres, elites]) if a.actor else elites
        keep = groups.on_budget(self._proposals(centres, observation, count))
        if count <= a.warm_up or not a.choice:
            return _action(keep[0])
        value = self.critics(groups, keep)
        best = (value.mean(0) + a.optimism * value.std(0)).argmax()
        return _action(keep[best])

    def _actors(self, groups: Groups) -> Tensor:
        """Return the actor's logits, or those of uniform ratios if there is no actor."""
        logits: Tensor = self.actor(groups)
        return logits if self.arguments.actor else torch.zeros_like(logits)

    def _proposals(self, centres: Tensor, observation: Observation, count: int) -> Tensor:
        """Return logits with noise around randomly chosen centres; (candidates, groups)."""
        a, draws, column = self.arguments, self.draws, (self.arguments.candidates, 1)
        annealed = min(1.0, count / a.anneal)
        noise = a.noise + (a.last_noise - a.noise) * annealed
        noise *= a.growth ** min(self._repeated, a.most_growths)
        chosen = draws.integers(len(centres), size=a.candidates)
        shape = (a.candidates, centres.shape[1])
        scale = noise * draws.uniform(a.least_scale, a.most_scale, size=column)
        moved = draws.uniform(size=shape) < draws.uniform(a.least_share, 1.0, size=column)
        moves = draws.standard_normal(shape) * scale * moved
        waves = _waves(observation)
        smooth = draws.standard_normal((a.candidates, len(waves))) @ waves
        has_smooth = draws.uniform(size=column) < a.smooth_share
        moves += a.smooth * noise * smooth * has_smooth
        return centres[torch.from_numpy(chosen)] + torch.from_numpy(moves).float()

    def _best(self, groups: Groups) -> tuple[Tensor, Tensor]:
        """Return the strategies so far, moved to a budget: values, highest first, and logits.

        A value is what the critics say of the strategy once moved, corrected by how wrong they are
        about it where it was scored; for the budget at which it was scored that is its score.
        """
        scored, keep, value = self.replay.tensors()
        logits = logits_of(keep, self.arguments)
        if self.replay.many_budgets:
            moved = self.critics(groups, groups.on_budget(logits)).mean(0)
            value = value + moved - self.critics(scored, keep).mean(0)
        order = value.argsort(descending=True)
        return value[order], logits[order]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that :meth:`learn` goes on with to a file, at exactly this path."""
        replay = [torch.from_numpy(part) for part in self.replay.arrays()]
        counts = [self._repeated, self._head_start]
        agent_file.write(path, self, replay=replay, counts=counts)

    @classmethod
    def load(cls, path: str | os.PathLike[str], env: gym.Env[Any, Any]) -> "LFGCLAgent":
        """Read what :meth:`save` wrote, to go on as that agent would on the same environment.

        Raises:
            ValueError: if the file is not of this agent and version, or does not fit.
            OSError: if it cannot be read.
        """
        saved = agent_file.read(path, cls.name)
        with agent_file.refusing(path, cls.name):
            agent = cls(env, saved["seed"], agent_file.saved_arguments(Arguments, saved))
            agent_file.restore(agent, saved)
            agent._repeated, agent._head_start = (int(count) for count in saved["counts"])
            for step in zip(*(part.numpy() for part in saved["replay"]), strict=True):
                if step[0].shape != env.observation_space.shape:
                    raise ValueError(f"its observations are {step[0].shape}, of another network")
                agent.replay.add(*step)
        return agent

    def set_parameters(self, path: str | os.PathLike[str]) -> None:
        """Begin with the networks of another agent, trained on any network, and nothing else.

        Raises:
            ValueError: if the file is not an LFGCL agent's, or its networks have another size.
            OSError: if it cannot be read.
        """
        agent_file.restore_networks(self, path)
        self._head_start = self.arguments.head_start


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, clip: float | None = None) -> None:
    """Take a step down a loss's gradient, whose norm is clipped; other parameters get none."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def _waves(observation: Observation) -> NDArray[np.float64]:
    """Return functions of depth that smooth noise is made of; (3, groups)."""
    depth = np.asarray(observation, dtype=np.float64)[:, POSITION]
    return np.stack([depth, np.sin(np.pi * depth), np.cos(np.pi * depth)])


def _action(keep: Tensor) -> Action:
    action: Action = (1.0 - keep.double()).clamp(0, 1).numpy().astype(np.float32)
    return action


def make(env: gym.Env[Any, Action], seed: int) -> LFGCLAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``.

    >>> import gymnasium as gym, lfgcl_env
    >>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=2)
    >>> agent = make(env, seed=0).learn(total_timesteps=3)
    >>> observation, _ = env.reset()
    >>> action, _ = agent.predict(observation, deterministic=True)
    >>> action.shape
    (9,)
    """
    return LFGCLAgent(env, seed)
