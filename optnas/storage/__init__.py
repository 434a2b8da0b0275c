"""Storages and what lies beside them: artifacts, and the training states of trials."""

from optnas.storage.opening import open_storage

__all__ = ["open_storage"]
