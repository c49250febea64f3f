"""The LFGCL agent: deep deterministic policy gradient over the whole network at once.

An actor sees every group of channels as a row of numbers and answers with all prune ratios
together; an ensemble of critics learns from every evaluation what a strategy is worth; the actor
follows the critics' gradient. This is DDPG (Lillicrap et al., ICLR 2016), which LFGCL (Liu et al.,
2021) uses, made for episodes of one expensive step. What differs from DDPG:

* Actor and critics apply the same weights to every group and exchange a mean message, so that the
  number of groups is not built in and what is learnt carries over to other networks.
* The critics are told the *executed* keep ratios, after projection and rounding, and the error that
  the sensitivity curve in the observation promises for them. Where DDPG stores the action that the
  actor asked for, two actions that gave the same network look different.
* There is no bootstrapping and there are no target networks: an action is a whole strategy and its
  similarity does not depend on the state, with a horizon above one neither.
* The critics learn ``-log(1 - similarity)``, since similarities crowd below 1, relative to what is
  usual on the budget at hand, standardised and cut off far below; by a Huber loss, with weight
  decay. The actor's gradient is clipped.
* Inputs are the observation's columns, the same relative to the other groups of this network, and
  waves of the position. Columns that change within an episode are left out.
* Four critics with batches of their own, many updates per evaluation, and the actor follows their
  mean. The projection onto the budget is part of the actor: its gradient passes through it.
* Exploration is Gaussian in logits of keep ratios and anneals. A part of it varies smoothly over
  depth, since independent noise in many groups averages out and leaves the budget where it was
  among the stages. Of many noisy actions, around the actor's and around the best strategies so far,
  the one with the highest mean plus spread of the critics is executed. The first action is the
  actor's own, without noise.
* A strategy that was scored before teaches nothing: the noise grows until a new one is tried.
* The best strategy is kept; ``predict`` answers with it while the critics know nothing better for
  the budget in the observation.

What differs from AMC's agent (He et al., ECCV 2018), besides: one action for all layers instead of
one a layer, eight evaluations around the untrained actor instead of a hundred random episodes, no
moving-average baseline. Against the paper of LFGCL, of which only the abstract can be read, all of
this is our own.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.envs.embedding import FEATURES

Action = NDArray[np.float32]
Observation = NDArray[np.float32]

ERRORS = ((1.0, None), (0.75, "error_75"), (0.5, "error_50"), (0.25, "error_25"), (0.0, None))
"""Points of the sensitivity curve: keep ratio and the observation's column; none at the ends."""

STATIC = FEATURES.index("keep_ratio")  # the columns before it do not change
BUDGET = FEATURES.index("budget")
POSITION = FEATURES.index("position")
GAIN = FEATURES.index("gain")
FREQUENCIES = 3  # sines and cosines of the position, so that single groups can be told apart


@dataclass(frozen=True)
class Arguments:
    """Settings of the agent."""

    hidden: int = 64  # units of every hidden layer
    critics: int = 4  # members of the ensemble
    actor_learning_rate: float = 3e-3  # of Adam
    critic_learning_rate: float = 3e-3  # of AdamW
    weight_decay: float = 1e-3  # of the critics
    batch_size: int = 32  # strategies in a critic's batch
    updates: int = 20  # of critics and actor after every evaluation
    noise: float = 0.6  # standard deviation of the exploration at the start, in logits
    last_noise: float = 0.1  # and at the end
    anneal: int = 250  # evaluations until the end is reached
    smooth: float = 1.0  # noise that varies smoothly over depth, relative to that of single groups
    smooth_share: float = 0.7  # of noisy actions that have such a part
    candidates: int = 64  # noisy actions of which the critics choose one
    optimism: float = 0.5  # weight of the critics' spread in this choice
    warm_up: int = 8  # evaluations before the critics are asked
    head_start: int = 125  # evaluations of annealing and warm-up that another run's agent spares
    elites: int = 4  # strategies so far that noise is also put on


