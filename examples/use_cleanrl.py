# %% [markdown]
# # Train an agent in the way of CleanRL
#
# CleanRL's algorithms are single files, which are copied and changed rather than imported. This is
# DDPG in the form of its `ddpg_continuous_action.py` (MIT licence), written for episodes of one
# step: networks and a loop, from top to bottom. It takes about a minute. Set `EVALUATIONS` to have
# it shorter.
#
# CleanRL's own file runs unchanged as well:
#
# ```sh
# python ddpg_continuous_action.py --env-id lfgcl_env:LFGCL-ResNet20-Flat-v0 \
#     --total-timesteps 400 --learning-starts 50
# ```
#
# Gymnasium imports the module before the colon, and `-Flat-` ids have vectors as observations. The
# file takes Gymnasium's default mode, in which every second step only resets an environment whose
# episodes have one step; the cell below asks for the other mode. `docs/start_agent.md` shows how an
# id of your own has arguments and wrappers that the file cannot give.

# %%
"""Let DDPG in the form of a CleanRL script choose the prune ratios of ResNet-20."""

import os

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lfgcl_env import zoo

SEED = 1
EVALUATIONS = int(os.environ.get("EVALUATIONS", "100"))
LEARNING_STARTS = EVALUATIONS // 5
UPDATES = 8
BATCH = 32
NOISE = 0.2

torch.set_num_threads(1)
torch.manual_seed(SEED)
draw = np.random.default_rng(SEED)

# %% [markdown]
# ## The environments
#
# With `SAME_STEP` an environment whose episode ends is reset at once, and every step scores a
# strategy. A closed-form repair before scoring makes a step fast. `LogitAction` maps [-1, 1] to
# ratios around one half, so that an actor whose tanh saturates still keeps a part of every group.


# %%
def make_env(env_id: str, seed: int):
    """Return a function that makes one environment."""

    def thunk() -> gym.Env:
        env = gym.make(env_id, budget=0.5, repair="least_squares", num_images=64)
        env = zoo.LogitAction(env, scale=2.0)
        env = gym.wrappers.RecordEpisodeStatistics(env)
        env.action_space.seed(seed)
        return env

    return thunk


envs = gym.vector.SyncVectorEnv(
    [make_env("lfgcl_env:LFGCL-ResNet20-Flat-v0", SEED)],
    autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
)
features = int(np.prod(envs.single_observation_space.shape))
groups = int(np.prod(envs.single_action_space.shape))
low, high = envs.single_action_space.low, envs.single_action_space.high
print(f"{features} numbers are observed, {groups} prune ratios are chosen")

# %% [markdown]
# ## The networks


# %%
class QNetwork(nn.Module):
    """Predict the reward of an action."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *[nn.Linear(features + groups, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()],
            nn.Linear(256, 1),
        )

    def forward(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return one number for every action."""
        return self.layers(torch.cat([observations, actions], 1)).flatten()


class Actor(nn.Module):
    """Choose an action within the action space."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *[nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()],
            *[nn.Linear(256, groups), nn.Tanh()],
        )
        self.register_buffer("scale", torch.tensor((high - low) / 2))
        self.register_buffer("bias", torch.tensor((high + low) / 2))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return one action for every observation."""
        return self.layers(observations) * self.scale + self.bias


actor, critic = Actor(), QNetwork()
actor_optimizer = torch.optim.Adam(actor.parameters(), lr=3e-4)
critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)

# %% [markdown]
# ## The loop
#
# The reward of a one-step episode is final, so it is all that the critic has to predict: there are
# no target networks, and a discount `gamma` would change nothing. `SAME_STEP` puts what `info` says
# of the strategy into `final_info`.

# %%
seen = np.zeros((EVALUATIONS, features), np.float32)
taken = np.zeros((EVALUATIONS, groups), np.float32)
rewards = np.zeros(EVALUATIONS, np.float32)
kept = []

observations, _ = envs.reset(seed=SEED)
for step in range(EVALUATIONS):
    if step < LEARNING_STARTS:
        actions = np.array([envs.single_action_space.sample()])
    else:
        with torch.no_grad():
            actions = actor(torch.as_tensor(observations))
            actions += NOISE * actor.scale * torch.randn_like(actions)
        actions = actions.numpy().clip(low, high)
    seen[step], taken[step] = observations[0], actions[0]
    observations, reward, terminated, _, infos = envs.step(actions)
    assert terminated.all()
    rewards[step] = reward[0]
    kept.append(infos["final_info"]["keep"][0])

    if step + 1 >= LEARNING_STARTS:
        for _ in range(UPDATES):
            batch = draw.integers(0, step + 1, BATCH)
            at, did, got = (torch.as_tensor(a[batch]) for a in (seen, taken, rewards))
            critic_optimizer.zero_grad()
            F.mse_loss(critic(at, did), got).backward()
            critic_optimizer.step()

            actor_optimizer.zero_grad()
            (-critic(at, actor(at)).mean()).backward()
            actor_optimizer.step()
    if (step + 1) % 20 == 0:
        last = rewards[max(0, step - 19) : step + 1]
        print(f"{step + 1:4d} evaluations, mean {last.mean():.4f}, best {rewards.max():.4f}")

# %% [markdown]
# ## The network
#
# The environment has the problem, which hands over the best strategy.

# %%
problem = envs.envs[0].unwrapped.problem
keep = kept[rewards.argmax()]
network = problem.compress(keep)
print(f"{problem.evaluate(keep).macs_ratio:.1%} of the MACs, channels {keep.tolist()}")
envs.close()
