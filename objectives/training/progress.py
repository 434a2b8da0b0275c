"""What an objective tells, after every epoch, to whoever watches."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a candidate's training stands, after an epoch of it.

    Args:
        number: The trial.
        phase: What the strategy is doing, in a word.
        epoch: Finished epochs.
        epochs: Epochs in all.
        accuracy: Best validation accuracy so far, a fraction.
        seconds: Training time of the finished epochs.
    """

    number: int
    phase: str
    epoch: int
    epochs: int
    accuracy: float
    seconds: float
