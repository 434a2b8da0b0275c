"""Images in: data sets read, split and augmented."""

from optnas.objectives.data.images import DATASETS, DataError, Dataset, Images, load_images

__all__ = ["DATASETS", "DataError", "Dataset", "Images", "load_images"]
