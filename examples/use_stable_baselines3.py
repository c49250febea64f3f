# %% [markdown]
# # Train an agent of Stable-Baselines3
#
# Stable-Baselines3 makes the environment by its id, like any other. This is its quick start on
# ResNet-20, and then DDPG on several environments at once; it takes about a minute. Set
# `EVALUATIONS` to have it shorter.

# %%
"""Let A2C and DDPG of Stable-Baselines3 choose the prune ratios of ResNet-20."""

import os

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import A2C, DDPG
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise

from lfgcl_env.zoo import TogetherVecEnv

torch.set_num_threads(1)
EVALUATIONS = int(os.environ.get("EVALUATIONS", "60"))
ARGUMENTS = {"budget": 0.5, "repair": "least_squares", "num_images": 64}

# %% [markdown]
# ## The quick start
#
# The module before the colon registers the ids. A closed-form repair before scoring makes a step
# fast. An episode is one step: the action holds the ratios of all groups, and the reward is final.

# %%
env = gym.make("lfgcl_env:LFGCL-ResNet20-v0", render_mode="ansi", **ARGUMENTS)
model = A2C("MlpPolicy", env, seed=0, device="cpu", verbose=1)
model.learn(total_timesteps=EVALUATIONS)

vec_env = model.get_env()
observation = vec_env.reset()
action, _ = model.predict(observation, deterministic=True)
observation, reward, done, info = vec_env.step(action)
print(f"reward {reward[0]:.4f}, {info[0]['macs_ratio']:.1%} of the MACs")

# %% [markdown]
# ## Several environments
#
# `TogetherVecEnv` steps environments that share one problem and its scores. With
# `ARGUMENTS | {"workers": 4}` four processes score their strategies; a script then needs
# `if __name__ == "__main__":`. DDPG learns from each step of all four: it makes as many updates.

# %%
envs = make_vec_env(
    "lfgcl_env:LFGCL-ResNet20-v0",
    n_envs=4,
    seed=0,
    env_kwargs=ARGUMENTS,
    vec_env_cls=TogetherVecEnv,
)
groups = envs.action_space.shape[0]


class Best(BaseCallback):
    """Keeps the strategy with the highest reward."""

    reward, keep = -np.inf, None

    def _on_step(self) -> bool:
        rewards = self.locals["rewards"]
        if rewards.max() > self.reward:
            place = int(rewards.argmax())
            self.reward, self.keep = float(rewards[place]), self.locals["infos"][place]["keep"]
            print(f"{self.num_timesteps:4d} evaluations, best reward {self.reward:.4f}")
        return True


best = Best()
agent = DDPG(
    "MlpPolicy",
    envs,
    gamma=0.0,
    learning_starts=min(12, EVALUATIONS // 2),
    batch_size=16,
    gradient_steps=4,
    action_noise=NormalActionNoise(np.zeros(groups), np.full(groups, 0.2)),
    seed=0,
    device="cpu",
)
agent.learn(total_timesteps=EVALUATIONS, callback=best)

# %% [markdown]
# ## The network
#
# The environment behind the wrappers has the problem, which hands over the best strategy.

# %%
problem = envs.envs[0].unwrapped.problem
network = problem.compress(best.keep)
evaluation = problem.evaluate(best.keep)
print(f"{evaluation.macs_ratio:.1%} of the MACs, channels {best.keep.tolist()}")
