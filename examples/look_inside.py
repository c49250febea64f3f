# %% [markdown]
# # Prune the embedded ResNet-56 and look inside
#
# Everything here comes with the package: a ResNet-56 for CIFAR-10 and images that were made from
# it. It takes about a minute. Editors open this file as a notebook (the percent format), and it
# runs as a script too.

# %%
"""Prune the embedded ResNet-56 by an allocation, and compare it with the original."""

import gymnasium as gym
import matplotlib.pyplot as plt
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
plt.figure(figsize=(7, 4))
for group in problem.groups[::6]:
    errors = problem.eliminations[group.name].errors
    plt.plot(np.arange(len(errors)) / group.channels, errors, label=group.name)
plt.xlabel("share of the channels that stays")
plt.ylabel("error, relative")
plt.legend()
plt.show()

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
names = [group.name.removesuffix(".conv1") for group in problem.groups]
plt.figure(figsize=(7, 5))
plt.barh(names, problem.channels, color="lightgray", label="original")
plt.barh(names, allocated, label="allocated")
plt.gca().invert_yaxis()
plt.tick_params("y", labelsize=7)
plt.xlabel("channels")
plt.legend()
plt.show()

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

# %% [markdown]
# ## Features side by side
#
# The map of one channel at the end of every stage, of the original above and of the pruned network
# below. These channels are not pruned, so they can be compared one by one.


# %%
def maps(network: torch.nn.Module, image: torch.Tensor) -> list[np.ndarray]:
    """Return the first channel's map at the end of every stage."""
    found = []
    stages = [network.get_submodule(name) for name in ("layer1", "layer2", "layer3")]
    hooks = [
        stage.register_forward_hook(lambda *call: found.append(call[2][0, 0].numpy()))
        for stage in stages
    ]
    with torch.inference_mode():
        network(image[None])
    for hook in hooks:
        hook.remove()
    return found


figure, axes = plt.subplots(2, 3, figsize=(7, 5))
for row, (name, one) in zip(
    axes, (("original", baseline.network), ("pruned", network)), strict=True
):
    for axis, values, stage in zip(row, maps(one, images[0]), (1, 2, 3), strict=True):
        axis.imshow(values)
        axis.set_title(f"{name}, layer{stage}", fontsize=9)
        axis.axis("off")
plt.show()
