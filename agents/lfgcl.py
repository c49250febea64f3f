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
  is the actor's own, without noise, or what the search begins at.
* Where steps are costly and the environment offers cheap scores (:mod:`._screening`), the few
  best-valued proposals are screened, and the critics learn both scores, with a head for each. A
  proposal's value is corrected by what its cheap score is beyond the expected one, as far as cheap
  scores have ranked returns: a control variate.
* Where the environment has several workers, as many strategies are proposed from what the critics
  know, scored ahead, and executed one after the other; the critics learn after each.
* A strategy that was scored before is no news: the noise grows until a new one is executed.
* ``predict`` returns the best strategy so far, unless the critics value the actor's more.

Besides these it differs from AMC's agent (He et al., ECCV 2018) in deciding all layers at once, and
in eight evaluations around the untrained actor instead of a hundred random episodes. Of LFGCL's
paper only the abstract can be read: the parts that are not DDPG are our own.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.envs.choice import Choice
from lfgcl_env.envs.embedding import FEATURES
from lfgcl_env.envs.together import begin_ahead, room_ahead

from . import _agent_file as agent_file
from ._actor_critics import Actor, Critics
from ._groups import POSITION, Groups, logits_of
from ._lfgcl_arguments import Arguments
from ._promise import Promise
from ._replay import Action, Observation, Replay
from ._screening import Screening


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
        self.replay, self.cheap = Replay(a), Replay(a)
        self._screening = Screening(env)
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
        proposed: list[_Proposed] = []
        for left in range(total_timesteps, 0, -1):
            room = min(room_ahead(self.env, len(proposed)), left - len(proposed))
            proposed += self._propose(observation, room)
            begin_ahead(self.env, [self._screening.ahead(one.choice) for one in proposed], room)
            action = self._decide(proposed.pop(0))
            following, reward, terminated, truncated, info = self.env.step(action)
            episode_return += float(reward)
            keep = np.asarray(1.0 - np.asarray(info["prune_ratios"]), np.float32)
            new = self.replay.add(observation, keep, episode_return)
            if new:
                cheap = self._screening.learn(action, info, episode_return)
                if cheap is not None:
                    self.cheap.add(observation, keep, cheap)
            self._repeated = 0 if new else self._repeated + 1
            if new and len(self.replay) > self.arguments.warm_up:
                self.update()
            observation = following
            if terminated or truncated:
                # Those that were scored ahead are of this budget.
                options = {"budget": info["budget"]} if proposed else None
                observation, _ = self.env.reset(options=options)
                episode_return = 0.0
            if callback is not None and not callback(locals(), globals()):
                break
        return self

    @torch.no_grad()
    def predict(self, observation: Observation, **_: Any) -> tuple[Action, None]:
        """Return the best action for the observation's budget, and no state.

        It is the best strategy so far, moved to this budget, or the actor's, whichever the critics
        value more; before the first evaluation, of a loaded agent too, what it begins at, or else
        the actor's.
        Observations (n, groups, features) have actions (n, groups).
        """
        if np.ndim(observation) == 3:
            return np.stack([self.predict(one)[0] for one in observation]), None
        if self._first is not None and not len(self.replay):
            return self._first, None
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
        groups, _, value = self.replay.tensors()
        cheap_batches = self._batches(self.cheap) if len(self.cheap) else repeat(None)
        for (seen, strategy, wanted), cheap in zip(
            self._batches(self.replay), cheap_batches, strict=False
        ):
            critic_loss = F.smooth_l1_loss(self.critics.heads(seen, strategy)[0], wanted)
            if cheap is not None:
                seen, strategy, wanted = cheap
                critic_loss = critic_loss + F.smooth_l1_loss(
                    self.critics.heads(seen, strategy)[1], wanted
                )
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

    def _batches(self, replay: Replay) -> Iterator[tuple[Groups, Tensor, Tensor]]:
        """Yield a batch for every critic and update: groups, strategies, values."""
        a = self.arguments
        groups, keep, value = replay.tensors()
        strategy = groups.describe(keep)
        shape = (a.updates, a.critics, min(a.batch_size, len(value)))
        for batch in torch.randint(len(value), shape, generator=self.generator):
            yield groups[batch], strategy[batch], value[batch]

    def _propose(self, observation: Observation, count: int) -> list["_Proposed"]:
        """Return what to execute next, so many, but one at first: without noise all are alike."""
        count = count if len(self.replay) else min(count, 1)
        return [self._explore(observation) for _ in range(count)]

    def _decide(self, proposed: "_Proposed") -> Action:
        """Return the most promising of some proposals; the critics then learn all cheap scores."""
        place, scores = self._screening.decide(proposed.choice)
        if scores is not None:
            for one, score in zip(proposed.keep, scores.tolist(), strict=True):
                self.cheap.add(proposed.observation, one, score)
        return proposed.choice.actions[place]  # type: ignore[no-any-return]

    @torch.no_grad()
    def _explore(self, observation: Observation) -> "_Proposed":
        """Return the most promising of many proposals by the critics."""
        a, count = self.arguments, len(self.replay)
        groups = Groups.of(observation, a)
        centres = self._actors(groups)
        if count == 0:
            own = _action(groups.on_budget(centres)[0])
            begin = own if self._first is None else self._first
            return self._proposed(observation, Choice(begin[None]))
        count += self._head_start
        if count > a.warm_up or self._first is not None:
            elites = self._best(groups)[1][: a.elites]
            centres = torch.cat([centres, elites]) if a.actor else elites
        keep = groups.on_budget(self._proposals(centres, observation, count))
        if not a.choice:
            return self._proposed(observation, Choice(_action(keep[:1])))
        if count <= a.warm_up:
            return self._screen(observation, keep[: a.screened])
        value, cheap = self.critics.heads(groups, groups.describe(keep))
        upper = value.mean(0) + a.optimism * value.std(0)
        first = upper.argsort(descending=True)[: a.screened]
        return self._screen(observation, keep[first], upper[first], cheap.mean(0)[first])

    def _screen(
        self,
        observation: Observation,
        keep: Tensor,
        value: Tensor | None = None,
        expected: Tensor | None = None,
    ) -> "_Proposed":
        """Return some proposals, of which the most promising by cheap scores is executed.

        Args:
            observation: of this episode.
            keep: keep ratios (proposals, groups), the most valued first.
            value: of the proposals, by the critics; None before they have learned.
            expected: the cheap scores that the critics expect.
        """
        actions, trust = _action(keep), self._screening.trust()
        if value is None or expected is None or not trust:
            return self._proposed(observation, self._screening.choice(actions))
        executed = self._screening.keep_ratios(actions)
        degree = self.arguments.trend_degree
        promise = Promise.of(value, expected, trust, self.cheap, observation, executed, degree)
        return _Proposed(observation, Choice(actions, promise), executed)

    def _proposed(self, observation: Observation, choice: Choice) -> "_Proposed":
        offered = self._screening.offered
        keep = self._screening.keep_ratios(choice.actions) if offered else choice.actions
        return _Proposed(observation, choice, keep)

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
        cheap = [torch.from_numpy(part) for part in self.cheap.arrays()]
        executed = torch.from_numpy(self._screening.state())
        first = [] if self._first is None else [torch.from_numpy(self._first)]
        agent_file.write(
            path, self, replay=replay, cheap=cheap, executed=executed, first=first, counts=counts
        )

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
            for replay, name in ((agent.replay, "replay"), (agent.cheap, "cheap")):
                for step in zip(*(part.numpy() for part in saved[name]), strict=True):
                    if step[0].shape != env.observation_space.shape:
                        raise ValueError(
                            f"its observations are {step[0].shape}, of another network"
                        )
                    replay.add(*step)
            agent._screening.restore(saved["executed"].numpy())
            for first in saved["first"]:
                agent._first = first.numpy()
        return agent

    def set_parameters(self, path: str | os.PathLike[str]) -> None:
        """Begin with the networks of another agent, trained on any network, and nothing else.

        Raises:
            ValueError: if the file is not an LFGCL agent's, or its networks have another size.
            OSError: if it cannot be read.
        """
        agent_file.restore_networks(self, path)
        self._head_start = self.arguments.head_start


class _Proposed(NamedTuple):
    observation: Observation
    choice: Choice
    keep: NDArray[np.float32]  # what would be executed, of every action


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
