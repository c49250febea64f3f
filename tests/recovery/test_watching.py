"""What is watched is never trained on."""

import pytest
import torch

from lfgcl_env.recovery.watching import WATCHED, watch_some


def test_an_eighth_is_watched_and_chosen_at_random():
    images = torch.arange(80.0).view(-1, 1)  # sorted, as a folder of classes is
    train, watched = watch_some(images, seed=0)
    assert sorted([*train.flatten().tolist(), *watched.flatten().tolist()]) == list(range(80))
    assert len(watched) == 10
    assert watched.max() > 40
    assert torch.equal(watch_some(images, seed=0)[1], watched)


def test_of_many_images_there_is_a_most():
    train, watched = watch_some(torch.arange(40000.0).view(-1, 1), seed=0)
    assert (len(train), len(watched)) == (40000 - WATCHED, WATCHED)


def test_two_images_are_not_enough():
    assert [len(part) for part in watch_some(torch.zeros(3, 3, 8, 8), seed=0)] == [1, 2]
    with pytest.raises(ValueError, match="2 to watch, got 2"):
        watch_some(torch.zeros(2, 3, 8, 8), seed=0)
