"""Training embeddings, judging them by held-out people, keeping them and putting them to work."""

import dataclasses
import json
import pickle
from itertools import combinations

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from PIL import Image
from trainings import same, train

import optnas
from optnas import cli
from optnas.config.settings import TrainSettings
from optnas.errors import UserError
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.errors import DataError
from optnas.objectives.faces import testing
from optnas.objectives.faces.degrading import degraded, draw
from optnas.objectives.faces.images import FaceImages
from optnas.objectives.faces.objective import FaceRecognition, MarginSettings
from optnas.objectives.faces.pair_sets import PairSet
from optnas.objectives.faces.pairs import draw_pairs, fold_pairs
from optnas.objectives.faces.templates import TemplateSet
from optnas.objectives.faces.trainer import FaceRecipe, FaceTrainer
from optnas.objectives.models import build_model
from optnas.objectives.training.schedules import learning_rate
from optnas.objectives.verification import tar_at_far, template, ten_fold_accuracy, unit
from optnas.samplers import MacroMicroSampler
from optnas.spaces import ChainSpace, FaceArchitecture, FaceSpace
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import Checkpoints

SPACE = FaceSpace((10, 12), (2, 4), embedding=8, size=16)
RECIPE = TrainSettings(lr=0.1, batch_size=16, decay_norms=False)


def made_up(people: int = 14, shots: int = 6, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of people, alike but for noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (people, 1, 4, 4))
    patterns = coarse.repeat(side // 4, 2).repeat(side // 4, 3)
    noise = rng.integers(-40, 40, (people, shots, side, side))
    return (patterns + noise).astype(np.uint8).reshape(-1, 1, side, side), np.arange(
        people
    ).repeat(shots)


@pytest.fixture(scope="module")
def faces() -> FaceImages:
    pixels, labels = (torch.from_numpy(array) for array in made_up())
    none = pixels[:0], labels[:0]
    names = tuple(f"p{number}" for number in range(14))
    recipe = Augmentation(flip=True)
    return FaceImages(pixels, labels, *none, *none, names, recipe, held_out=4)


def trainer_of(faces: FaceImages, **recipe) -> FaceTrainer:
    images = faces.split(test=3, seed=0)
    model = build_model(
        FaceArchitecture(3, (1, 1, 1, 1), 8), (1, 16, 16), 7, torch.Generator().manual_seed(0)
    )
    recipe = FaceRecipe(**({"degrade": 0.5} | recipe))
    return FaceTrainer(model, images, RECIPE, faces=recipe, embedding=8, epochs=4, seed=5)


def test_people_are_held_out_not_images(faces):
    split = faces.split(test=3, seed=1)
    everybody = [*split.class_names, *split.validation_names, *split.test_names]
    assert sorted(everybody) == sorted(faces.class_names)
    assert split.test_names == ("p11", "p12", "p13")
    assert (len(split.class_names), len(split.validation_names)) == (7, 4)
    assert split.validation_names != faces.split(test=3, seed=2).validation_names
    assert split.validation_names == faces.split(test=3, seed=1).validation_names
    person = faces.class_names.index(split.class_names[2])
    expected = faces.train_images[faces.train_labels == person]
    assert torch.equal(split.train_images[split.train_labels == 2], expected)
    final = split.with_validation_in_training()
    assert final.class_names == split.class_names + split.validation_names
    assert final.train_labels.bincount().tolist() == [6] * 11
    with pytest.raises(DataError, match="`test_identities`: cannot hold out 13 of 14 people"):
        faces.split(test=13, seed=0)


@pytest.mark.parametrize("margin", ["adaface", "softmax"])
def test_a_training_goes_on_bit_for_bit(faces, margin, tmp_path):
    whole = train(trainer_of(faces, margin=margin), 4)
    first = train(trainer_of(faces, margin=margin), 2)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = trainer_of(faces, margin=margin)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(second, 2)
    assert same(whole, second)
    states = whole.margin.state_dict(), second.margin.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    if margin == "adaface":
        assert states[0]["mean"] != 20
    assert not same(whole, train(trainer_of(faces, margin="cosface"), 4))


def test_weight_decay_spares_normalisations_and_nothing_else(faces):
    trainer = trainer_of(faces)
    decayed, spared = trainer._optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (RECIPE.weight_decay, 0)
    model = trainer.model
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {id(p) for p in spared["params"]} == {id(p) for m in norms for p in m.parameters()}
    everything = [*model.parameters(), *trainer.margin.parameters()]
    both = decayed["params"] + spared["params"]
    assert {id(p) for p in both} == {id(p) for p in everything}
    assert len(both) == len(everything)


def test_milestones_divide_the_rate_by_ten():
    settings = TrainSettings(lr=0.1, schedule="step", milestones=(12, 20, 24))
    rates = [learning_rate(settings, epoch, 26) for epoch in range(26)]
    expected = [0.1] * 12 + [0.01] * 8 + [0.001] * 4 + [0.0001] * 2
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"milestones": (3,)}, "for the step schedule"),
        ({"schedule": "step", "milestones": (3, 2)}, "must ascend"),
    ],
)
def test_bad_milestones_are_refused(faces, keys, message):
    images = faces.split(test=3, seed=0)
    model = build_model(FaceArchitecture(3, (1, 1, 1, 1), 8), (1, 16, 16), 7)
    with pytest.raises(ValueError, match=message):
        FaceTrainer(
            model, images, TrainSettings(**keys), faces=FaceRecipe(), embedding=8, epochs=4, seed=5
        )


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.integers(0, 9))
def test_all_pairs_are_drawn_where_all_are_wanted(people, seed):
    labels = np.array(people)
    genuine, impostor = draw_pairs(labels, 10**6, 10**6, seed)
    for pairs, wanted in ((genuine, True), (impostor, False)):
        found = {tuple(sorted(pair)) for pair in pairs.tolist()}
        expected = {
            pair
            for pair in combinations(range(len(labels)), 2)
            if (labels[pair[0]] == labels[pair[1]]) == wanted
        }
        assert found == expected
        assert len(pairs) == len(expected)


