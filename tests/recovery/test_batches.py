from dataclasses import replace

import torch
from networks_for_tests import images

from lfgcl_env.recovery import RecoveryOptions
from lfgcl_env.recovery.batches import Batches

CPU = torch.device("cpu")
PLAIN = RecoveryOptions(epoch_images=1, batch_size=4, mixup=0, crop=0, flip=False)


def test_without_augmentation_every_image_is_seen_once_an_epoch():
    inputs = images(12, 8)
    batches = Batches(inputs, PLAIN)
    seen = torch.cat([batches(1, place, CPU) for place in range(len(batches))])
    assert sorted(seen[:, 0, 0, 0].tolist()) == sorted(inputs[:, 0, 0, 0].tolist())


def test_a_batch_depends_on_seed_epoch_and_place_alone():
    options = RecoveryOptions(batch_size=4)
    one, other = (Batches(images(12, 16), options) for _ in range(2))
    one(0, 0, CPU)
    assert torch.equal(one(3, 1, CPU), other(3, 1, CPU))
    assert not torch.equal(one(3, 1, CPU), one(3, 2, CPU))
    assert not torch.equal(one(3, 1, CPU), one(4, 1, CPU))


def test_crops_are_shifted_by_up_to_the_part_that_is_asked_for():
    position = torch.arange(16.0).view(1, 1, 1, 16).expand(64, 1, 16, 16)
    options = RecoveryOptions(batch_size=64, mixup=0, crop=0.25, flip=False)
    shifts = (Batches(position, options)(0, 0, CPU)[:, 0, 0, 8] - 8).unique()
    assert shifts.tolist() == list(range(-4, 5))


def test_mixtures_hold_more_of_the_image_than_of_the_other():
    flat = torch.arange(8.0).view(8, 1).expand(8, 5)
    options = RecoveryOptions(epoch_images=1, batch_size=8, mixup=0.5)
    batches = Batches(flat, options)
    mixed, own = batches(0, 0, CPU)[:, 0], batches.chosen(0, 0).float()
    share = (mixed - own) / (own.roll(1) - own)
    assert share.min() >= 0
    assert 0.2 < share.max() <= 0.5


def test_few_images_are_seen_as_often_as_makes_an_epoch():
    inputs = images(3, 8)
    batches = Batches(inputs, replace(PLAIN, epoch_images=12))
    assert len(batches) == 3
    seen = torch.cat([batches.chosen(0, place) for place in range(3)])
    assert seen.bincount().tolist() == [4, 4, 4]
    assert len(Batches(inputs[:1], PLAIN)(0, 0, CPU)) == 4
