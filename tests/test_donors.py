"""Networks of stages that start from a trained donor: kept, torchvision's, or the study's own."""

import re
import shutil
import warnings
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import optnas
from optnas.config.file import study_from_dict
from optnas.config.settings import DataSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.data.images import load_images
from optnas.objectives.inheritance.adapters import inherit
from optnas.objectives.kept import trained as networks
from optnas.objectives.kept.donors import Donor, read_donor
from optnas.objectives.networks.build import build_model
from optnas.objectives.stage_classification import StageClassification
from optnas.objectives.training.trainer import Trainer
from optnas.samplers import StageWiseSampler
from optnas.spaces import ChainArchitecture, StageArchitecture, StageSpace
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import Checkpoints
from optnas.study.opening import open_existing

DATA = DataSettings(name="digits", classes=(0, 1, 7), samples=0.3)
SPACE = StageSpace(stages=2, modules=(1, 2))
TRAIN = TrainSettings(epochs=1, lr=0.1)
STUDY = """
study: fine-tuned
space: {name: stage, stages: 2, modules: [1, 2]}
sampler: {name: stage_wise, initial: 1, growth: 1, iterations: 1}
objective: {name: stage_classification, transfer: donor}
data: {name: digits, classes: [0, 1, 7], samples: 0.3, validation: 20}
train: {epochs: 1}
"""


@pytest.fixture(scope="module")
def images():
    return load_images(DATA, 0)


def keep(folder, architecture=None, images=None, seed=0) -> Path:
    networks.retrain(
        architecture or StageArchitecture((2, 2)),
        images or load_images(DATA, 0),
        TRAIN,
        folder,
        network={},
        seed=seed,
        origin={},
        device=torch.device("cpu"),
    )
    return folder


@pytest.fixture(scope="module")
def donor(tmp_path_factory, images) -> Path:
    """The folder of a trained network of (2, 2) modules; not to be changed."""
    return keep(tmp_path_factory.mktemp("donor") / "network", images=images)


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The donor was trained on the images")
        yield


def objective_with(images, space=SPACE, **options) -> StageClassification:
    return StageClassification(space, images, train=TRAIN, seed=0, device="cpu", **options)


def evaluated(objective, *modules, study=None) -> optuna.trial.FrozenTrial:
    study = study or optuna.create_study(direction="maximize")
    study.enqueue_trial(dict(zip(("modules_1", "modules_2"), modules, strict=True)))
    study.optimize(objective, n_trials=1)
    return study.trials[-1]


