"""Children that start from their parents' weights, trained on real images."""

import io

import optuna
import pytest
import torch
from optuna.trial import TrialState

from optnas.config.settings import CheckpointSettings, DataSettings, TrainSettings
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import load_images
from optnas.samplers import RandGrowSampler
from optnas.spaces import ChainSpace, GrowthSpace
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import Checkpoints
from optnas.trials.lineage import parent_of, without_weights

SPACE = GrowthSpace(cells=1, channels=4)
TRAIN = TrainSettings(epochs=2, cycles=2, initial_epochs=3, lr=0.1)


@pytest.fixture(scope="module")
def images():
    return load_images(DataSettings(name="digits", samples=0.2), 0)


class Search:
    """A search with its artifacts in a folder."""

    def __init__(self, images, folder, *, space=SPACE, sampler=None, on_epoch=None, **options):
        sampler = sampler or RandGrowSampler(SPACE, seed=1)
        self.study = optuna.create_study(study_name="grown", direction="maximize", sampler=sampler)
        self.folder = folder
        self.checkpoints = Checkpoints(open_artifacts(folder), self.study._storage, "grown")
        self.objective = Classification(
            space,
            images,
            seed=1,
            checkpoints=self.checkpoints,
            on_epoch=on_epoch,
            **{"train": TRAIN, **options},
        )

    def run(self, n_trials):
        self.study.optimize(self.objective, n_trials=n_trials, callbacks=[self.checkpoints.clean])
        return self.study.trials

    def weights(self, number):
        state = self.checkpoints.load(self.study.trials[number])
        return torch.load(io.BytesIO(state), weights_only=True)["model"]


def lineage(study):
    """What a search came to, without the numbers of trials, which losses shift."""
    trials = [t for t in study.trials if t.state == TrialState.COMPLETE]
    return [
        (
            trial.user_attrs["architecture"],
            None
            if parent_of(trial) is None
            else study.trials[parent_of(trial)].user_attrs["architecture"],
            trial.value,
        )
        for trial in trials
    ]


def test_children_inherit_every_tensor_of_their_parent(images, tmp_path, monkeypatch):
    first = {}

    def remember(trainer, *_):
        first.update({k: v.clone() for k, v in trainer.model.state_dict().items()})
        raise KeyboardInterrupt

    search = Search(images, tmp_path)
    search.run(1)
    parent = search.weights(0)
    monkeypatch.setattr("optnas.objectives.training.trainer.Trainer.train_epoch", remember)
    with pytest.raises(KeyboardInterrupt):
        search.run(1)
    assert search.study.trials[1].user_attrs["inherited_tensors"] == len(parent)
    assert parent.keys() < first.keys()
    assert all(torch.equal(first[name], value) for name, value in parent.items())


def test_the_initial_network_has_epochs_of_its_own_in_one_cycle(images, tmp_path):
    trials = Search(images, tmp_path).run(2)
    assert [len(trial.intermediate_values) for trial in trials] == [3, 2]
    assert [parent_of(trial) for trial in trials] == [None, 0]


def test_only_weights_that_can_be_inherited_stay(images, tmp_path):
    search = Search(images, tmp_path)
    search.run(6)
    needed = search.study.sampler.weights_needed(search.study)
    existing = [t.number for t in search.study.trials if search.checkpoints.exists(t)]
    assert existing == sorted(needed)
    gone = without_weights(search.study._storage, search.study._study_id)
    assert sorted([*gone, *needed]) == list(range(6))


@pytest.mark.parametrize("kill_at", [1, 3, 4, 5, 8])
def test_a_search_that_was_cut_off_finds_the_same(images, tmp_path, kill_at):
    undisturbed = Search(images, tmp_path / "a")
    undisturbed.run(4)
    epochs = []

    def on_epoch(progress):
        epochs.append((progress.number, progress.epoch))
        if len(epochs) == kill_at:
            raise KeyboardInterrupt

    search = Search(images, tmp_path / "b", on_epoch=on_epoch)
    with pytest.raises(KeyboardInterrupt):
        search.run(4)
    search.run(4 - len(lineage(search.study)))
    assert lineage(search.study) == lineage(undisturbed.study)
    assert len(epochs) == len(set(epochs)) == 3 + 3 * 2


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_parent_without_weights_is_a_reason_and_the_search_goes_on(images, tmp_path, damage):
    search = Search(images, tmp_path)
    search.run(3)
    for path in tmp_path.iterdir():
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(b"x" + path.read_bytes()[1:])
    trials = search.run(4)[3:]
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert failed
    for trial in failed:
        assert trial.user_attrs["failure"] == "candidate"
        assert (
            f"parent's weights: the checkpoint of trial {parent_of(trial)} is {damage}"
            in (trial.user_attrs["failure_reason"])
        )
    # Nobody chose the same parent again, and in the end the initial network was trained anew.
    assert len({parent_of(trial) for trial in failed}) == len(failed)
    assert any(parent_of(t) is None for t in trials if t.state == TrialState.COMPLETE)


