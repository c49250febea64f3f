"""Plain DDPG over all layers at once: the control for the LFGCL agent.

Deep deterministic policy gradient (Lillicrap et al., *Continuous control with deep reinforcement
learning*, ICLR 2016) on an environment whose action is a whole strategy, as in LFGCL (Liu et al.,
2021): an actor, a critic of observation and *requested* action, target networks, a replay of every
step, rewards as they are. The actor's action is executed with noise; nothing else is proposed.

Differences from Lillicrap et al.:

* No batch normalisation: the environment scales observations to [-1, 1].
* The actor ends in a sigmoid, as AMC's (He et al., ECCV 2018) does: prune ratios lie in [0, 1].
* Gaussian noise that anneals linearly instead of an Ornstein-Uhlenbeck process. That correlates the
  steps of an episode, and here an episode is one step. Noisy actions are clipped to [0, 1].
* Steps are few and costly: five updates after each instead of one, batches of 32 instead of 64,
  targets that follow faster (tau 0.01, as AMC's, instead of 0.001), and no weight decay (as AMC).
* The actor's learning rate is 1e-5 instead of 1e-4, with which the sigmoid saturated in a wrong
  corner before the critic had learned anything.
* No discount: with a horizon above one, rewards are gains that sum to the last score. With a
  horizon of one every step is terminal, and the target networks change nothing.
* The replay keeps all steps; a search has far fewer than a million.

Differences from AMC's agent: one action for all layers instead of one a layer, no moving-average
baseline of rewards, no random episodes at the beginning.

LFGCL's abstract, all that can be read of it, says that DDPG decides all layers globally. As in DDPG
an MLP sees the flattened observation. The number of groups is built in, so that a trained agent
fits networks with as many groups only.
"""

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from . import _agent_file as agent_file

Action = NDArray[np.float32]
Observation = NDArray[np.float32]


@dataclass(frozen=True)
class Arguments:
    """Settings of the agent."""

    hidden: tuple[int, int] = (400, 300)  # units of both hidden layers
    last_weights: float = 3e-3  # bound of the last layers' uniform initial weights
    actor_learning_rate: float = 1e-5  # of Adam
    critic_learning_rate: float = 1e-3  # of Adam
    weight_decay: float = 0.0  # of the critic
    discount: float = 1.0  # of the next step's value
    tau: float = 0.01  # share of the networks that moves into their targets at every update
    batch_size: int = 32  # steps in a batch
    updates: int = 5  # after every step
    warm_up: int = 25  # steps before the first update
    noise: float = 0.15  # standard deviation of the noise at the start, in prune ratios
    last_noise: float = 0.05  # and at the end
    anneal: int = 250  # steps until the end


# Networks


class Actor(nn.Module):
    """Maps flat observations to prune ratios, all about 0.5 before it learns."""

    def __init__(
        self, inputs: int, actions: int, arguments: Arguments, generator: torch.Generator
    ) -> None:
        super().__init__()
        first, second = arguments.hidden
        self.first = linear(inputs, first, generator)
        self.second = linear(first, second, generator)
        self.last = linear(second, actions, generator, arguments.last_weights)

    def forward(self, observation: Tensor) -> Tensor:
        """Map (batch, inputs) to (batch, actions)."""
        hidden = F.relu(self.second(F.relu(self.first(observation))))
        return torch.sigmoid(self.last(hidden))


class Critic(nn.Module):
    """Maps flat observations and actions to values; actions enter at the second layer."""

    def __init__(
        self, inputs: int, actions: int, arguments: Arguments, generator: torch.Generator
    ) -> None:
        super().__init__()
        first, second = arguments.hidden
        self.first = linear(inputs, first, generator)
        self.second = linear(first + actions, second, generator)
        self.last = linear(second, 1, generator, arguments.last_weights)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Map (batch, inputs) and (batch, actions) to (batch,)."""
        hidden = torch.cat([F.relu(self.first(observation)), action], dim=-1)
        value: Tensor = self.last(F.relu(self.second(hidden)))[..., 0]
        return value


def linear(
    inputs: int, outputs: int, generator: torch.Generator, bound: float | None = None
) -> nn.Linear:
    """Make a linear layer, uniform within +- ``bound``, by default 1 / sqrt(inputs)."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    bound = inputs**-0.5 if bound is None else bound
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


# Replay


class Replay:
    """Every step so far: observation, requested action, reward, next observation, end."""

    def __init__(self) -> None:
        self.steps: list[tuple[Tensor, ...]] = []

    def add(self, step: tuple[Tensor, Tensor, float, Tensor, bool]) -> None:
        """Add a step; its last part says that no reward follows it."""
        self.steps.append(tuple(torch.as_tensor(part, dtype=torch.float32) for part in step))

    def sample(self, count: int, generator: torch.Generator) -> list[Tensor]:
        """Draw steps, and return their parts stacked."""
        drawn = torch.randint(len(self.steps), (count,), generator=generator).tolist()
        return [torch.stack(part) for part in zip(*(self.steps[i] for i in drawn), strict=True)]


# Agent


