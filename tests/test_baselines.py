"""Human-designed networks beside a search: which, how they are trained, and what is shown."""

import functools
import json
import math
import re
import shutil

import optuna
import pytest
from optuna.trial import TrialState
from searches import opened, trial

import optnas
from optnas.config.settings import DataSettings
from optnas.errors import UserError
from optnas.objectives.data.images import load_images
from optnas.objectives.stage_classification import StageClassification
from optnas.objectives.training.trainer import Trainer
from optnas.running import baseline_training
from optnas.running.baseline_training import baselines_config, open_baselines, train_baselines
from optnas.samplers.baselines import BaselineSampler
from optnas.spaces import ChainSpace, StageSpace, stage
from optnas.study.opening import open_existing

STUDY = """
study: found
sampler: {name: stage_wise, initial: 1, growth: 1, iterations: 1}
space: {name: stage, modules: [1, 3]}
objective: {name: stage_classification, samples: 60}
data: {name: digits, samples: 0.1, classes: [0, 1, 2, 3]}
train: {epochs: 1}
budget: {trials: 9}
"""
SMALL = {"ResNet-44": (1, 1, 2), "ResNet-56": (1, 2, 2), "ResNet-110": (2, 4, 1)}
FAMILIES = {
    ("basic", 3): {"ResNet-44": 45, "ResNet-56": 57, "ResNet-110": 111},
    ("bottleneck", 4): {"ResNet-50": 53, "ResNet-101": 104, "ResNet-152": 155},
    ("nasnet", 3): {"NASNet-169": 169, "NASNet-205": 205, "NASNet-241": 241},
}


@pytest.mark.parametrize(("family", "depths"), FAMILIES.items())
def test_the_networks_are_those_that_papers_compare_with(family, depths):
    block, number = family
    known = StageSpace(number, block).baselines()
    assert {name: architecture.depth for name, architecture in known.items()} == depths
    assert not StageSpace(number + 1, block).baselines()


def value(trial: optuna.Trial, space: StageSpace) -> float:
    return space.suggest(trial).depth / 1000


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_proposed_one_after_the_other_outside_the_range_too(family):
    block, number = family
    space = StageSpace(number, block, modules=(1, 2))
    sampler = BaselineSampler(space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: value(trial, space), n_trials=9)
    names = [t.user_attrs["human_designed"] for t in study.trials if t.params]
    assert names == list(space.baselines())
    assert [space.from_trial(t) for t in study.trials if t.params] == list(
        space.baselines().values()
    )
    assert sampler.found(study) == list(space.baselines().values())[-1]
    assert [number for number, _, _ in sampler.candidates(study)] == [2, 1, 0]


def test_one_that_fails_does_not_end_the_others():
    space = StageSpace()
    study = optuna.create_study(direction="maximize", sampler=BaselineSampler(space))
    study.optimize(
        lambda trial: value(trial, space) if trial.number else space.suggest(trial) and math.nan,
        n_trials=9,
    )
    assert [t.state for t in study.trials[:3]] == [TrialState.FAIL] + [TrialState.COMPLETE] * 2
    assert [number for number, _, _ in study.sampler.candidates(study)] == [2, 1]


@pytest.mark.parametrize("space", [StageSpace(2), StageSpace(3, "bottleneck"), ChainSpace()])
def test_spaces_without_such_networks_are_refused(space):
    with pytest.raises(ValueError, match="no human-designed networks are known for"):
        BaselineSampler(space)


def test_studies_without_such_networks_are_refused(tmp_path):
    found = opened(tmp_path, space={"name": "stage", "stages": 2})
    with pytest.raises(UserError, match=r"--baselines: no human-designed .* of bottleneck"):
        train_baselines(found)
    assert open_baselines(found) is None


def test_the_recipe_is_that_of_the_search(tmp_path):
    config = baselines_config(
        opened(
            tmp_path,
            sampler={"name": "stage_wise", "donor": True},
            objective={"name": "stage_classification", "criterion": "inf_fs"},
            train={"epochs": 2, "initial_epochs": 7, "lr": 0.5},
            proxy=None,
            limits={"params": 9},
            budget={"trials": 1},
            data={"name": "digits", "samples": 0.5},
        )
    )
    assert config.study == "made-baselines"
    assert (config.train.epochs, config.train.initial_epochs, config.train.lr) == (7, None, 0.5)
    assert config.objective.options["criterion"] == "inf_fs"
    assert config.data.samples == 0.5
    assert (config.limits.params, config.budget.trials) == (None, None)


def test_a_donor_that_they_would_outgrow_is_left_out(tmp_path):
    found = opened(tmp_path, objective={"name": "stage_classification"})
    options = {"name": "stage_classification", "transfer": str(tmp_path / "donor")}
    choice = found.config.objective.model_validate(options)
    config = found.config.model_copy(update={"objective": choice})
    made = baselines_config(baseline_training.OpenStudy(config, found.study))
    assert made.objective.options.get("transfer") is None