@given(st.integers(4, 300), st.integers(0, 9))
def test_folds_have_as_many_pairs_of_one_person_as_of_two(count, seed):
    labels = np.arange(12).repeat(5)
    if count < 20:
        with pytest.raises(DataError, match="the ten folds need 10 of each"):
            fold_pairs(labels, count, seed)
        return
    pairs, same_person = fold_pairs(labels, count, seed)
    assert len(pairs) == min(count // 20 * 20, 240)
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).tolist() == same_person.tolist()
    folds = same_person.reshape(10, -1)
    assert (folds.mean(1) == 0.5).all()
    again, _ = fold_pairs(labels, count, seed)
    assert np.array_equal(pairs, again)


@pytest.mark.parametrize("channels", [1, 3])
def test_degrading_follows_its_draws_and_its_probability(channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (400, channels, 12, 12), dtype=torch.uint8, generator=generator)
    draws = draw(400, generator)
    assert torch.equal(degraded(images, draws, 0.0), images)
    some = degraded(images, draws, 0.2)
    assert torch.equal(some, degraded(images, draws, 0.2))
    assert torch.equal(some[100:200], degraded(images[100:200], draws[100:200], 0.2))
    share = (some != images).flatten(1).any(1).double().mean()
    assert abs(share - (1 - 0.8**3)) < 0.08
    every = degraded(images, draws, 1.0)
    assert (every != images).flatten(1).any(1).all()
    # A window stays; all else is black.
    cut = degraded(images, torch.cat((draws[:, :1], torch.ones(400, 2), draws[:, 3:]), 1), 0.99)
    kept = cut == images
    assert ((cut == 0) | kept).all()
    assert abs(kept[:, 0].double().mean() - 0.6) < 0.06


def objective_of(faces, **options) -> FaceRecognition:
    defaults = {"train": RECIPE, "seed": 0, "test_identities": 3, "degrade": 0.1}
    return FaceRecognition(SPACE, faces, **(defaults | options))


def search(faces, folder, *stops: int) -> optuna.Study:
    """A whole search, interrupted after so many epochs each time."""
    storage = optuna.storages.InMemoryStorage()
    for stop in (*stops, None):
        left = [stop]

        def interrupt(progress, left=left):
            if left[0] is not None:
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt

        sampler = MacroMicroSampler(SPACE, in_channels=1, classes=7, epochs=2)
        study = optuna.create_study(
            study_name="faces",
            storage=storage,
            sampler=sampler,
            direction="maximize",
            load_if_exists=True,
        )
        checkpoints = Checkpoints(open_artifacts(folder), storage, "faces")
        objective = objective_of(faces, checkpoints=checkpoints, on_epoch=interrupt)
        try:
            study.optimize(objective, callbacks=[checkpoints.clean])
        except KeyboardInterrupt:
            assert stop is not None
    return study


