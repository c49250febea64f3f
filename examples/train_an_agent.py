# %% [markdown]
# # Train an agent of Stable-Baselines3 and compare it with others
#
# All get the same environment and the same number of evaluations. It takes a few minutes; more
# evaluations and seeds make it a comparison worth the name, see `docs/comparing.md`. Set
# `EVALUATIONS` to have it shorter.

# %%
"""Compare DDPG of Stable-Baselines3 with three other agents on ResNet-20."""

import os

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch

import lfgcl_env  # noqa: F401 - registers the environments
from lfgcl_env.search.run_search import run_search

torch.set_num_threads(1)
EVALUATIONS = int(os.environ.get("EVALUATIONS", "60"))

# %% [markdown]
# A closed-form repair before scoring makes a step fast. Ids of networks have
# `repair="sequential"` by default, which ranks strategies better.

# %%
env = gym.make("LFGCL-ResNet20-v0", budget=0.5, repair="least_squares", num_images=64)

# %% [markdown]
# `run_search` lets an agent search and keeps the best strategy. `"ddpg"` is Stable-Baselines3's
# with the settings of `lfgcl_env.zoo`; a factory `make(env, seed)` of your own would do as well.

# %%
results = {}
for agent in ("ddpg", "lfgcl", "cma_es", "random"):
    results[agent] = run_search(env, agent, EVALUATIONS)
    print(f"{agent:8s} best reward {results[agent].reward:.4f} of {EVALUATIONS} evaluations")

# %% [markdown]
# ## How fast they find it

# %%
plt.figure(figsize=(7, 4))
for agent, result in results.items():
    rewards = [record.reward for record in result.records]
    plt.plot(np.arange(1, len(rewards) + 1), np.maximum.accumulate(rewards), label=agent)
plt.xlabel("evaluations")
plt.ylabel("best reward so far")
plt.legend()
plt.show()
