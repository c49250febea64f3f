# %% [markdown]
# # Train an agent of RLlib
#
# RLlib makes the environment by its id, and imports the module before the colon on every machine.
# This is its SAC on ResNet-20; it takes about a minute, once Ray has started. Set `EVALUATIONS` to
# have it shorter. RLlib is not among this package's extras:
#
# ```sh
# pip install "ray[rllib]"
# ```

# %%
"""Let RLlib's SAC choose the prune ratios of ResNet-20."""

import os

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.sac import SACConfig

EVALUATIONS = int(os.environ.get("EVALUATIONS", "100"))
PER_ITERATION = min(20, EVALUATIONS)
ARGUMENTS = {"budget": 0.5, "repair": "least_squares", "num_images": 64}

# %% [markdown]
# ## The algorithm
#
# `env_config` has the environment's arguments. RLlib has no networks for observations of two
# dimensions, so it gets a `-Flat-` id. `env_runners(num_env_runners=4)` would score strategies in
# four processes. Rewards are between 0 and 1, so SAC begins with little entropy, and it learns fast
# because evaluations are few: four updates for each. DDPG is no longer part of RLlib.

# %%
scored = []


def remember(*, episode, **_) -> None:
    """Keep the reward and the strategy of an episode."""
    scored.append((episode.get_return(), episode.get_infos(-1)["keep"]))


config = (
    SACConfig()
    .environment("lfgcl_env:LFGCL-ResNet20-Flat-v0", env_config=ARGUMENTS)
    .env_runners(num_env_runners=0)
    .training(
        train_batch_size_per_learner=32,
        num_steps_sampled_before_learning_starts=PER_ITERATION,
        training_intensity=4 * 32,
        gamma=0.0,
        initial_alpha=0.01,
        actor_lr=1e-3,
        critic_lr=1e-3,
        alpha_lr=1e-3,
    )
    .reporting(min_sample_timesteps_per_iteration=PER_ITERATION, min_time_s_per_iteration=0)
    .callbacks(on_episode_end=remember)
    .debugging(seed=0, log_level="ERROR")
)
algorithm = config.build_algo()

# %% [markdown]
# ## Training
#
# An episode is one step: the action holds the ratios of all groups, and the reward is final.

# %%
while len(scored) < EVALUATIONS:
    before = len(scored)
    algorithm.train()
    rewards = [reward for reward, _ in scored]
    mean, best = np.mean(rewards[before:]), max(rewards)
    print(f"{len(scored):4d} evaluations, mean {mean:.4f}, best {best:.4f}")
algorithm.stop()
ray.shutdown()

# %% [markdown]
# ## The network

# %%
problem = gym.make("lfgcl_env:LFGCL-ResNet20-Flat-v0", **ARGUMENTS).unwrapped.problem
_, keep = max(scored, key=lambda pair: pair[0])
network = problem.compress(keep)
print(f"{problem.evaluate(keep).macs_ratio:.1%} of the MACs, channels {keep.tolist()}")