class PlainDDPG:
    """See the module's docstring.

    Args:
        env: an environment with box observations, and actions in [0, 1] (actions,).
        seed: decides everything.
        arguments: settings.

    Attributes:
        losses: the latest, by name.
    """

    name = "plain_ddpg"

    def __init__(
        self, env: gym.Env[Any, Any], seed: int, arguments: Arguments | None = None
    ) -> None:
        spaces = (env.observation_space, env.action_space)
        inputs, actions = (int(np.prod(space.shape or ())) for space in spaces)
        self.env, self.seed = env, seed
        self.arguments = a = arguments or Arguments()
        self.losses: dict[str, float] = {}
        self.draws = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.actor = Actor(inputs, actions, a, self.generator)
        self.critic = Critic(inputs, actions, a, self.generator)
        self.target_actor, self.target_critic = deepcopy(self.actor), deepcopy(self.critic)
        self.networks = nn.ModuleDict(
            {
                "actor": self.actor,
                "critic": self.critic,
                "target_actor": self.target_actor,
                "target_critic": self.target_critic,
            }
        )
        self._actor_optimizer = torch.optim.Adam(self.actor.parameters(), a.actor_learning_rate)
        self._critic_optimizer = torch.optim.Adam(
            self.critic.parameters(), a.critic_learning_rate, weight_decay=a.weight_decay
        )
        self.optimizers: Sequence[torch.optim.Optimizer]
        self.optimizers = (self._actor_optimizer, self._critic_optimizer)
        self.replay = Replay()

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
    ) -> "PlainDDPG":
        """Step the environment until ``callback`` returns False, at most ``total_timesteps`` times.

        Args:
            total_timesteps: most steps.
            callback: called after every step with the local and the global variables.
        """
        observation, _ = self.env.reset(seed=self.seed)
        for _ in range(total_timesteps):
            action = self._explore(observation)
            following, reward, terminated, truncated, _ = self.env.step(action)
            self.replay.add(
                (flat(observation), flat(action), float(reward), flat(following), terminated)
            )
            if len(self.replay.steps) >= self.arguments.warm_up:
                self.update()
            observation = following
            if terminated or truncated:
                observation, _ = self.env.reset()
            if callback is not None and not callback(locals(), globals()):
                break
        return self

    @torch.no_grad()
    def predict(self, observation: Observation, **_: Any) -> tuple[Action, None]:
        """Return the actor's action, without noise, and no state.

        Observations (n, groups, features) of several environments have actions (n, groups).
        """
        space = self.env.observation_space.shape or ()
        several = np.ndim(observation) > len(space)
        seen = torch.as_tensor(np.asarray(observation, np.float32).reshape(-1, int(np.prod(space))))
        action: Action = self.actor(seen).numpy()
        return (action if several else action[0]), None

    def update(self) -> None:
        """Train critic and actor on the replay for ``updates`` steps each."""
        a = self.arguments
        for _ in range(a.updates):
            batch = self.replay.sample(a.batch_size, self.generator)
            observation, action, reward, following, end = batch
            with torch.no_grad():
                value = self.target_critic(following, self.target_actor(following))
                target = reward + a.discount * (1 - end) * value
            critic_loss = F.mse_loss(self.critic(observation, action), target)
            self._critic_optimizer.zero_grad()
            critic_loss.backward()  # type: ignore[no-untyped-call]
            self._critic_optimizer.step()

            actor_loss = -self.critic(observation, self.actor(observation)).mean()
            self._actor_optimizer.zero_grad()
            actor_loss.backward()  # type: ignore[no-untyped-call]
            self._actor_optimizer.step()

            with torch.no_grad():
                pairs = ((self.actor, self.target_actor), (self.critic, self.target_critic))
                for network, target_network in pairs:
                    for new, old in zip(
                        network.parameters(), target_network.parameters(), strict=True
                    ):
                        old.lerp_(new, a.tau)
        self.losses = {"critic": float(critic_loss.detach()), "actor": float(actor_loss.detach())}

    def _explore(self, observation: Observation) -> Action:
        a = self.arguments
        annealed = min(1.0, len(self.replay.steps) / a.anneal)
        noise = a.noise + (a.last_noise - a.noise) * annealed
        action, _ = self.predict(observation)
        noisy = action + noise * self.draws.standard_normal(action.shape)
        return np.clip(noisy, 0.0, 1.0).astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that :meth:`learn` goes on with to a file, at exactly this path."""
        replay = [torch.stack(part) for part in zip(*self.replay.steps, strict=True)]
        agent_file.write(path, self, replay=replay)

    @classmethod
    def load(cls, path: str | os.PathLike[str], env: gym.Env[Any, Any]) -> "PlainDDPG":
        """Read what :meth:`save` wrote, to go on as that agent would on the same environment.

        Raises:
            ValueError: if the file is not of this agent and version, or does not fit.
            OSError: if it cannot be read.
        """
        saved = agent_file.read(path, cls.name)
        with agent_file.refusing(path, cls.name):
            agent = cls(env, saved["seed"], agent_file.saved_arguments(Arguments, saved))
            agent_file.restore(agent, saved)
            agent.replay.steps = list(zip(*saved["replay"], strict=True))
        return agent

    def set_parameters(self, path: str | os.PathLike[str]) -> None:
        """Begin with the networks of another agent, trained on as many groups, and nothing else.

        Raises:
            ValueError: if the file is not a plain DDPG's, or its networks have another size.
            OSError: if it cannot be read.
        """
        agent_file.restore_networks(self, path)


def flat(numbers: NDArray[np.float32]) -> Tensor:
    """Return an observation or an action as one row."""
    return torch.as_tensor(numbers, dtype=torch.float32).flatten()


def make(env: gym.Env[Any, Action], seed: int) -> PlainDDPG:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return PlainDDPG(env, seed)
