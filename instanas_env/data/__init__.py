"""Labelled images as uint8 tensors, the data sets they come from, and augmentation on tensors."""

from instanas_env.data.augmentation import DRAWS_PER_IMAGE, LIGHT, Augmentation, augment
from instanas_env.data.image_set import DataRecord, ImageSet
from instanas_env.data.sources import DATASETS, SPLITS, load_images

__all__ = [
    "DATASETS",
    "DRAWS_PER_IMAGE",
    "LIGHT",
    "SPLITS",
    "Augmentation",
    "DataRecord",
    "ImageSet",
    "augment",
    "load_images",
]
