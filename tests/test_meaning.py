"""Numbers side by side: what cannot be compared, and what is no better than a guess."""

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from searches import opened

from optnas.report import meaning
from optnas.report.meaning import phases_at_chance, remarks
from optnas.report.text import best_text, status_fields, status_text
from optnas.running.loop import INTERRUPTED
from optnas.spaces import ChainSpace
from optnas.study.opening import Conclusion

SPACE = ChainSpace(depth=(3, 6), width=(8, 16))
MICRO = ("baseline", "operations", "operations", "operations", "kernels", "kernels", "kernels")


def trained(phase: str, value: float, epochs: int, **keys):
    network = SPACE.uniform(3, 8, "separable", 3)
    params = {**SPACE.to_params(network), "epochs": epochs}
    distributions = {
        name: CategoricalDistribution((value,))
        if isinstance(value, str)
        else IntDistribution(1, 99)
        for name, value in params.items()
    }
    return create_trial(
        value=value,
        params=params,
        distributions=distributions,
        user_attrs={"phase": phase},
        intermediate_values=dict.fromkeys(range(1, epochs + 1), value),
        **keys,
    )


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """A macro search that learnt, and a micro search, with 200 validation images of 4 classes."""
    monkeypatch.setattr(meaning, "seen_fields", lambda _: {"counts": {"validation": [50] * 4}})

    def search(micro):
        macro = [("depth", 0.4, 5), ("depth", 0.59, 6), ("width", 0.57, 8)]
        trials = [*macro, *((phase, value, 1) for phase, value in zip(MICRO, micro, strict=True))]
        found = opened(tmp_path, [trained(*each) for each in trials], space="chain")
        network = SPACE.uniform(3, 8, "separable", 3)
        settled = [Conclusion(network, 3, micro[0], True), Conclusion(network, 1, 0.59, True)]
        return found, settled

    return search


def test_a_micro_search_that_learnt_nothing_says_so_and_what_follows(searched):
    found, settled = searched([0.25, 0.26, 0.24, 0.25, 0.27, 0.25, 0.2])
    assert phases_at_chance(found, found.study.trials) == ["baseline", "operations", "kernels"]
    compared, nothing, follows = remarks(found, settled, "study.yaml")
    assert compared.endswith("lengths: trial 3 for 1 epoch, trial 1 for 6 epochs.")
    assert nothing.startswith("All 7 trials of the phases baseline, operations and kernels are no")
    assert "train the network of trial 1, by `optnas retrain study.yaml --trial 1`" in follows


def test_one_that_learnt_is_told_as_it_is(searched):
    found, settled = searched([0.25, 0.26, 0.45, 0.5, 0.27, 0.25, 0.5])
    assert phases_at_chance(found, found.study.trials) == []
    assert len(remarks(found, settled, "study.yaml")) == 1  # That they cannot be compared.
    assert remarks(found, settled[1:], "study.yaml") == []


def test_what_is_interrupted_has_not_failed(tmp_path):
    found = opened(tmp_path, space="chain")
    trial = found.study.ask()
    for name, value in (("failure", "lost"), ("failure_reason", INTERRUPTED)):
        trial.set_user_attr(name, value)
    found.study.tell(trial, state=TrialState.FAIL)
    assert status_fields(found)["outcomes"] == {"interrupted": 1}
    text = status_text(found, "study.yaml")
    assert "trials   1 interrupted" in text
    assert "fail" not in text
    assert text.endswith("next     optnas run study.yaml")


def test_a_super_network_is_told_as_what_it_found(tmp_path):
    found = opened(tmp_path, space="chain")
    trial = found.study.ask()
    trial.set_user_attr("edge_weights", {"cell": [[1.0]]})
    trial.suggest_categorical("phase", ["topology"])
    found.study.tell(trial, state=TrialState.PRUNED)
    assert status_fields(found)["outcomes"] == {"topology found": 1}


def test_the_best_network_is_told_in_words(tmp_path):
    found = opened(tmp_path, [trained("depth", 0.5, 1)], space="chain", sampler="random")
    text = best_text(found, "study.yaml")
    assert "  chain of 3 layers, width 8: 3 x separable 3x3; " in text
    assert "accuracy 0.5000 after 1 epoch of search" in text