@pytest.fixture
def beginnings(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """The tensors of every network as it was before its first epoch."""
    seen: list[dict[str, torch.Tensor]] = []
    train_epoch = Trainer.train_epoch

    def spy(trainer):
        if trainer.epoch == 0:
            seen.append({n: t.clone() for n, t in trainer.model.state_dict().items()})
        return train_epoch(trainer)

    monkeypatch.setattr(Trainer, "train_epoch", spy)
    return seen


# A donor that is kept.


@pytest.mark.usefixtures("quiet")
def test_every_tensor_is_bitwise_that_of_the_donors_same_block(images, donor, beginnings):
    trial = evaluated(objective_with(images, transfer=donor), 1, 2)
    theirs = read_donor(donor).state
    assert set(beginnings[0]) == {name for name in theirs if not name.startswith("stages.0.1.")}
    assert all(torch.equal(value, theirs[name]) for name, value in beginnings[0].items())
    assert trial.user_attrs["inherited_tensors"] == len(beginnings[0])
    assert trial.user_attrs["donor_sha256"] == read_donor(donor).sha256


@pytest.mark.usefixtures("quiet")
def test_a_classifier_of_other_classes_stays_random(donor, beginnings):
    other = load_images(DataSettings(name="digits", samples=0.3), 0)
    evaluated(objective_with(other, transfer=donor), 2, 2)
    theirs = read_donor(donor).state
    fresh = {n for n, v in beginnings[0].items() if not torch.equal(v, theirs[n])}
    assert fresh == {"classifier.weight", "classifier.bias"}


@pytest.mark.usefixtures("quiet")
def test_a_training_is_a_function_of_the_donor(images, donor, tmp_path):
    copy = shutil.copytree(donor, tmp_path / "copy")
    other = keep(tmp_path / "other", images=images, seed=1)
    trials = [
        evaluated(objective_with(images, transfer=path), 1, 1)
        for path in (donor, copy, other, None)
    ]
    seeds = [trial.user_attrs["training_seed"] for trial in trials]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3
    assert trials[0].value == trials[1].value
    scores = [trial.user_attrs["stage_importance"] for trial in trials]
    assert scores[0] == scores[1] != scores[2]


def test_a_donor_that_has_seen_the_validation_images_is_warned_of(images, donor):
    with pytest.warns(UserWarning, match="trained on the images that candidates are judged by"):
        objective_with(images, transfer=donor)
    elsewhere = load_images(DataSettings(name="digits", classes=(2, 3, 4)), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective_with(elsewhere, transfer=donor)


@pytest.mark.usefixtures("quiet")
def test_a_study_does_not_go_on_with_another_donor(images, donor, tmp_path):
    study = optuna.create_study(direction="maximize")
    evaluated(objective_with(images, transfer=donor), 1, 1, study=study)
    other = keep(tmp_path / "other", images=images, seed=1)
    with pytest.raises(UserError, match="the donor has changed since the study began"):
        evaluated(objective_with(images, transfer=other), 1, 2, study=study)


def test_relative_paths_start_beside_the_study_file_which_may_be_moved(
    donor, tmp_path, monkeypatch
):
    home = tmp_path / "home"
    shutil.copytree(donor, home / "donor")
    (home / "study.yaml").write_text(STUDY + "budget: {trials: 1}\n")
    assert optnas.run(home / "study.yaml").ending == "budget"
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{home}/fine-tuned.db"
    stored = open_existing(url).config
    assert stored.objective.options["transfer"] == str(home / "donor")
    assert optnas.run(stored).ending == "budget"
    away = home.rename(tmp_path / "away")
    (away / "study.yaml").write_text(STUDY)
    outcome = optnas.run(away / "study.yaml")
    assert outcome.ending == "finished"
    assert {len(t.user_attrs["donor_sha256"]) for t in outcome.study.trials} == {64}


def made(modules=(3, 3), block="basic", in_channels=1) -> Donor:
    return Donor(StageArchitecture(modules, block), in_channels, {}, "")


@pytest.mark.parametrize(
    ("donor", "space", "message"),
    [
        (made((2, 3)), StageSpace(2, modules=(1, 3)), r"stage 1 may have 3 .* 2 in the donor"),
        (made((2, 3)), StageSpace(2, modules=(1, 9)), r"`modules: \[\[1, 2\], \[1, 3\]\]`"),
        (made((3, 3, 3)), SPACE, "the donor has 3 stages of 'basic' modules, the space 2"),
        (made(block="nasnet"), SPACE, "2 stages of 'nasnet' modules, the space 2 of 'basic'"),
        (made(in_channels=3), SPACE, "images of 3 channels, the data has 1"),
    ],
)
def test_donors_that_do_not_fit_are_refused_at_the_start(donor, space, message):
    with pytest.raises(UserError, match=message):
        donor.check(space, in_channels=1)


def test_samples_without_an_image_of_every_class_are_refused_at_the_start(images):
    with pytest.raises(UserError, match=r"objective\.samples must be 3 or more"):
        objective_with(images, samples=2)


def test_an_objective_that_scores_no_stages_is_refused_at_the_start():
    keys = yaml.safe_load(STUDY)
    with pytest.raises(UserError, match="'stage_wise' needs the objective 'stage_classification'"):
        study_from_dict(keys | {"objective": "classification"})


def test_a_space_may_end_where_the_donor_ends():
    made((3, 8, 36, 3), "bottleneck").check(
        StageSpace(4, "bottleneck", ((1, 3), (2, 8), (1, 36), (3, 3))), in_channels=1
    )


def test_a_cell_network_takes_what_has_its_shape():
    """Only the projection of what comes before a reduction depends on the depth."""
    shape = (1, 8, 8)
    deep = build_model(StageArchitecture((2, 2), "nasnet"), shape, 3)
    for modules, fresh in (((2, 1), set()), ((1, 2), {"reductions.0"})):
        model = build_model(StageArchitecture(modules, "nasnet"), shape, 3)
        inherit(model, deep.state_dict())
        theirs = deep.state_dict()
        left = {
            n
            for n, v in model.state_dict().items()
            if v.is_floating_point()
            and (v.shape != theirs[n].shape or not torch.equal(v, theirs[n]))
        }
        assert {".".join(name.split(".")[:2]) for name in left} == fresh


# torchvision's networks.


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A small ResNet of torchvision, and the file of its weights."""
    torch.manual_seed(0)
    model = ResNet(Bottleneck, [1, 2, 1, 1], num_classes=5).eval()
    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save(model.state_dict(), path)
    return model, path


def test_torchvisions_weights_compute_the_same_here(resnet):
    model, path = resnet
    donor = read_donor(path)
    assert donor.architecture == StageArchitecture((1, 2, 1, 1), "bottleneck")
    assert (donor.in_channels, len(donor.sha256)) == (3, 64)
    own = build_model(donor.architecture, (3, 64, 64), 5).eval()
    assert inherit(own, donor.state) == len(own.state_dict())
    inputs = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(own(inputs), model(inputs), rtol=0, atol=0)


def test_weights_from_before_batches_were_counted_are_taken(resnet, tmp_path):
    state = {n: v for n, v in resnet[0].state_dict().items() if "num_batches" not in n}
    torch.save(state, tmp_path / "old.pth")
    assert read_donor(tmp_path / "old.pth").architecture.modules == (1, 2, 1, 1)


def test_files_that_hold_no_donor_are_refused(resnet, tmp_path):
    wide = ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=128)
    contents = {
        "wide": wide.state_dict(),
        "basic": ResNet(BasicBlock, [1, 1, 1, 1]).state_dict(),
        "numbers": [1, 2, 3],
        "gap": {n: v for n, v in resnet[0].state_dict().items() if "layer2" not in n},
        "number": resnet[0].state_dict() | {"conv1.weight": torch.tensor(1.0)},
        # A network of so many blocks would not be built in hours.
        "deep": resnet[0].state_dict() | {"layer1.9999999.conv1.weight": torch.ones(1)},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match="does not hold the weights of torchvision's resnet50"):
            read_donor(tmp_path / name)
    torch.save(wide, tmp_path / "module")  # Code, which must not run.
    (tmp_path / "text").write_text("abc")
    for name in ("module", "text"):
        with pytest.raises(UserError, match="it must be a state_dict, as"):
            read_donor(tmp_path / name)
    with pytest.raises(UserError, match="does not exist; name a folder that `optnas retrain`"):
        read_donor(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no trained network"):
        read_donor(tmp_path)


def test_a_network_of_another_space_is_no_donor(images, tmp_path):
    keep(tmp_path / "chain", ChainArchitecture.uniform(2, 4), images)
    with pytest.raises(UserError, match="holds a network of the space 'chain'"):
        read_donor(tmp_path / "chain")


# The study's own donor.


class Table:
    """An objective without training that looks importances up."""

    def __init__(self, space, scores) -> None:
        self.space, self.scores = space, scores
        self.calls: list[tuple[tuple[int, ...], int | None]] = []

    def __call__(self, trial):
        modules = self.space.suggest(trial).modules
        self.calls.append((modules, trial.user_attrs.get("parent")))
        trial.set_user_attr("stage_importance", self.scores(modules))
        return float("nan") if self.scores(modules) is None else 0.5


def searched(space, scores, *, n_jobs=1, **options):
    table = Table(space, scores)
    sampler = StageWiseSampler(space, initial=1, growth=1, donor=True, **options)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(table, n_jobs=n_jobs)
    return table, study


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_the_deepest_network_comes_first_and_all_others_start_from_it(n_jobs):
    space = StageSpace(2, modules=((1, 5), (1, 3)))
    table, study = searched(space, list, n_jobs=n_jobs, iterations=2)
    assert sorted(table.calls[1:]) == [((1, 1), 0), ((2, 2), 0), ((3, 3), 0)]
    assert table.calls[0] == ((5, 3), None)
    assert study.trials[0].user_attrs["phase"] == "donor"
    assert [a.modules for _, a, _ in study.sampler.candidates(study)] == [(3, 3), (2, 2)]
    assert study.sampler.found(study).modules == (3, 3)


def test_no_stage_grows_beyond_the_donor():
    space = StageSpace(2, modules=((1, 2), (1, 4)))
    table, study = searched(space, list, iterations=9)
    # The last network asked for is the donor itself, whose result is there.
    assert [modules for modules, _ in table.calls] == [(2, 4), (1, 1), (2, 2), (2, 3)]
    assert study.sampler.found(study).modules == (2, 4)


def test_the_study_of_the_page_trains_a_donor():
    page = (Path(__file__).parents[1] / "docs" / "stagewise.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    config = study_from_dict(yaml.safe_load(block))
    assert (config.train.initial_epochs, config.train.epochs) == (15, 3)
    sampler = config.make_sampler(config.make_space(), in_channels=1, classes=10, seed=0)
    assert sampler.inherits


def test_without_a_donor_networks_begin_anew():
    """A donor that failed, out of memory say, has nothing to give."""
    space = StageSpace(2, modules=(1, 9))
    table, study = searched(space, lambda m: None if m == (9, 9) else list(m), iterations=1)
    assert table.calls == [((9, 9), None), ((1, 1), None), ((2, 2), None)]
    assert study.sampler.is_finished(study)


def own_donor(images, folder):
    space = StageSpace(2, modules=(1, 3))
    sampler = StageWiseSampler(space, initial=1, growth=1, iterations=1, donor=True, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    checkpoints = Checkpoints(open_artifacts(folder), study._storage, "own")
    objective = StageClassification(
        space,
        images,
        train=TRAIN.model_copy(update={"initial_epochs": 2}),
        seed=0,
        checkpoints=checkpoints,
        device="cpu",
    )
    return study, objective, checkpoints


def test_the_weights_of_the_own_donor_are_kept_until_the_end(images, tmp_path, beginnings):
    study, objective, checkpoints = own_donor(images, tmp_path)
    study.optimize(objective, callbacks=[checkpoints.clean])
    donor, *others = study.trials
    assert len(donor.intermediate_values) == 2
    assert [len(trial.intermediate_values) for trial in others] == [1] * len(others)
    assert {trial.user_attrs["parent"] for trial in others} == {0}
    # Stem, two blocks, the projection between them, and the classifier.
    assert others[0].user_attrs["inherited_tensors"] == 7 + 2 * 14 + 2 + 2
    stem = [state["stem.0.weight"] for state in beginnings]
    assert not torch.equal(stem[0], stem[1])
    assert torch.equal(stem[1], stem[2])
    assert not list(tmp_path.glob("*.pt"))


def test_a_search_whose_donor_is_lost_goes_on_without(images, tmp_path, beginnings):
    study, objective, checkpoints = own_donor(images, tmp_path)
    study.optimize(objective, n_trials=1, callbacks=[checkpoints.clean])
    checkpoints.say_lost(study, 0, "missing")
    study.optimize(objective, n_trials=1)
    assert "parent" not in study.trials[1].user_attrs
    # From random weights it is trained as long as the donor.
    assert len(study.trials[1].intermediate_values) == 2