class LFGCLAgent:
    """See the module's docstring.

    Args:
        env: an environment with observations (groups, features), actions in [0, 1] (groups,).
        seed: decides everything.
        arguments: settings.

    Raises:
        ValueError: if the environment is another.
    """

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
        self.arguments = arguments or Arguments()
        self.losses: dict[str, float] = {}
        self._draws = np.random.default_rng(seed)
        self._torch = torch.Generator().manual_seed(seed)
        a = self.arguments
        self.actor = Actor(a.hidden, self._torch)
        self.critics = Critics(a.hidden, a.critics, self._torch)
        self._actor_optimizer = torch.optim.Adam(self.actor.parameters(), a.actor_learning_rate)
        self._critic_optimizer = torch.optim.AdamW(
            self.critics.parameters(), a.critic_learning_rate, weight_decay=a.weight_decay
        )
        self.replay = Replay()
        self._repeated = 0
        self._head_start = 0

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
        for _ in range(total_timesteps):
            action = self._explore(observation)
            following, _, terminated, truncated, info = self.env.step(action)
            new = self.replay.add(observation, info["prune_ratios"], info["similarity"])
            self._repeated = 0 if new else self._repeated + 1
            if new and len(self.replay) > self.arguments.warm_up:
                self.update()
            observation = following
            if terminated or truncated:
                observation, _ = self.env.reset()
            if callback is not None and not callback(locals(), globals()):
                break
        return self

    @torch.no_grad()
    def predict(self, observation: Observation, **_: Any) -> tuple[Action, None]:
        """Return the best known action for the observation's budget, and no state.

        Observations (n, groups, features) of several environments have actions (n, groups).

        It is the actor's, or that of the best strategy so far moved to this budget, whichever the
        critics value more; before the first evaluation (of an agent that was loaded, too) the
        actor's.
        """
        if np.ndim(observation) == 3:
            return np.stack([self.predict(one)[0] for one in observation]), None
        layers = Layers(observation)
        logits = self.actor(layers)
        if len(self.replay):
            value, known = self._known(layers)
            if float(value[0]) >= float(self.critics(layers, layers.on_budget(logits)).mean()):
                logits = known[:1]
        return _action(layers.on_budget(logits)[0]), None

    def update(self) -> None:
        """Train critics and actor on the replay for ``updates`` steps each."""
        a = self.arguments
        layers, keep, value = self.replay.tensors()
        for _ in range(a.updates):
            rows = torch.randint(
                len(value), (a.critics, min(a.batch_size, len(value))), generator=self._torch
            )
            found = self.critics(layers.take(rows), keep[rows], own=True)
            critic_loss = F.smooth_l1_loss(found, value[rows])
            self._critic_optimizer.zero_grad()
            critic_loss.backward()  # type: ignore[no-untyped-call]
            self._critic_optimizer.step()

        budgets = torch.randperm(len(value), generator=self._torch)[:16]
        seen = layers.take(budgets) if self.replay.many_budgets else layers.take(budgets[:1])
        for _ in range(a.updates):
            actor_loss = -self.critics(seen, seen.on_budget(self.actor(seen))).mean()
            self._actor_optimizer.zero_grad()
            actor_loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.actor.parameters(), 1.0)
            self._actor_optimizer.step()
        self.losses = {"critic": float(critic_loss.detach()), "actor": float(actor_loss.detach())}

    @torch.no_grad()
    def _explore(self, observation: Observation) -> Action:
        a, count = self.arguments, len(self.replay)
        layers = Layers(observation)
        centres = self.actor(layers)
        if count == 0:
            return _action(layers.on_budget(centres)[0])
        count += self._head_start
        if count > a.warm_up:
            centres = torch.cat([centres, self._known(layers)[1][: a.elites]])
        noise = a.noise + (a.last_noise - a.noise) * min(1.0, count / a.anneal)
        noise *= 1.5 ** min(self._repeated, 8)
        chosen = self._draws.integers(len(centres), size=a.candidates)
        shape = (a.candidates, centres.shape[1])
        scale = noise * self._draws.uniform(0.3, 1.7, size=(a.candidates, 1))
        some = self._draws.uniform(size=shape) < self._draws.uniform(0.2, 1.0, size=(shape[0], 1))
        moves = self._draws.standard_normal(shape) * scale * some
        waves = _smooth(observation)
        smooth = self._draws.standard_normal((a.candidates, len(waves))) @ waves
        has = self._draws.uniform(size=(a.candidates, 1)) < a.smooth_share
        moves += a.smooth * noise * smooth * has
        keep = layers.on_budget(centres[torch.from_numpy(chosen)] + torch.from_numpy(moves).float())
        if count <= a.warm_up:
            return _action(keep[0])
        found = self.critics(layers, keep)
        best = (found.mean(0) + a.optimism * found.std(0)).argmax()
        return _action(keep[best])

    def _known(self, layers: "Layers") -> tuple[Tensor, Tensor]:
        """Strategies so far, moved to a budget: their values, highest first, and logits.

        A value is what the critics say of the strategy once moved, corrected by how wrong they are
        about it where it was scored; for the budget at which it was scored that is its score.
        """
        scored, keep, value = self.replay.tensors()
        logits = _logits(keep)
        if self.replay.many_budgets:
            moved = self.critics(layers, layers.on_budget(logits)).mean(0)
            value = value + moved - self.critics(scored, keep).mean(0)
        order = value.argsort(descending=True)
        return value[order], logits[order]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write networks, settings and replay to a file, at exactly this path."""
        torch.save(
            {
                "arguments": asdict(self.arguments),
                "seed": self.seed,
                "actor": self.actor.state_dict(),
                "critics": self.critics.state_dict(),
                "replay": self.replay.state(),
                "head_start": self._head_start,
            },
            path,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], env: gym.Env[Any, Any]) -> "LFGCLAgent":
        """Read what :meth:`save` wrote, for the environment that it was learnt on or its like.

        Raises:
            ValueError: if the file is not an LFGCL agent's.
            OSError: if it cannot be read.
        """
        found = _read(path)
        known = {field.name for field in fields(Arguments)}
        if set(found["arguments"]) != known:
            raise ValueError(f"{os.fspath(path)} is of another version of this agent")
        agent = cls(env, found["seed"], Arguments(**found["arguments"]))
        agent._take(found, path)
        agent.replay = Replay.of(found["replay"])
        agent._head_start = found["head_start"]
        return agent

    def set_parameters(self, path: str | os.PathLike[str]) -> None:
        """Begin with the networks that another agent learnt, on any network, and nothing else.

        Raises:
            ValueError: if the file is not an LFGCL agent's, or its networks have another size.
            OSError: if it cannot be read.
        """
        self._take(_read(path), path)
        self._head_start = self.arguments.head_start

    def _take(self, found: dict[str, Any], path: str | os.PathLike[str]) -> None:
        try:
            self.actor.load_state_dict(found["actor"])
            self.critics.load_state_dict(found["critics"])
        except RuntimeError as error:
            raise ValueError(
                f"the networks in {os.fspath(path)} do not fit: {' '.join(str(error).split())}"
            ) from error


class Layers:
    """What an observation says of the groups, as inputs of actor and critics.

    Args:
        observations: (groups, features), or several: (..., groups, features).

    Attributes:
        rows: (batch, groups, inputs): what does not change, as it is and relative to the network's
            other groups; waves of the position; the budget.
        errors: the sensitivity curve at the keep ratios in ``ERRORS``; (batch, groups, points).
        gain: share of all MACs in removing a group whole; (batch, groups).
        budget: (batch,).
    """

    def __init__(self, observations: Observation | Tensor) -> None:
        seen = torch.as_tensor(observations, dtype=torch.float32)
        seen = seen if seen.dim() > 2 else seen[None]
        static, self.budget = seen[..., :STATIC], (seen[..., 0, BUDGET] + 1) / 2
        ones = torch.ones_like(seen[..., 0])
        ends = {1.0: 0.0 * ones, 0.0: ones}
        self.errors = torch.stack(
            [
                ends[keep] if name is None else (seen[..., FEATURES.index(name)] + 1) / 2
                for keep, name in ERRORS
            ],
            dim=-1,
        )
        self.gain = (seen[..., GAIN] + 1) / 2  # halving saves at most half of all MACs
        wide = torch.cat([static, (self.errors[..., 1:-1] + 1e-3).log()], dim=-1)
        relative = (wide - wide.mean(-2, keepdim=True)) / (wide.std(-2, keepdim=True) + 0.05)
        turns = torch.pi * seen[..., POSITION, None] * 2.0 ** torch.arange(FREQUENCIES)
        budget = _logits(self.budget)[..., None, None].expand(*seen.shape[:-1], 1)
        self.rows = torch.cat(
            [static, relative.clamp(-3, 3), turns.sin(), turns.cos(), budget], dim=-1
        )

    def take(self, index: Tensor) -> "Layers":
        """Some of the batch, in the shape of the index."""
        taken = object.__new__(Layers)
        for name in ("rows", "errors", "gain", "budget"):
            setattr(taken, name, getattr(self, name)[index])
        return taken

    def on_budget(self, logits: Tensor) -> Tensor:
        """Keep ratios of logits after the common shift that meets the budget; differentiable.

        MACs are taken to be linear in keep ratios, which they are unless two groups meet in a
        layer. The environment's own projection corrects the rest.

        Args:
            logits: (batch, groups).
        """
        whole = self.gain.sum(-1, keepdim=True)
        target = (whole - (1 - self.budget[..., None])).clamp(min=1e-3 * whole)
        with torch.no_grad():
            low, high = torch.full_like(logits[..., :1], -12.0), torch.full_like(target, 12.0)
            high = high.expand_as(low)
            for _ in range(24):
                shift = (low + high) / 2
                above = (self.gain * torch.sigmoid(logits + shift)).sum(-1, keepdim=True) > target
                low, high = torch.where(above, low, shift), torch.where(above, shift, high)
        keep = torch.sigmoid(logits + shift)
        spent = (self.gain * keep).sum(-1, keepdim=True)
        slope = (self.gain * keep * (1 - keep)).sum(-1, keepdim=True).detach() + 1e-6
        # Zero, with the gradient of the shift by the implicit function theorem.
        correction = -(spent - spent.detach()) / slope
        return torch.sigmoid(logits + shift + correction)

    def error_at(self, keep: Tensor) -> Tensor:
        """The sensitivity curve, linear between its points; like ``keep``."""
        points = [point for point, _ in ERRORS]
        error = torch.zeros_like(keep)
        for index in range(len(points) - 1):
            high, low = points[index], points[index + 1]
            part = ((high - keep) / (high - low)).clamp(0, 1)
            error = error + part * (self.errors[..., index + 1] - self.errors[..., index])
        return error


INPUTS = 2 * STATIC + (len(ERRORS) - 2) + 2 * FREQUENCIES + 1


class Actor(nn.Module):
    """Rows of groups to logits of keep ratios; equal logits (uniform ratios) before it learns."""

    def __init__(self, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = Linears(1, INPUTS, hidden, generator)
        self.second = Linears(1, 2 * hidden, hidden, generator)
        self.last = Linears(1, hidden, 1, generator)
        nn.init.zeros_(self.last.weight)

    def forward(self, layers: Layers) -> Tensor:
        """Logits; (batch, groups)."""
        hidden = exchange(F.silu(self.first(layers.rows[None])))
        logits: Tensor = self.last(F.silu(self.second(hidden)))[0, ..., 0]
        return 4 * torch.tanh(logits / 4)


class Critics(nn.Module):
    """An ensemble: rows of groups and keep ratios to values of strategies."""

    def __init__(self, hidden: int, members: int, generator: torch.Generator) -> None:
        super().__init__()
        self.members = members
        self.first = Linears(members, INPUTS + 4, hidden, generator)
        self.second = Linears(members, 2 * hidden, hidden, generator)
        self.last = Linears(members, hidden, 1, generator)

    def forward(self, layers: Layers, keep: Tensor, own: bool = False) -> Tensor:
        """Values; (members, batch).

        Args:
            layers: of a batch, or of one that holds for all.
            keep: keep ratios; (batch, groups).
            own: the batch has a leading dimension, a part for every member.
        """
        logits, error = _logits(keep), layers.error_at(keep)
        strategy = torch.stack(
            [2 * keep - 1, logits / 2, 4 * error, 4 * layers.gain * (1 - keep)], dim=-1
        )
        rows = torch.cat([layers.rows.expand(*strategy.shape[:-1], INPUTS), strategy], dim=-1)
        hidden = exchange(F.silu(self.first(rows if own else rows[None])))
        value: Tensor = self.last(F.silu(self.second(hidden)))[..., 0].sum(-1)
        return value


class Linears(nn.Module):
    """Linear layers of all members of an ensemble at once."""

    def __init__(self, members: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = torch.randn(members, inputs, outputs, generator=generator) / inputs**0.5
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(members, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """(members or 1, batch, groups, inputs) to (members, batch, groups, outputs)."""
        members, (batch, groups) = len(self.weight), inputs.shape[1:3]
        flat = inputs.expand(members, *inputs.shape[1:]).reshape(members, batch * groups, -1)
        return torch.baddbmm(self.bias[:, None], flat, self.weight).view(members, batch, groups, -1)


def exchange(hidden: Tensor) -> Tensor:
    """Give every group the mean of all groups besides its own; (..., groups, 2 x hidden)."""
    return torch.cat([hidden, hidden.mean(-2, keepdim=True).expand_as(hidden)], dim=-1)


class Replay:
    """All distinct strategies so far: observation, executed keep ratios, similarity."""

    def __init__(self) -> None:
        self._items: dict[tuple[bytes, float], tuple[Observation, Action, float]] = {}

    def __len__(self) -> int:
        return len(self._items)

    @property
    def many_budgets(self) -> bool:
        """Whether there are several budgets in it."""
        return len({budget for _, budget in self._items}) > 1

    def add(self, observation: Observation, prune_ratios: Any, similarity: float) -> bool:
        """Take in a strategy, and tell whether it is new."""
        keep = 1.0 - np.asarray(prune_ratios, dtype=np.float32)
        key = (keep.tobytes(), float(observation[0, BUDGET]))
        new = key not in self._items
        if new:
            self._items[key] = (np.asarray(observation), keep, float(similarity))
        return new

    def tensors(self) -> tuple[Layers, Tensor, Tensor]:
        """Layers, keep ratios (strategies, groups), and values (strategies,).

        Values are relative to what is usual on their budget, a cubic fitted to all of them, and
        standardised.
        """
        observations, keep, similarity = (
            np.stack(part) for part in zip(*self._items.values(), strict=True)
        )
        layers = Layers(observations)
        value = -np.log(np.maximum(1.0 - similarity.astype(np.float64), 1e-6))
        budgets = _logits(layers.budget.double()).numpy()
        degree = min(3, len(set(budgets.tolist())) - 1)
        value = value - np.polyval(np.polyfit(budgets, value, degree), budgets)
        value = np.maximum(value / (value.std() + 1e-6), -3.0)
        return layers, torch.from_numpy(keep), torch.from_numpy(value).float()

    def state(self) -> dict[str, Tensor]:
        """What :meth:`of` reads."""
        parts = (np.stack(part) for part in zip(*self._items.values(), strict=True))
        names = ("observations", "keep", "similarity")
        return (
            {n: torch.from_numpy(p) for n, p in zip(names, parts, strict=True)}
            if self._items
            else {}
        )

    @staticmethod
    def of(state: dict[str, Tensor]) -> "Replay":
        """A replay from its state."""
        replay = Replay()
        for o, keep, similarity in zip(*(state[n].numpy() for n in state), strict=True):
            replay.add(o, 1.0 - keep, similarity)
        return replay


def _logits(keep: Tensor) -> Tensor:
    return keep.clamp(0.02, 0.98).logit()


def _action(keep: Tensor) -> Action:
    action: Action = (1.0 - keep.double()).clamp(0, 1).numpy().astype(np.float32)
    return action


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        found = torch.load(path, weights_only=True)
        missing = {"arguments", "seed", "actor", "critics", "replay", "head_start"} - set(found)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{os.fspath(path)} is not a file of the LFGCL agent") from error
    if missing:
        raise ValueError(f"{os.fspath(path)} is not a file of the LFGCL agent")
    return dict(found)


def _smooth(observation: Observation) -> NDArray[np.float64]:
    """Functions of depth that smooth noise is made of; (3, groups)."""
    depth = np.asarray(observation, dtype=np.float64)[:, POSITION]
    return np.stack([depth, np.sin(np.pi * depth), np.cos(np.pi * depth)])


def make(env: gym.Env[Any, Action], seed: int) -> LFGCLAgent:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return LFGCLAgent(env, seed)
