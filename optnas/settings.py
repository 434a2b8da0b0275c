"""The blocks of a study file whose values Python may be asked for; made for `from_settings`."""

from optnas.config.settings import DataSettings, NetworkSettings, TrainSettings

__all__ = ["DataSettings", "NetworkSettings", "TrainSettings"]
