"""Searches of a ResNet-20 with random weights on four images, for tests."""

import gymnasium as gym
import torch

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def make_env(**arguments):
    options = {"weights": "random", "images": IMAGES, "num_images": 4} | arguments
    return gym.make("LFGCL-ResNet20-v0", **options)


SHARED = make_env()


def clean_env():
    """An environment that nothing was scored in; made once, for speed."""
    SHARED.unwrapped.forget()
    return SHARED


def found(result):
    return [record.evaluation for record in result.records]


def stopping_after(count, error=KeyboardInterrupt):
    """An environment in which the step that visits new strategy number ``count`` + 1 raises."""

    visited = set()

    class Stopping(gym.Wrapper):
        def step(self, action):
            result = self.env.step(action)
            visited.add(tuple(result[4]["keep"].tolist()))
            if len(visited) > count:
                raise error("stopped")
            return result

    return Stopping(clean_env())
