# %% [markdown]
# # Prune the embedded ResNet-56 and look inside
#
# Everything here comes with the package: a ResNet-56 for CIFAR-10 and images that were made from
# it. It takes about a minute. Editors open this file as a notebook (the percent format), and it
# runs as a script too.

# %%
"""Prune the embedded ResNet-56 by an allocation, and compare it with the original."""

import gymnasium as gym
import numpy as np
import torch

import lfgcl_env  # noqa: F401 - registers the environments
from lfgcl_env.pruning import allocate

torch.set_num_threads(1)
env = gym.make("LFGCL-ResNet56-v0", budget=0.5, repair="least_squares", num_images=64)
problem = env.unwrapped.problem
baseline = problem.baseline
print(f"{len(problem.groups)} groups, {problem.baseline_cost.macs:,} MACs")

# %% [markdown]
# ## Error curves
#
# Removing a group's channels one after the other gives an error curve: what the layers that read
# them lose, although their weights are refitted. Some groups lose nothing for a long time.

# %%
for group in problem.groups[::6]:
    errors = problem.eliminations[group.name].errors
    at = [errors[group.channels * part // 4] for part in (3, 2, 1)]
    print(f"{group.name:16s} 3/4 {at[0]:.4f}  1/2 {at[1]:.4f}  1/4 {at[2]:.4f}")

# %% [markdown]
# ## A strategy without a search
#
# The allocation spends the budget where it saves most similarity. Uniform ratios are what one
# would do without it.

# %%
allocated = allocate(problem)
uniform = problem.project(np.full(len(problem.groups), 0.5))
for name, keep in (("allocated", allocated), ("uniform", uniform)):
    found = problem.evaluate(keep)
    print(f"{name:10s} similarity {found.similarity:.4f}, {found.macs_ratio:.1%} of the MACs")

# %% [markdown]
# ## Channels per layer

# %%
for group, kept in zip(problem.groups, allocated, strict=True):
    print(f"{group.name:16s} {'#' * int(kept)}{'.' * (group.channels - int(kept))}")

# %% [markdown]
# ## The two networks side by side
#
# `compress` cuts the network and repairs it in closed form. It is smaller, and mostly predicts
# what the original does, here on mirrored and shifted views of the images.

# %%
network = problem.compress(allocated)
images = env.unwrapped.repair_images(256)
with torch.inference_mode():
    before, after = baseline.network(images), network(images)
same = float((before.argmax(1) == after.argmax(1)).float().mean())
params = [sum(p.numel() for p in one.parameters()) for one in (baseline.network, network)]
print(f"same prediction on {same:.0%} of the images; {params[0]:,} -> {params[1]:,} parameters")
