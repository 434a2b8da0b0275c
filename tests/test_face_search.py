"""The macro-micro strategy on face networks, with a made-up accuracy."""

import optuna
import pytest

from optnas.samplers import MacroMicroSampler
from optnas.spaces import FaceArchitecture, FaceSpace


class MadeUp:
    """Accuracy grows with the depth up to a limit, and falls below a width."""

    def __init__(self, space: FaceSpace, *, enough: int = 14, narrow: int = 8) -> None:
        self.space, self.enough, self.narrow = space, enough, narrow
        self.calls: list[tuple[int, int, int]] = []

    def __call__(self, trial: optuna.Trial) -> float:
        a = self.space.suggest(trial)
        self.calls.append((a.depth, a.width, trial.suggest_int("epochs", 1, 1000)))
        bonus = 0.01 * a.kernels.count(5) - 0.005 * a.operations.count("separable")
        return 0.5 + 0.01 * min(a.depth, self.enough) - 0.1 * (a.width < self.narrow) + bonus


def searched(objective: MadeUp, **options) -> optuna.Study:
    sampler = MacroMicroSampler(objective.space, in_channels=3, classes=50, epochs=4, **options)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=200)
    return study


def test_blocks_are_added_then_channels_taken_off():
    objective = MadeUp(FaceSpace((10, 18), (4, 12), embedding=16))
    study = searched(objective)
    # Equal accuracies are neither gains nor strikes, so it grows to the end.
    grown = [(10, 12, 4), (12, 12, 5), (14, 12, 6), (16, 12, 7), (18, 12, 8)]
    pruned = [(14, 10, 10), (14, 8, 12), (14, 6, 14), (14, 4, 16)]
    assert objective.calls == grown + pruned
    found = study.sampler.found(study)
    assert found == FaceArchitecture(8, (1, 2, 2, 1), 16)
    assert [(a, n) for n, a, _ in study.sampler.candidates(study)] == [(found, 6)]
    assert {trial.user_attrs["phase"] for trial in study.trials} == {"depth", "width"}


def test_blocks_change_on_request_at_equal_size():
    space = FaceSpace((10, 10), (12, 12), embedding=16, size=48)
    objective = MadeUp(space)
    study = searched(objective, micro=True, params_tolerance=0)
    assert len(objective.calls) == 2 + 4 + 4  # Macro, baseline, operations, kernels.
    found = study.sampler.found(study)
    # A kernel of 5 gains what it can; a separable convolution loses.
    assert set(found.operations) == {"conv"}
    assert 5 in found.kernels
    limit = FaceArchitecture(12, (1, 1, 1, 1), 16).num_params(3, 50, 48)
    tried = [space.from_params(trial.params) for trial in study.trials]
    assert all(a.num_params(3, 50, 48) <= limit for a in tried)
    assert any(a.width < 12 for a in tried)


def test_plain_convolutions_are_where_it_begins():
    assert MacroMicroSampler(FaceSpace(), in_channels=3, classes=9).operation == "conv"
    with pytest.raises(TypeError, match="searches a ChainSpace or FaceSpace"):
        MacroMicroSampler("face", in_channels=3, classes=9)