def outcome(study: optuna.Study) -> list[tuple]:
    return [
        (t.params, t.value, t.intermediate_values, t.user_attrs["train_accuracy"])
        for t in study.trials
        if t.state == TrialState.COMPLETE
    ]


def test_a_search_grows_and_prunes_and_goes_on_the_same_when_it_was_killed(faces, tmp_path):
    undisturbed = search(faces, tmp_path / "a")
    found = undisturbed.sampler.found(undisturbed)
    phases = [trial.user_attrs["phase"] for trial in undisturbed.trials]
    assert phases[:2] == ["depth"] * 2
    assert "width" in phases
    assert found is not None
    for trial in undisturbed.trials:
        values = list(trial.intermediate_values.values())
        assert len(values) == trial.params["epochs"]
        assert trial.value == max(values)
        assert 0 <= trial.value <= 1
    assert outcome(search(faces, tmp_path / "b", 3, 2, 4)) == outcome(undisturbed)


@pytest.mark.parametrize("metric", ["accuracy", "rank1", "tar"])
def test_learning_tells_people_apart_that_were_not_learnt_from(faces, metric):
    trainer = trainer_of(faces, metric=metric, degrade=0.0)
    images, labels = trainer.images.test_images, trainer.images.test_labels
    values = [trainer.evaluate(images, labels), train(trainer, 4).evaluate(images, labels)]
    assert all(0 <= value <= 1 for value in values)
    assert trainer.judge(trainer.features(images), labels.numpy()) == values[1]
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    assert trainer.evaluate(images, shuffled) < values[1]


def test_a_network_that_tells_nobody_apart_is_no_better_than_chance(faces):
    trainer = trainer_of(faces)
    for parameter in trainer.model.parameters():
        parameter.data.zero_()
    images = trainer.images
    assert trainer.evaluate(images.validation_images, images.validation_labels) == 0.5
    trainer.faces = dataclasses.replace(trainer.faces, metric="rank1")
    assert trainer.evaluate(images.validation_images, images.validation_labels) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": MarginSettings(name="softmax", m=0.3)}, "has no such options"),
        ({"metric": "tar", "far": 1e-6}, "needs at least 1,000,000 impostor pairs"),
        ({"test_identities": 0}, "give `test_identities` or `test_sets`"),
        ({"test_identities": 9}, "`validation`: cannot hold out"),
        ({"test_sets": ("nowhere.bin",)}, "does not exist"),
    ],
)
def test_what_cannot_be_is_refused_at_once(faces, options, message, tmp_path):
    if "test_sets" in options:
        options = {"test_sets": (tmp_path / "nowhere.bin",)}
    with pytest.raises(UserError, match=message):
        objective_of(faces, **options)


def test_the_space_must_be_for_the_faces(faces):
    with pytest.raises(TypeError, match="of a FaceSpace"):
        FaceRecognition(ChainSpace(), faces, seed=0)
    with pytest.raises(UserError, match=r"space.size: the faces have 16 x 16 pixels"):
        FaceRecognition(FaceSpace(), faces, seed=0)


def test_sets_of_pairs_and_of_templates_say_what_their_protocols_say(faces):
    """Of made-up embeddings; the templates' images count by their media."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 5)) + np.eye(5).repeat(12, 0) * 2
    people = np.arange(5).repeat(12)
    images = faces.split(test=0, seed=0)
    pairs, same_person = fold_pairs(people, 200, 0)
    plain = PairSet("plain", torch.zeros(60, 1, 1, 1), pairs, same_person)
    templates, media = np.arange(60) // 3, np.arange(60) % 3 // 2
    both = np.array(list(combinations(range(20), 2)))
    one_person = both[:, 0] // 4 == both[:, 1] // 4
    pooled = TemplateSet("pooled", plain.images, templates, media, both, one_person)
    answers, thresholds = testing.tested(lambda _: vectors, images, [plain, pooled], FaceRecipe())
    embeddings = unit(vectors)
    alike = (embeddings[pairs[:, 0]] * embeddings[pairs[:, 1]]).sum(1)
    expected = ten_fold_accuracy(2 - 2 * alike, same_person)
    assert answers["plain"]["accuracy"] == expected.mean
    assert answers["plain"]["threshold"] == pytest.approx(1 - np.mean(expected.thresholds) / 2)
    point = tar_at_far(alike[same_person], alike[~same_person], 0.1)
    assert answers["plain"]["tar@0.1"] == point.tar
    assert thresholds["0.1"] == point.threshold
    assert "tar@0.001" not in answers["plain"]  # 100 pairs do not tell.
    whole = np.stack([template(vectors[3 * t : 3 * t + 3], [0, 0, 1]) for t in range(20)])
    scores = (whole[both[:, 0]] * whole[both[:, 1]]).sum(1)
    point = tar_at_far(scores[one_person], scores[~one_person], 0.1)
    assert answers["pooled"]["tar@0.1"] == point.tar


STUDY = """
study: people
space: {name: face, depth: [10, 12], width: [2, 4], embedding: 8, size: 16}
sampler: {name: macro_micro, epochs: 1}
objective: {name: faces, margin: {name: arcface, m: 0.3}, test_identities: 3, test_sets: [own.bin]}
data: {name: "optnas_test_people:people", validation: 4}
train: {lr: 0.1, batch_size: 16}
network: {dropout: 0.1}
retrain: {epochs: 2, schedule: step, milestones: [1]}
"""
PEOPLE = """
import numpy as np

