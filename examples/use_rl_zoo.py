# %% [markdown]
# # Train an agent with rl_zoo3
#
# rl_zoo3 is the training framework of Stable-Baselines3. It reads the settings of `lfgcl_env.zoo`,
# which are tuned for few, expensive, one-step episodes. It takes about a minute. Set `EVALUATIONS`
# to have it shorter. rl_zoo3 is not among this package's extras:
#
# ```sh
# pip install rl_zoo3
# ```

# %%
"""Train DDPG on ResNet-20 with rl_zoo3, and load what it saved."""

import csv
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import gymnasium as gym
import stable_baselines3 as sb3
import torch
from rl_zoo3.train import train

from lfgcl_env import zoo

torch.set_num_threads(1)
EVALUATIONS = int(os.environ.get("EVALUATIONS", "100"))
ENV_ID = "LFGCL-ResNet20-v0"
ARGUMENTS = {"budget": 0.5, "repair": "least_squares", "num_images": 64}

# %% [markdown]
# ## The command
#
# Words of the command line `python -m rl_zoo3.train` are given to its function here. `--env-kwargs`
# takes the environment's arguments as Python, so that texts have two pairs of quotes in a shell:
# `repair:"'least_squares'"`.

# %%
folder = TemporaryDirectory()
sys.argv = [
    "rl_zoo3.train",
    *["--algo", "ddpg", "--env", ENV_ID, "--gym-packages", "lfgcl_env"],
    *["--conf-file", str(zoo.path("ddpg")), "--n-timesteps", str(EVALUATIONS)],
    *["--env-kwargs", *(f"{name}:{value!r}" for name, value in ARGUMENTS.items())],
    *["--log-folder", folder.name, "--eval-freq", "-1", "--seed", "0", "--device", "cpu"],
]
train()

# %% [markdown]
# ## What it saved
#
# A run has the agent, its settings and the return of every episode, which is one evaluation here.

# %%
run = Path(folder.name) / "ddpg" / f"{ENV_ID}_1"
print(sorted(path.name for path in run.iterdir()))
with (run / "0.monitor.csv").open(encoding="utf-8") as file:
    next(file)
    rewards = [float(row["r"]) for row in csv.DictReader(file)]
print(f"{len(rewards)} evaluations, best reward {max(rewards):.4f}")

# %% [markdown]
# ## The network
#
# The agent sees the environment through the wrappers that its settings name.

# %%
print(zoo.settings("ddpg")["env_wrapper"])
env = gym.wrappers.FlattenObservation(gym.make(ENV_ID, **ARGUMENTS))
env = zoo.LogitAction(env, scale=2.0)
agent = sb3.DDPG.load(run / f"{ENV_ID}.zip", device="cpu")
observation, _ = env.reset(seed=0)
action, _ = agent.predict(observation, deterministic=True)
_, reward, _, _, info = env.step(action)
network = env.unwrapped.problem.compress(info["keep"])
print(
    f"reward {reward:.4f}, {info['macs_ratio']:.1%} of the MACs, channels {info['keep'].tolist()}"
)
folder.cleanup()
