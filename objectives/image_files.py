"""A name that version 0.1.0 had; see `optnas.objectives.data`."""

from optnas.objectives.data.image_files import decode

__all__ = ["decode"]
