"""GNN-RL: a graph encoder and PPO shrink the network in several steps, until the budget is met.

Source: Yu, Mazaheri and Jannesari, *Topology-Aware Network Pruning using Multi-stage Graph
Embedding and Reinforcement Learning*, ICML 2022, and its code. In every step of an episode each
group loses a fraction of the channels that it still has, or wins some back; once the budget is met,
or after five steps, the episode ends and is rewarded. Nothing is scored before. Sizes and settings
are those of the code: graph convolution to 50 features, mean over nodes, embedding of 50, a hidden
layer of 200 for the actor, updates of 10 passes over 100 steps at once, learning rate 0.0003,
discount 0.99, clipping 0.2.

What differs:

- the graph is the chain of the groups in the network's order, with the environment's embedding of
  each as its node, and encoded in one stage; theirs has a node per operation, and two stages;
- the last strategy is projected onto the budget. Theirs ends at or below it, and an episode that
  does not come so far in five steps is lost with a penalty;
- the reward is the environment's, by default without labels; theirs is minus the error in percent;
- PPO is Stable-Baselines3's: the spread of actions begins at theirs, 0.5, and is trained, gradients
  are clipped, values are not squashed;
- their searches take up to 15,000 episodes; of a few hundred not much can be expected.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.envs.embedding import Embedding
from lfgcl_env.search.record_evaluations import problem_of

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ImportError as error:
    raise ImportError(
        "baselines.gnn_rl needs Stable-Baselines3: run `pip install lfgcl-env[sb3]`"
    ) from error

STEPS = 5
"""Most steps of an episode."""

LOWEST_KEEP_RATIO = 0.1
SETTINGS: dict[str, Any] = {
    "n_steps": 100,
    "batch_size": 100,
    "n_epochs": 10,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "gae_lambda": 1.0,  # returns without bootstrapping
    "clip_range": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
}


class Shrinking(gym.Wrapper[Any, NDArray[np.float32], Any, Any]):
    """Make episodes of several steps, in each of which every group loses a part of its channels.

    An action in [-1, 1] is the fraction of the channels left in each group that goes; a negative
    one brings channels back. Keep ratios stay between ``LOWEST_KEEP_RATIO`` and 1. When the budget
    is met, and at the latest after ``STEPS`` steps, the wrapped environment takes one step with all
    that was removed, whose reward is returned; until then rewards are 0. Observations are the
    environment's embedding of the network so far.

    Args:
        env: an environment whose actions are prune ratios, all of them at once.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._problem = problem_of(env)
        self._embedding = Embedding(self._problem)
        groups = len(self._problem.groups)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (groups,), np.float32)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin with the whole network."""
        observation, info = self.env.reset(**arguments)
        self._budget = info["budget"]
        self._keep_ratios = np.ones(len(self._problem.groups))
        self._steps = 0
        return observation, info

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Shrink every group; score the network if the budget is met or no step is left."""
        left = self._keep_ratios * (1.0 - action)
        self._keep_ratios = np.clip(left, LOWEST_KEEP_RATIO, 1.0)
        self._steps += 1
        channels = self._problem.channels
        keep = np.rint(self._keep_ratios * channels).astype(np.int64)
        keep = np.maximum(self._problem.lowest, keep)
        whole = int(self._problem.costs(channels))
        if self._steps < STEPS and self._problem.costs(keep) > self._budget * whole:
            return self._embedding(keep, self._budget), 0.0, False, False, {}
        ratios = (1.0 - self._keep_ratios).astype(np.float32)
        observation, reward, _, _, info = self.env.step(ratios)
        return observation, float(reward), True, False, info


class GraphEncoder(BaseFeaturesExtractor):
    """One graph convolution over the chain of groups, the mean over groups, and a layer behind it.

    Source: Kipf and Welling, ICLR 2017, eq. 8, as in GNN-RL's single-stage encoder.

    Args:
        observation_space: of matrices (groups, features).
        hidden: features of a node after the convolution.
        features_dim: of the embedding.
    """

    def __init__(
        self, observation_space: gym.spaces.Box, hidden: int = 50, features_dim: int = 50
    ) -> None:
        super().__init__(observation_space, features_dim)
        groups, features = observation_space.shape
        neighbours = (torch.arange(groups)[:, None] - torch.arange(groups)).abs() <= 1
        degrees = neighbours.sum(dim=1).float().rsqrt()
        self.register_buffer("mixing", degrees[:, None] * neighbours * degrees)
        self.convolution = nn.Linear(features, hidden)
        self.embedding = nn.Linear(hidden, features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """Embed networks: (batch, groups, features) to (batch, features_dim)."""
        nodes = torch.relu(self.mixing @ self.convolution(observations))  # type: ignore[operator]
        return torch.tanh(self.embedding(nodes.mean(dim=1)))


def make(env: gym.Env[Any, Any], seed: int, **changes: Any) -> PPO:
    """Make the agent, see ``lfgcl_env.search.protocol.AgentFactory``.

    Args:
        env: an environment whose actions are prune ratios, all of them at once.
        seed: of the agent.
        **changes: settings of PPO that replace or add to ``SETTINGS``.
    """
    policy = {
        "features_extractor_class": GraphEncoder,
        "share_features_extractor": False,
        "net_arch": {"pi": [200], "vf": []},
        "activation_fn": nn.ReLU,
        "log_std_init": float(np.log(0.5)),
    }
    settings = SETTINGS | {"policy_kwargs": policy, "device": "cpu"} | changes
    return PPO("MlpPolicy", Shrinking(env), seed=seed, **settings)
