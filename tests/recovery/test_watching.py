"""What is watched is never trained on."""

import pytest
import torch
from networks_for_tests import images

from lfgcl_env.recovery import RecoveryOptions
from lfgcl_env.recovery.watching import WATCHED, views_of, watch_some


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


def test_views_are_other_images_and_always_the_same():
    few = images(4, 16)
    views = views_of(few, RecoveryOptions(), seed=1)
    assert views.shape == (64, 3, 16, 16)
    assert torch.equal(views, views_of(few, RecoveryOptions(), seed=1))
    assert not any(torch.equal(view, one) for view in views for one in few)
    many = images(300, 8)
    assert len(views_of(many, RecoveryOptions(), seed=0)) == 600
