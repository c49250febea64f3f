"""Images: unlabelled ones to calibrate with, labelled ones to report accuracy."""

from lfgcl_env.images.arrays import TooFewImages
from lfgcl_env.images.calibration import load_images
from lfgcl_env.images.data_root import data_root
from lfgcl_env.images.labelled import LabelledImages, load_test_set, top1

__all__ = ["LabelledImages", "TooFewImages", "data_root", "load_images", "load_test_set", "top1"]
