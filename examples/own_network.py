# %% [markdown]
# # Bring your own network
#
# A network of your own needs nothing special: it is pruned as a module, with a tensor of its
# inputs. The weights here are random, so that the example is quick; yours are trained.

# %%
"""Prune a small network with two heads, keep some layers, save it and load it."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from lfgcl_env import PruningProblem, load_pruned
from lfgcl_env.pruning import allocate

torch.manual_seed(0)
torch.set_num_threads(1)


class Detector(nn.Module):
    """A small network with a head for classes and one for boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        )  # fmt: skip
        self.classes, self.boxes = nn.Linear(64, 10), nn.Linear(64, 4)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the scores of classes and a box."""
        features = self.body(self.stem(pixels)).mean((2, 3))
        return {"classes": self.classes(features), "boxes": self.boxes(features)}


images = torch.randn(64, 3, 32, 32)
network = Detector().eval()

# %% [markdown]
# ## What can be pruned
#
# Groups are found and checked; what is left whole has a reason. `protect` leaves layers as they
# are.

# %%
problem = PruningProblem(network, images, budget=0.5, protect=["stem"])
for group in problem.groups:
    print(f"group {group.name}: {group.channels} channels, read by {group.layers('in')}")
for left in problem.excluded:
    print(f"whole: {left.name}, {left.reason}")

# %% [markdown]
# ## Prune, save, load
#
# `finish` repairs the network thoroughly, better on other images than those that scored it.

# %%
keep = allocate(problem)
smaller, found = problem.finish(keep, torch.randn(128, 3, 32, 32))
print(f"{found.macs_ratio:.1%} of the MACs, similarity {found.similarity:.4f}")
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "pruned.safetensors"
    problem.save(path, keep, smaller)
    loaded = load_pruned(path, Detector())
with torch.inference_mode():
    assert torch.equal(loaded(images)["boxes"], smaller(images)["boxes"])
