"""What optnas asks of samplers, pruners and objectives: defaults, and that nobody else asks."""

import re
from pathlib import Path

import optuna
import pytest

from optnas import samplers
from optnas.config.contract import (
    data_set,
    described,
    objective_class,
    objective_of,
    pruning_of,
    strategy_of,
)
from optnas.objectives.classification import Classification
from optnas.objectives.tabular import Tabular
from optnas.samplers import HierarchicalPruner, MacroMicroSampler, StageWiseSampler
from optnas.spaces import ChainArchitecture, ChainSpace, GrowthSpace, StageSpace

ROOT = Path(samplers.__file__).parents[1]


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize")


@pytest.mark.parametrize(
    "sampler",
    [optuna.samplers.TPESampler(), optuna.samplers.RandomSampler(), optuna.samplers.QMCSampler()],
)
def test_optunas_own_samplers_have_the_defaults(sampler, study):
    strategy = strategy_of(sampler)
    assert strategy.is_stock
    assert not any((strategy.has_end, strategy.sets_epochs, strategy.inherits))
    assert (strategy.needs_objective, strategy.phases, strategy.retrained) == (None, None, 1)
    assert not strategy.is_finished(study)
    assert strategy.candidates(study) is None
    assert strategy.weights_needed is None
    assert strategy.parent_probabilities(study) == {}


def test_a_strategy_says_more_and_so_does_its_class(study):
    strategy = strategy_of(MacroMicroSampler(ChainSpace(), in_channels=1, classes=10))
    assert not strategy.is_stock
    assert strategy.has_end
    assert strategy.sets_epochs
    assert not strategy.is_finished(study)
    assert strategy.weights_needed is not None
    assert strategy_of(StageWiseSampler).needs_objective == "stage_classification"
    assert strategy_of(MacroMicroSampler).sets_epochs


class Counting(optuna.samplers.RandomSampler):
    """Of somebody else's: it ends, and says nothing more."""

    def is_finished(self, study):
        return len(study.trials) >= 2


def test_a_sampler_that_says_a_part_has_the_defaults_of_the_rest(study):
    strategy = strategy_of(Counting())
    assert strategy.has_end
    assert not any((strategy.is_stock, strategy.inherits, strategy.sets_epochs))
    assert strategy.weights_needed is None
    assert not strategy.is_finished(study)
    study.ask()
    study.ask()
    assert strategy.is_finished(study)


def test_pruners_and_architectures():
    assert pruning_of(optuna.pruners.MedianPruner()).whole_training is None
    assert pruning_of(HierarchicalPruner(epochs=5)).whole_training == 15
    chain = described(ChainArchitecture.uniform(3, 8))
    assert chain.depth == 3
    assert chain.num_params is not None
    assert described(StageSpace().from_params({f"modules_{i}": i for i in (1, 2, 3)})).depth == 15
    assert described(GrowthSpace().initial()).num_params is not None
    assert (described(None).depth, described(None).num_params) == (None, None)


class Bare:
    in_channels, classes = 3, 10

    def __call__(self, trial):
        return float(trial.number)


def test_objectives(study):
    objective = objective_of(Bare())
    assert objective(study.ask()) == 0.0
    assert (objective.in_channels, objective.classes) == (3, 10)
    assert objective.retrain is None
    assert objective.ensemble is None
    cls = objective_class(Bare)
    assert cls.needs_data
    assert cls.load_images is None
    assert cls.inference_times({}, 10, network=None, train=None, proxy=None) == ({}, "")
    assert not objective_class(Tabular).needs_data
    assert objective_class(Classification).load_images is not None


def test_a_function_describes_itself():
    def squares():
        """Squares and circles.

        Drawn by hand.
        """

    assert data_set(squares).description == "Squares and circles."
    assert data_set(lambda: None).description == ""


PROBE = re.compile(
    r"(?:get|has)attr\(\s*(?:\w+\.)*(?:sampler|pruner|objective|space|strategy)"
    r"\b|(?:get|has)attr\([^()]*(?:\([^()]*\))?[^()]*,\s*\"(?:is_finished|has_end|sets_epochs|"
    r"inherits|needs_objective|needs_data|phases|retrained|candidates|weights_needed|parent_probabilities|"
    r"whole_training|retrain|ensemble|num_params|depth)\""
)


def test_the_probes_are_recognised():
    assert PROBE.search('hasattr(opened.study.sampler, "x")')
    assert PROBE.search('getattr(space.named_by(trial), "depth", None)')
    assert PROBE.search('getattr(plugins.load("sampler", name), "sets_epochs", False)')
    assert not PROBE.search('getattr(field, "name")')


def test_nobody_else_probes():
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for room in ("optnas", "objectives")
        for path in (ROOT / room).rglob("*.py")
        for line in path.read_text().splitlines()
        if PROBE.search(line) and path.name != "contract.py"
    }
    assert found == set()


def test_nothing_in_optnas_imports_strategies_or_objectives():
    named = re.compile(r"^\s*(?:from|import) optnas\.(samplers|objectives)\b", re.M)
    found = {
        str(path.relative_to(ROOT / "optnas"))
        for path in (ROOT / "optnas").rglob("*.py")
        if named.search(path.read_text())
    }
    assert found <= {"__init__.py"}
