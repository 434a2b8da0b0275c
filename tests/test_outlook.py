"""Every strategy says what is ahead of it, before it has begun and in the middle."""

import numpy as np
import optuna
import pytest

from optnas.samplers import (
    BaselineSampler,
    DARTSSampler,
    EcoNASSampler,
    FTSOSampler,
    MacroMicroSampler,
    RandGrowSampler,
    StageWiseSampler,
    SynchronousEcoNASSampler,
    ZooSampler,
)
from optnas.spaces import CellSpace, ChainSpace, GrowthSpace, NasBench201Space, StageSpace

SHAPE = {"in_channels": 1, "classes": 10}
CELLS = NasBench201Space()


def study_of(sampler):
    return optuna.create_study(
        direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner()
    )


def outlook(study):
    return study.sampler.outlook(study, np.random.default_rng(0))


def total(course):
    return sum(stretch.trials for stretch in course)


def chain(trial, space):
    architecture = space.suggest(trial)
    trial.suggest_int("epochs", 1, 1000)
    return 0.5 + np.tanh(architecture.depth * 0.1) / 4 + (trial.number % 7) / 500


@pytest.mark.parametrize(
    ("sampler", "least", "most"),
    [
        # 1 depth, 3 strikes, 1 + 2 x 2; or all depths, all widths, 1 + 2 x 4.
        (MacroMicroSampler(ChainSpace((2, 4), (4, 16)), **SHAPE), 9, 18),
        (StageWiseSampler(StageSpace()), 2, 11),
        (StageWiseSampler(StageSpace(), donor=True), 3, 12),
        (EcoNASSampler(CELLS, initial=4, parents=(1, 1, 1), cycles=2), 10, 10),
        # 4; 3, of these 7 promoted and 4 of them again; 3, 3 promoted and 4 again.
        (SynchronousEcoNASSampler(CELLS, initial=4, parents=(1, 1, 1), cycles=2), 28, 28),
        (FTSOSampler(CellSpace()), 2, 2),
        (FTSOSampler(CELLS, keep_all=True, operators="gradient"), 2, 2),
        (FTSOSampler(CellSpace(), topology_search="discrete", topology_trials=7), 8, 8),
        (FTSOSampler(CellSpace(), operators="discrete", operator_trials=9), 10, 10),
        (DARTSSampler(CellSpace()), 2, 2),
        (ZooSampler(CELLS, size=6), 6, 6),
        (BaselineSampler(StageSpace()), 3, 3),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else "",
)
def test_its_range_before_it_begins(sampler, least, most):
    ahead = outlook(study_of(sampler))
    assert (total(ahead.least), total(ahead.most)) == (least, most)
    assert all(least <= total(course) <= most for course in ahead.likely)


@pytest.mark.parametrize("after", [1, 4, 9, 14])
def test_what_macro_micro_still_trains_is_within_what_it_says(after):
    space = ChainSpace((2, 6), (4, 16))
    study = study_of(MacroMicroSampler(space, **SHAPE))
    study.optimize(lambda trial: chain(trial, space), n_trials=after)
    ahead = outlook(study)
    study.optimize(lambda trial: chain(trial, space))
    left = len(study.trials) - after
    assert total(ahead.least) <= left <= total(ahead.most)
    assert total(outlook(study).most) == 0


@pytest.mark.parametrize("after", [0, 3, 10])
def test_evolutions_train_as_many_as_they_say(after):
    space = NasBench201Space()
    options = {"initial": 4, "parents": (2, 1, 1), "cycles": 2, "epochs": 1}
    study = study_of(SynchronousEcoNASSampler(space, **options))

    def objective(trial):
        space.suggest(trial)
        trial.suggest_int("epochs", 1, 9)
        return trial.number / 100

    study.optimize(objective, n_trials=after)
    said = total(outlook(study).most)
    study.optimize(objective)
    assert len(study.trials) == after + said


@pytest.mark.parametrize("after", [0, 1, 3])
def test_stage_wise_ends_within_its_range(after):
    space = StageSpace(modules=(1, 12))
    study = study_of(StageWiseSampler(space, initial=2))

    def objective(trial):
        modules = space.suggest(trial).modules
        trial.set_user_attr("stage_importance", [m * (-1) ** i for i, m in enumerate(modules)])
        return 0.5

    study.optimize(objective, n_trials=after)
    ahead = outlook(study)
    study.optimize(objective)
    assert total(ahead.least) <= len(study.trials) - after <= total(ahead.most)


def test_what_has_no_end_says_nothing():
    assert outlook(study_of(RandGrowSampler(GrowthSpace()))) is None
    assert outlook(study_of(EcoNASSampler(CELLS, cycles=None))) is None


def test_the_same_study_has_the_same_outlook():
    study = study_of(MacroMicroSampler(ChainSpace((2, 6), (4, 16)), **SHAPE))
    assert outlook(study) == outlook(study)