def people():
    saved = np.load(__file__.replace(".py", ".npz"))
    images, labels = saved["images"].transpose(0, 2, 3, 1), saved["labels"]
    return images[::2], labels[::2], images[1::2], labels[1::2]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a study that was searched and retrained, and people's images in folders."""
    folder = tmp_path_factory.mktemp("people")
    images, labels = made_up()
    np.savez(folder / "optnas_test_people.npz", images=images, labels=labels)
    (folder / "optnas_test_people.py").write_text(PEOPLE)
    (folder / "people.yaml").write_text(STUDY)
    encoded = []
    for number, (image, label) in enumerate(zip(images[:, 0], labels, strict=True)):
        path = folder / "gallery" / f"p{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        encoded.append(path.read_bytes())
    pairs, same_person = fold_pairs(labels, 100, 0)
    shown = [encoded[index] for index in pairs.flatten()]
    (folder / "own.bin").write_bytes(pickle.dumps((shown, same_person.tolist())))
    return folder


def command(capsys, *arguments) -> str:
    try:
        cli.app([str(a) for a in arguments], standalone_mode=False)
    finally:
        captured = capsys.readouterr()
    return captured.out


def test_from_a_study_file_to_an_answer(home, capsys, monkeypatch):
    monkeypatch.chdir(home.parent)  # Paths are the study file's.
    outcome = optnas.run(home / "people.yaml")
    assert outcome.best is not None
    reports = command(capsys, "retrain", home / "people.yaml")
    assert "held-out people: accuracy" in reports
    assert "own: accuracy" in reports
    (network,) = home.glob("*.network")
    described = json.loads((network / "network.json").read_text())
    assert described["test_accuracy"] == described["verification"]["held-out people"]["accuracy"]
    assert described["verification"]["own"].keys() >= {"accuracy", "deviation", "threshold"}
    assert described["train"]["margin"] == {"name": "arcface", "m": 0.3}
    assert set(described["thresholds"]) == {"0.1", "0.01"}
    model = optnas.load(network)
    images = torch.from_numpy(made_up()[0][:5])
    embeddings = model(images)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(embeddings, model(images.flip(3)))
    torch.testing.assert_close(embeddings, model(images.float() / 255))
    one, other = home / "gallery/p0/0.png", home / "gallery/p0/1.png"
    answer = json.loads(command(capsys, "verify", network, one, other, "--json"))
    assert answer["score"] == pytest.approx(float(embeddings[0] @ embeddings[1]), abs=1e-5)
    assert answer["threshold"] == described["thresholds"]["0.01"]
    assert answer["same"] == (answer["score"] >= answer["threshold"])
    assert command(capsys, "verify", network, one, one).startswith("one person: score 1.0000")
    found = json.loads(command(capsys, "identify", network, home / "gallery", one, "--json"))
    assert (found[0]["person"], found[0]["far"]) == ("p0", 0.01)
    text = command(capsys, "identify", network, home / "gallery", one, other, "--far", "0.1")
    assert text.count(": p0: score 1.0000") == 2
    for arguments, message in (
        (("verify", network, one, home / "people.yaml"), "cannot be read"),
        (("verify", network, one, home / "nobody.png"), "No such file"),
        (("verify", network, one, other, "--far", "0.5"), "thresholds were set at 0.01, 0.1"),
        (("identify", network, home / "nowhere", one), "is no folder"),
        (("identify", network, network, one), "has no folders with images"),
        (("verify", home, one, other), "holds no trained network"),
        (("retrain", home / "people.yaml", "--ensemble"), "no ensembles of face networks"),
    ):
        with pytest.raises(UserError, match=message):
            command(capsys, *arguments)