def test_they_are_trained_further_as_candidates_are():
    images = load_images(DataSettings(name="digits", classes=(0, 1), samples=0.1), seed=0)
    objective = StageClassification(StageSpace(), images, further_epochs=3)
    trials = [trial(0, 0.5, phase="ResNet-44", human_designed="ResNet-44")]
    trials += [trial(1, 0.5, phase=phase) for phase in ("candidate", "temporary")]
    assert [objective.further_epochs(each) for each in trials] == [3, 3, 0]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    (folder / "found.yaml").write_text(STUDY)
    optnas.run(folder / "found.yaml")
    return folder


@pytest.fixture
def study(searched, tmp_path, monkeypatch):
    """The path of a study file whose search is finished; those to compare with are small."""
    monkeypatch.setitem(stage._HUMAN_DESIGNED, "basic", SMALL)
    shutil.copytree(searched, tmp_path / "copy")
    return tmp_path / "copy" / "found.yaml"


@pytest.fixture
def report(optnas_command):
    """Runs `optnas report`: its exit code, and what it writes."""
    return functools.partial(optnas_command, "report")


def test_they_are_trained_once_and_shown_beside_the_search(study, monkeypatch, report):
    before = len(open_existing(str(study)).study.trials)
    seen = []
    train = Trainer.train_epoch
    monkeypatch.setattr(Trainer, "train_epoch", lambda self: seen.append(self) or train(self))
    code, out, err = report(study, "--baselines", "--json", "--no-inference")
    assert code == 0
    rows = json.loads(out)
    assert "ResNet-110" in err
    shown = {row["human_designed"]: row for row in rows if row["human_designed"]}
    assert shown.keys() == {"ResNet-44", "ResNet-56", "ResNet-110"}
    assert [(row["trial"], row["epochs"]) for row in shown.values()] == [(None, 1)] * 3
    assert all(row["energy"] for row in shown.values())
    assert [row["depth"] for _, row in sorted(shown.items())] == [17, 11, 13]
    assert len(rows) == 3 + before
    assert len(open_existing(str(study)).study.trials) == before
    # Done is done, and shown without being asked for.
    assert len(seen) == 3
    code, out, err = report(study, "--baselines", "--json", "--no-inference")
    assert (code, json.loads(out), err) == (0, rows, "")
    assert report(study)[0] == 0
    page = study.with_name("found.html").read_text()
    for text in ("ResNet-56", "human-designed", "CO2e (g)", "memory (MiB", "inference (ms"):
        assert text in page
    assert "475 g of CO2-equivalent per kWh" in page
    assert len(seen) == 3


def test_an_interrupted_training_goes_on(study, monkeypatch, report):
    train = Trainer.train_epoch
    seen = []

    def interrupted(self):
        result = train(self)
        seen.append(len(self.model.stages[1]))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Trainer, "train_epoch", interrupted)
    train_baselines(open_existing(str(study)))
    half = open_baselines(open_existing(str(study)))
    assert not half.is_finished
    code, out, _ = report(study, "--baselines", "--no-inference", "--json")
    assert code == 0
    shown = [row["human_designed"] for row in json.loads(out)]
    assert sorted(filter(None, shown)) == ["ResNet-110", "ResNet-44", "ResNet-56"]
    assert seen == [1, 2, 2, 4]


def test_another_recipe_is_not_mixed_in(study, report):
    found = open_existing(str(study))
    text = re.sub("study: found.*?sampler: [^\n]*", "study: found-baselines\nsampler: random",
                  STUDY, flags=re.DOTALL)  # fmt: skip
    other = study.with_name("other.yaml")
    other.write_text(text.replace("trials: 9", "trials: 1") + f"storage: {found.config.storage}\n")
    optnas.run(other)
    code, out, err = report(study, "--json", "--no-inference")
    assert code == 0
    assert "the human-designed networks are left out: the study 'found-baselines'" in err
    assert not any(row["human_designed"] for row in json.loads(out))
    assert report(study, "--baselines")[0] == 2


def test_the_users_power_and_electricity_count(study, report):
    options = ("--json", "--no-inference", "--power", "3600", "--carbon-intensity", "1000")
    code, out, _ = report(study, *options)
    assert code == 0
    for row in json.loads(out):
        if row["energy"] == "estimated":
            assert row["energy_wh"] == pytest.approx(row["train_seconds"])
        assert row["co2e_g"] == pytest.approx(row["energy_wh"])
    for wrong in (("--power", "-1"), ("--carbon-intensity", "nan"), ("--device", "cpu")):
        code, _, err = report(study, *wrong)
        assert code == 2
        assert re.match(f"optnas: {wrong[0]} ", err)
    assert not study.with_name("found.html").exists()
