"""What became of a trial, in words for people."""

from optuna.trial import FrozenTrial, TrialState

from optnas.trials.attributes import (
    CANDIDATE,
    EDGE_WEIGHTS,
    EPOCH_SHARE,
    FAILURE,
    FAILURE_REASON,
    INTERRUPTED,
    OPERATION_WEIGHTS,
)

_UNFINISHED = {TrialState.RUNNING: "running", TrialState.WAITING: "queued"}


def outcome(trial: FrozenTrial) -> str:
    """What became of a trial, in a word or two.

    A super-network's trial is pruned so that it is never the best, and is a success; what was
    interrupted has not failed.
    """
    if trial.state == TrialState.PRUNED:
        if EDGE_WEIGHTS in trial.user_attrs and OPERATION_WEIGHTS not in trial.user_attrs:
            return "topology found"
        if OPERATION_WEIGHTS in trial.user_attrs:
            return "operations found"
        return "pruned" if trial.params else "not needed"
    if trial.state == TrialState.FAIL:
        if is_interrupted(trial):
            return "interrupted"
        return "failed" if trial.user_attrs.get(FAILURE) == CANDIDATE else "lost"
    return _UNFINISHED.get(trial.state, "complete")


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether somebody wanted a trial to stop, which another will go on with."""
    reason = trial.user_attrs.get(FAILURE_REASON)
    return trial.state == TrialState.FAIL and reason == INTERRUPTED


def epochs_kept(trial: FrozenTrial, checkpoint_epoch: int | None) -> float:
    """Epochs of an interrupted trial that its checkpoint holds, with the share of the last.

    Args:
        trial: The trial.
        checkpoint_epoch: Whole epochs of its checkpoint; None if there is none.
    """
    if checkpoint_epoch is None:
        return 0.0
    return checkpoint_epoch + float(trial.user_attrs.get(EPOCH_SHARE, 0.0))
