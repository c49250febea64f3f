# %% [markdown]
# # Train an agent of TorchRL
#
# TorchRL makes the environment by its id, like any other. This is its DDPG on ResNet-20; it takes
# about a minute. Set `EVALUATIONS` to have it shorter.

# %%
"""Let TorchRL's DDPG choose the prune ratios of ResNet-20."""

import os

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymEnv
from torchrl.modules import MLP, AdditiveGaussianModule, ValueOperator
from torchrl.objectives import DDPGLoss, SoftUpdate

import lfgcl_env  # noqa: F401 - registers the environments

torch.set_num_threads(1)
torch.manual_seed(0)
EVALUATIONS = int(os.environ.get("EVALUATIONS", "60"))

# %% [markdown]
# `-Flat-` ids have vectors as observations. A closed-form repair before scoring makes a step fast.

# %%
env = GymEnv(
    "LFGCL-ResNet20-Flat-v0", budget=0.5, repair="least_squares", num_images=64, device="cpu"
)
print(env.observation_spec["observation"].shape, env.action_spec.shape)

# %% [markdown]
# An episode is one step: the action holds the ratios of all groups, and the reward is final.

# %%
features, groups = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
actor = TensorDictModule(
    nn.Sequential(MLP(features, groups, num_cells=[64, 64]), nn.Sigmoid()),
    in_keys=["observation"],
    out_keys=["action"],
)
critic = ValueOperator(
    MLP(features + groups, 1, num_cells=[64, 64]), in_keys=["observation", "action"]
)
noise = AdditiveGaussianModule(
    env.action_spec, sigma_init=0.3, sigma_end=0.05, annealing_num_steps=EVALUATIONS
)
policy = TensorDictSequential(actor, noise)
loss = DDPGLoss(actor, critic)
loss.make_value_estimator(gamma=0.0)
target = SoftUpdate(loss, tau=0.01)
optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(EVALUATIONS), batch_size=16)

# %%
rewards, actions = [], []
for evaluation in range(EVALUATIONS):
    with torch.no_grad():
        episode = env.rollout(1, policy)
    noise.step()
    buffer.extend(episode)
    rewards.append(float(episode["next", "reward"]))
    actions.append(episode["action"][0].numpy())
    for _ in range(8):
        losses = loss(buffer.sample())
        optimizer.zero_grad()
        (losses["loss_actor"] + losses["loss_value"]).backward()
        optimizer.step()
        target.step()
    if (evaluation + 1) % 10 == 0:
        print(f"{evaluation + 1:4d} evaluations, best reward {max(rewards):.4f}")

# %% [markdown]
# ## The network
#
# The environment behind TorchRL's wrappers has the problem, which hands over the best strategy.

# %%
problem = env.unwrapped.problem
keep = problem.project(actions[rewards.index(max(rewards))])
network = problem.compress(keep)
print(f"{problem.evaluate(keep).macs_ratio:.1%} of the MACs, channels {keep.tolist()}")
