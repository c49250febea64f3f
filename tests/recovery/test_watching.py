"""What is watched is never trained on."""

import pytest
import torch

from lfgcl_env.recovery.watching import FEW, WATCHED, watch_some


def test_of_few_images_come_views_of_different_ones():
    images = torch.arange(1.0, 81).view(-1, 1, 1, 1).expand(80, 3, 8, 8)
    train, watched = watch_some(images, seed=0)
    assert (len(train), len(watched)) == (FEW, FEW // 8)
    assert set(train.unique().tolist()) == set(range(11, 81))
    assert set(watched.unique().tolist()) == set(range(1, 11))
    assert torch.equal(watch_some(images, seed=0)[0], train)


def test_many_images_and_other_inputs_are_taken_as_they_are():
    train, watched = watch_some(torch.arange(40000.0).view(-1, 1), seed=0)
    assert (len(train), len(watched)) == (40000 - WATCHED, WATCHED)
    assert [len(part) for part in watch_some(torch.zeros(16, 4), seed=0)] == [14, 2]


def test_one_image_is_not_enough():
    with pytest.raises(ValueError, match="at least 2 images"):
        watch_some(torch.zeros(1, 3, 8, 8), seed=0)
