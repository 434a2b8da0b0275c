"""What objectives suggest beside the architecture."""

from optuna.distributions import IntDistribution
from optuna.trial import Trial

from optnas.config.contract import strategy_of
from optnas.spaces import proposal
from optnas.trials.attributes import MAX_EPOCHS

EPOCHS = "epochs"


def suggest_epochs(trial: Trial) -> int:
    """The epochs of a trial, where the strategy sets them.

    The range is what the strategy can reach, so that importances and contours mean something; a
    study keeps the range that it began with.
    """
    strategy = strategy_of(trial.study.sampler)
    least, most = strategy.epochs_range or (1, MAX_EPOCHS)
    for earlier in trial.storage.get_all_trials(trial.study._study_id, deepcopy=False):
        before = earlier.distributions.get(EPOCHS)
        if isinstance(before, IntDistribution):
            least, most = before.low, before.high
            break
    # Optuna draws at random what is proposed out of range.
    wanted = int(proposal(trial).get(EPOCHS, least))
    return trial.suggest_int(EPOCHS, min(least, wanted), max(most, wanted))
