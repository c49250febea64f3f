"""Images: unlabelled ones to calibrate with, labelled ones to report accuracy."""

from lfgcl_env.images.arrays import TooFewImages
from lfgcl_env.images.data_root import data_root
from lfgcl_env.images.embedded_sheets import embedded_sheet
from lfgcl_env.images.image_sheet import read_sheet, write_sheet
from lfgcl_env.images.labelled import LabelledImages, load_held_out, load_test_set, top1
from lfgcl_env.images.sources import load_images
from lfgcl_env.images.synthetic_batches import synthetic_pixels

__all__ = [
    "LabelledImages",
    "TooFewImages",
    "data_root",
    "embedded_sheet",
    "load_held_out",
    "load_images",
    "load_test_set",
    "read_sheet",
    "synthetic_pixels",
    "top1",
    "write_sheet",
]
