"""AMC's agent: DDPG that decides layer by layer and gives every decision the episode's return.

Source: He et al., *AMC: AutoML for Model Compression and Acceleration on Mobile Devices*, ECCV
2018, section 3.2, and the authors' code (mit-han-lab/amc, ``lib/agent.py``, ``amc_search.py``),
whose settings these are. In 100 episodes actions are random. After that they are drawn from a
truncated normal distribution around the actor's answer, whose standard deviation of 0.5 shrinks by
5 % an episode. At an episode's end its return, which in AMC's environment is the last reward, is
stored with each of its transitions, and the networks are updated once for each of them. A moving
average is subtracted from the rewards of a batch; the discount is 1. Run it with::

    lfgcl prune AMC-ResNet20-v0 --agent lfgcl_env.baselines.amc:make --out runs/amc

Where the paper and the code differ, it follows the code:

- the paper explores 100 episodes with constant noise, the code takes uniform actions;
- the paper keeps 2,000 transitions, the code those of the last 100 episodes;
- the baseline is the paper's moving average of rewards, in the code of the means of batches.

What differs from the code:

- random actions end after 100 episodes, where ``<=`` makes it 101 there, and the noise then begins
  at 0.5, where it begins at 0.475 there;
- actions are prune ratios, where theirs are ratios that are preserved;
- at the end of every episode the code stores its last state once more, to have a successor to the
  state before, and never draws what follows an end. Here transitions hold their successor;
- a batch larger than what is stored cannot occur there; here it is drawn with repetition;
- the code stores the actions that the actor asked for, although the environment bounds and rounds
  them. With ``store="executed"`` (:func:`make_executed`) those that were executed are stored.

It also runs on the global environment, whose actions have more than one entry and whose
observations it flattens, but there is no ``info["executed_action"]`` there.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.networks.draws import own_draws

Action = NDArray[np.float32]
State = NDArray[np.float32]

STORED = ("requested", "executed")


@dataclass(frozen=True)
class Arguments:
    """Settings of the agent."""

    hidden: int = 300  # units of either hidden layer
    actor_learning_rate: float = 1e-4  # of Adam
    critic_learning_rate: float = 1e-3  # of Adam
    batch_size: int = 64  # transitions in an update
    discount: float = 1.0  # of what follows a transition
    tau: float = 0.01  # how far the target networks follow in an update
    warm_up: int = 100  # episodes of random actions, without updates
    noise: float = 0.5  # standard deviation of the exploration after that
    noise_decay: float = 0.95  # its factor an episode
    memory: int = 100  # episodes whose transitions are kept
    baseline_weight: float = 0.5  # of the newest batch in the moving average of rewards
    store: str = "requested"  # which actions are stored: requested or executed


class Transition(NamedTuple):
    """One decision, as it is stored at its episode's end.

    Attributes:
        state: before it; (features,).
        action: prune ratios, requested or executed; (actions,).
        reward: the return of the episode.
        following: the state after it; (features,).
        over: whether the episode ended with it.
    """

    state: State
    action: Action
    reward: float
    following: State
    over: bool


class AMCAgent:
    """See the module's docstring.

    Args:
        env: an environment whose actions are prune ratios.
        seed: decides everything.
        arguments: settings.

    Raises:
        ValueError: if ``arguments.store`` is unknown.

    Attributes:
        episodes: finished so far.
        memory: transitions, the oldest first.
        moving_average: of the rewards in batches; None before the first update.
        losses: of the last update.
    """

    def __init__(
        self, env: gym.Env[Any, Action], seed: int, arguments: Arguments | None = None
    ) -> None:
        assert isinstance(env.action_space, gym.spaces.Box)
        assert isinstance(env.observation_space, gym.spaces.Box)
        self.env, self.seed = env, seed
        self.arguments = a = arguments or Arguments()
        check_choice(a.store, STORED, "kind of stored actions")
        self.episodes = 0
        self.memory: list[Transition] = []
        self.moving_average: float | None = None
        self.losses: dict[str, float] = {}
        self._draws = np.random.default_rng(seed)
        features = int(np.prod(env.observation_space.shape))
        self._actions = int(np.prod(env.action_space.shape))
        with own_draws(seed):
            self.actor = Actor(features, self._actions, a.hidden)
            self.critic = Critic(features, self._actions, a.hidden)
            self.target_actor = Actor(features, self._actions, a.hidden)
            self.target_critic = Critic(features, self._actions, a.hidden)
        self._align_targets()
        self._actor_optimizer = torch.optim.Adam(self.actor.parameters(), a.actor_learning_rate)
        self._critic_optimizer = torch.optim.Adam(self.critic.parameters(), a.critic_learning_rate)

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
    ) -> "AMCAgent":
        """Step the environment until ``callback`` returns False, at most ``total_timesteps`` times.

        Args:
            total_timesteps: most steps.
            callback: called after every step with the local and the global variables.

        Raises:
            ValueError: if executed actions are to be stored and ``info`` does not hold them.
        """
        state, returned = _flat(self.env.reset(seed=self.seed)[0]), 0.0
        steps: list[Transition] = []
        for _ in range(total_timesteps):
            action = self.explore(state)
            observation, reward, terminated, truncated, info = self.env.step(action)
            over, following = terminated or truncated, _flat(observation)
            returned += float(reward)
            steps.append(Transition(state, self._to_store(action, info), 0.0, following, over))
            state = following
            if over:
                self.end_episode(steps, returned)
                state, steps, returned = _flat(self.env.reset()[0]), [], 0.0
            if callback is not None and not callback(locals(), globals()):
                break
        return self

    def predict(self, observation: Any, **_: Any) -> tuple[Action, None]:
        """Return the actor's action without noise, and no state."""
        with torch.no_grad():
            action: Action = self.actor(torch.from_numpy(_flat(observation))).numpy()
        return action, None

    def deviation(self) -> float:
        """Standard deviation of the exploration in the episode at hand, after the random ones."""
        a = self.arguments
        return float(a.noise * a.noise_decay ** (self.episodes - a.warm_up))

    def explore(self, state: State) -> Action:
        """Draw an action: uniformly at first, then around the actor's."""
        if self.episodes < self.arguments.warm_up:
            return self._draws.uniform(0.0, 1.0, self._actions).astype(np.float32)
        return truncated_normal(self.predict(state)[0], self.deviation(), self._draws)

    def end_episode(self, steps: list[Transition], returned: float) -> None:
        """Store an episode's transitions with its return, and update once for each of them.

        Args:
            steps: the episode's transitions, whose rewards are replaced.
            returned: the sum of the episode's rewards.
        """
        for step in steps:
            self.memory.append(step._replace(reward=returned))
            del self.memory[: -self.arguments.memory * len(steps)]
            if self.episodes >= self.arguments.warm_up:
                self.update()
        self.episodes += 1

    def update(self) -> None:
        """Draw a batch, and take a step with critic, actor and target networks."""
        a = self.arguments
        repeated = len(self.memory) < a.batch_size
        chosen = self._draws.choice(len(self.memory), a.batch_size, replace=repeated)
        batch = [self.memory[index] for index in chosen]
        states = torch.from_numpy(np.stack([step.state for step in batch]))
        actions = torch.from_numpy(np.stack([step.action for step in batch]))
        following = torch.from_numpy(np.stack([step.following for step in batch]))
        goes_on = torch.tensor([[not step.over] for step in batch], dtype=torch.float32)
        rewards = torch.tensor([[step.reward] for step in batch], dtype=torch.float64)
        rewards = (rewards - self._average(float(rewards.mean()))).float()

        with torch.no_grad():
            values = self.target_critic(following, self.target_actor(following))
            targets = rewards + a.discount * goes_on * values
        critic_loss = F.mse_loss(self.critic(states, actions), targets)
        self._critic_optimizer.zero_grad()
        critic_loss.backward()  # type: ignore[no-untyped-call]
        self._critic_optimizer.step()

        actor_loss = -self.critic(states, self.actor(states)).mean()
        self._actor_optimizer.zero_grad()
        actor_loss.backward()
        self._actor_optimizer.step()

        with torch.no_grad():
            for target, network in self._pairs():
                for old, new in zip(target.parameters(), network.parameters(), strict=True):
                    old.lerp_(new, a.tau)
        self.losses = {"critic": float(critic_loss.detach()), "actor": float(actor_loss.detach())}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the networks to a file, at exactly this path."""
        torch.save({"actor": self.actor.state_dict(), "critic": self.critic.state_dict()}, path)

    def set_parameters(self, path: str | os.PathLike[str]) -> None:
        """Start from the networks of a saved agent; the random episodes still come first.

        Raises:
            ValueError: if the file is not an AMC agent's, or its networks have another size.
            OSError: if it cannot be read.
        """
        try:
            found = torch.load(path, weights_only=True)
            self.actor.load_state_dict(found["actor"])
            self.critic.load_state_dict(found["critic"])
        except OSError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{os.fspath(path)} holds no networks of an AMC agent for this environment "
                f"({reason})"
            ) from error
        self._align_targets()

    def _average(self, mean: float) -> float:
        """Update the moving average with a batch's mean reward, and return it."""
        if self.moving_average is None:
            self.moving_average = mean
        self.moving_average += self.arguments.baseline_weight * (mean - self.moving_average)
        return self.moving_average

    def _to_store(self, action: Action, info: dict[str, Any]) -> Action:
        if self.arguments.store == "requested":
            return action
        if "executed_action" not in info:
            raise ValueError(
                "executed actions can be stored where info holds 'executed_action', as in "
                "AMC-ResNet20-v0: store requested ones here"
            )
        return np.array([info["executed_action"]], dtype=np.float32)

    def _pairs(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        return (self.target_actor, self.actor), (self.target_critic, self.critic)

    def _align_targets(self) -> None:
        for target, network in self._pairs():
            target.load_state_dict(network.state_dict())


class Actor(nn.Module):
    """From a state to prune ratios."""

    def __init__(self, features: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, actions)

    def forward(self, states: Tensor) -> Tensor:
        """Return prune ratios in (0, 1); (..., actions)."""
        hidden = torch.relu(self.second(torch.relu(self.first(states))))
        return torch.sigmoid(self.last(hidden))


class Critic(nn.Module):
    """From a state and an action to the sum of rewards to come, less the moving averages."""

    def __init__(self, features: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.of_state = nn.Linear(features, hidden)
        self.of_action = nn.Linear(actions, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return values; (..., 1)."""
        first = torch.relu(self.of_state(states) + self.of_action(actions))
        values: Tensor = self.last(torch.relu(self.second(first)))
        return values


def truncated_normal(mean: Action, deviation: float, draws: np.random.Generator) -> Action:
    """Draw from normal distributions cut off outside [0, 1], by their inverse distribution.

    Args:
        mean: of the distributions before they are cut; (actions,), in [0, 1].
        deviation: their standard deviation before that.
        draws: a uniform number is drawn for each.
    """
    centre = torch.from_numpy(mean.astype(np.float64))
    low = torch.special.ndtr((0.0 - centre) / deviation)
    high = torch.special.ndtr((1.0 - centre) / deviation)
    share = torch.from_numpy(draws.uniform(size=mean.shape))
    drawn = centre + deviation * torch.special.ndtri(low + share * (high - low))
    return drawn.clamp(0.0, 1.0).numpy().astype(np.float32)


def _flat(observation: Any) -> State:
    return np.ravel(observation).astype(np.float32)


def make(env: gym.Env[Any, Action], seed: int) -> AMCAgent:
    """Make the agent as published, see ``lfgcl_env.search.protocol.AgentFactory``."""
    return AMCAgent(env, seed)


def make_executed(env: gym.Env[Any, Action], seed: int) -> AMCAgent:
    """Make the agent that learns from the actions that were executed."""
    return AMCAgent(env, seed, Arguments(store="executed"))