def test_a_parent_is_all_that_the_objective_looks_at(images, tmp_path):
    """Any space: here a chain whose parent somebody names."""
    space = ChainSpace(depth=(3, 6), width=(4, 8))
    search = Search(
        images,
        tmp_path,
        space=space,
        sampler=optuna.samplers.RandomSampler(seed=0),
        train=TrainSettings(epochs=2, lr=0.1),
    )
    search.checkpoints._keep = "all"
    search.study.enqueue_trial({"depth": 4, "width": 6})
    search.study.enqueue_trial({"depth": 5, "width": 5}, user_attrs={"parent": 0})
    search.study.enqueue_trial({"depth": 5, "width": 5})
    trials = search.run(3)
    assert trials[1].user_attrs["inherited_tensors"] > 20
    assert "inherited_tensors" not in trials[2].user_attrs
    seeds = [trial.user_attrs["training_seed"] for trial in trials]
    assert len(set(seeds)) == 3


def test_a_parent_that_does_not_exist_fails_the_candidate_alone(images, tmp_path):
    space, train = ChainSpace(depth=(3, 6), width=(4, 8)), TrainSettings(epochs=1, lr=0.1)
    sampler = optuna.samplers.RandomSampler(seed=0)
    search = Search(images, tmp_path, space=space, sampler=sampler, train=train)
    for parent in (0, 9):  # The first one names itself.
        search.study.enqueue_trial({"depth": 3, "width": 4}, user_attrs={"parent": parent})
    for parent, trial in zip((0, 9), search.run(2), strict=True):
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["failure"] == "candidate"
        reason = f"its parent, trial {parent}, is no finished trial of the study"
        assert trial.user_attrs["failure_reason"] == reason


def test_weights_that_others_need_are_saved_before_the_trial_ends(images, tmp_path, monkeypatch):
    """A full disk at the last epoch: the trial is lost, and goes on when there is space."""
    undisturbed = Search(images, tmp_path / "a")
    undisturbed.run(2)
    search = Search(images, tmp_path / "b")
    write = search.checkpoints._store.write

    def write_on_a_full_disk(name, content):
        if "-0-3-" in name:
            raise OSError(28, "No space left on device")
        write(name, content)

    monkeypatch.setattr(search.checkpoints._store, "write", write_on_a_full_disk)
    with pytest.warns(UserWarning, match="No space"), pytest.raises(OSError, match="make space"):
        search.run(1)
    assert search.study.trials[0].user_attrs["failure"] == "lost"
    monkeypatch.undo()
    search.run(2)
    assert lineage(search.study) == lineage(undisturbed.study)
    assert [t.user_attrs.get("epochs_trained") for t in search.study.trials] == [None, 1, 2]


def test_checkpoints_every_other_epoch_lose_at_most_two(images, tmp_path):
    epochs = []

    def on_epoch(progress):
        epochs.append(progress.epoch)
        if len(epochs) == 3:
            raise KeyboardInterrupt

    search = Search(
        images,
        tmp_path,
        checkpoint=CheckpointSettings(every=2),
        on_epoch=on_epoch,
        train=TrainSettings(epochs=4, lr=0.1),
    )
    with pytest.raises(KeyboardInterrupt):
        search.run(1)
    search.run(1)
    assert epochs == [1, 2, 3, 3, 4]


def test_a_network_that_stands_for_itself_is_trained_without_lost_weights(images, tmp_path):
    search = Search(
        images,
        tmp_path,
        space=ChainSpace(depth=(3, 6), width=(4, 8)),
        sampler=optuna.samplers.RandomSampler(seed=0),
        train=TrainSettings(epochs=1, lr=0.1),
    )
    search.study.enqueue_trial({"depth": 4, "width": 6})
    search.study.enqueue_trial({"depth": 5, "width": 5}, user_attrs={"parent": 0})
    search.run(1)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.warns(
        UserWarning, match="checkpoint of trial 0 is missing: it starts from random"
    ):
        trials = search.run(1)
    assert trials[1].state == TrialState.COMPLETE
    assert "inherited_tensors" not in trials[1].user_attrs
