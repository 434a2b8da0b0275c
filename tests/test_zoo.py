from typing import Any

import numpy as np
import optuna
import pytest

from optnas.samplers.zoo import ZooSampler
from optnas.spaces import ChainSpace, GrowthSpace, NasBench201Space
from optnas.trials.attributes import LOST
from optnas.trials.failures import mark_failure

SPACE = NasBench201Space()


def zoo(size: int, seed: int | None = 5, jobs: int = 1, space: Any = SPACE) -> list[Any]:
    """The networks of a study without training."""
    study = optuna.create_study(
        study_name="zoo", direction="maximize", sampler=ZooSampler(space, size=size, seed=seed)
    )
    networks = []

    def objective(trial: optuna.Trial) -> float:
        networks.append(space.suggest(trial))
        return 0.5

    study.optimize(objective, n_trials=200, n_jobs=jobs)
    return networks


def test_a_seed_gives_one_zoo_of_distinct_networks_and_then_the_study_ends() -> None:
    networks = zoo(30)
    assert len(networks) == len(set(networks)) == 30
    assert networks == zoo(30)
    assert networks != zoo(30, seed=6)


def test_a_larger_zoo_begins_with_the_smaller_one() -> None:
    assert zoo(20)[:8] == zoo(8)


def test_workers_share_a_zoo() -> None:
    assert set(zoo(20, jobs=4)) == set(zoo(20))


def test_networks_are_drawn_as_the_space_draws() -> None:
    networks = zoo(100)
    counts = np.unique([o for n in networks for o in n.operations], return_counts=True)[1]
    # 600 draws of five operations: 120 each, with a standard deviation of 9.8.
    assert len(counts) == 5
    assert counts.min() > 80
    assert counts.max() < 160


def test_a_space_that_is_used_up_ends_the_study() -> None:
    space = ChainSpace(depth=(1, 1), width=(4, 6))  # Two operations, two kernels, two widths.
    assert len(set(zoo(50, space=space))) == len(zoo(50, space=space)) == 8


def test_a_lost_network_is_tried_again_and_the_zoo_stays_the_same() -> None:
    expected = zoo(6)
    study = optuna.create_study(
        study_name="zoo", direction="maximize", sampler=ZooSampler(SPACE, size=6, seed=5)
    )

    def objective(trial: optuna.Trial) -> float:
        SPACE.suggest(trial)
        if trial.number == 2:
            mark_failure(trial, LOST, "for the test")
            raise OSError
        return 0.5

    study.optimize(objective, n_trials=200, catch=OSError)
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert [SPACE.from_params(trial.params) for trial in complete] == expected


def test_candidates_come_best_first() -> None:
    study = optuna.create_study(direction="maximize", sampler=ZooSampler(SPACE, size=4, seed=1))
    values = iter((0.2, 0.9, float("nan"), 0.5))

    def objective(trial: optuna.Trial) -> float:
        SPACE.suggest(trial)
        return next(values)

    study.optimize(objective)
    sampler: Any = study.sampler
    assert [number for number, _, _ in sampler.candidates(study)] == [1, 3, 0]
    assert sampler.found(study) == SPACE.from_params(study.best_params)


def test_a_zoo_has_networks() -> None:
    with pytest.raises(ValueError, match="`size` must be an integer, 1 or more"):
        ZooSampler(SPACE, size=0)


def test_networks_that_descend_from_others_are_no_zoo():
    with pytest.raises(TypeError, match="descend from others"):
        ZooSampler(GrowthSpace())
