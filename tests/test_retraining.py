"""Retraining what a search found: several times, wider, and on other images."""

import functools
import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import optnas
from optnas.cli.sizes import images_said, network_said, opened_together
from optnas.config.settings import DataSettings, NetworkSettings
from optnas.config.stored import references
from optnas.errors import UserError
from optnas.objectives.kept.descriptions import describe
from optnas.objectives.training.trainer import Trainer
from optnas.running.retraining import RetrainReport, retrain_found, retrain_together
from optnas.study.opening import OpenStudy, open_existing

STUDIES = {
    "chain": "sampler: {name: macro_micro, epochs: 1, micro_epochs: 1, search_operations: false}\n"
    "space: {depth: [2, 2], width: [4, 6]}\n",
    "cells": "sampler: {name: econas, initial: 2, cycles: 1, parents: [1, 0, 0]}\n"
    "space: cell\nnetwork: {cells: 3, channels: 4}\ntrain: {epochs: 1}\n",
    "stages": "sampler: random\nspace: {name: stage, stages: 2}\ntrain: {epochs: 1}\n"
    "budget: {trials: 1}\n",
}
REST = "data: {name: digits, classes: [0, 1, 7], samples: 0.3}\nretrain: {epochs: 2}\n"
OWN_DATA = """
import numpy as np


def shapes():
    labels = np.arange(48) % 4
    images = np.random.default_rng(0).integers(0, 99, (48, 10, 10, 3), dtype=np.uint8)
    images[labels < 2, :5] += 150
    return images[:32], labels[:32], images[32:], labels[32:]
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> dict[str, Path]:
    """The folder of every study, after its search; not to be changed."""
    folders = {}
    for name, text in STUDIES.items():
        folders[name] = folder = tmp_path_factory.mktemp(name)
        (folder / "found.yaml").write_text(f"study: found\n{text}{REST}")
        optnas.run(folder / "found.yaml")
    return folders


@pytest.fixture
def study(searched, tmp_path):
    """Opens a copy of a study; its networks go beside it."""

    def open_copy(name: str = "chain") -> OpenStudy:
        folder = tmp_path / name
        shutil.copytree(searched[name], folder)
        return open_existing(str(folder / "found.yaml"))

    return open_copy


def folders(reports: list[RetrainReport]) -> list[str]:
    return [Path(report.fields["folder"]).name for report in reports]


def weights(report: RetrainReport) -> bytes:
    return (Path(report.fields["folder"]) / "weights.safetensors").read_bytes()


def test_the_first_of_several_trainings_is_the_only_one(study, tmp_path):
    handle = study()
    (single,) = retrain_found(handle, output=tmp_path / "single")
    *reports, summary = retrain_found(handle, repeats=3)
    expected = ["found.network", "found.network-repeat-2", "found.network-repeat-3"]
    assert folders(reports) == expected
    assert weights(single) == weights(reports[0])
    assert single.fields["test_accuracy"] == reports[0].fields["test_accuracy"]
    assert single.fields["origin"] == reports[0].fields["origin"]
    assert len({weights(report) for report in reports}) == 3
    assert len({report.fields["seed"] for report in reports}) == 3
    assert reports[2].fields["origin"]["repeat"] == 3
    accuracies = [report.fields["test_accuracy"] for report in reports]
    assert summary.fields == {
        "folder": str(tmp_path / "chain" / "found.network"),
        "trial": single.fields["origin"]["trial"],
        "n": 3,
        "mean": pytest.approx(statistics.mean(accuracies)),
        "std": pytest.approx(torch.tensor(accuracies).std().item(), abs=1e-6),
        "values": accuracies,
    }
    assert "mean and standard deviation of 3 trainings" in summary.text


def test_several_networks_are_each_trained_several_times(study):
    reports = list(retrain_found(study(), top=2, repeats=2, epochs=1))
    assert folders(reports) == [
        "found.network",
        "found.network-repeat-2",
        "found.network",
        "found.network-2",
        "found.network-2-repeat-2",
        "found.network-2",
        "found.network",
    ]
    *reports, last = reports
    assert [report.fields.get("n") for report in reports] == [None, None, 2, None, None, 2]
    means = [reports[2].fields["mean"], reports[5].fields["mean"]]
    assert last.fields["networks"] == 2
    assert last.fields["accuracy"]["values"] == means
    assert last.fields["accuracy"]["std"] == statistics.stdev(means)
    assert (
        last.fields["params"]["mean"]
        == (reports[0].fields["params"] + reports[3].fields["params"]) / 2
    )
    assert reports[2].fields["trial"] != reports[5].fields["trial"]


def test_what_was_interrupted_goes_on_in_the_training_it_stood_in(study, tmp_path):
    handle = study()
    undisturbed = list(retrain_found(handle, repeats=4, output=tmp_path / "undisturbed"))
    finished = 0

    def interrupt(*_progress: float) -> None:
        nonlocal finished
        finished += 1
        if finished == 5:  # The first epoch of the third training.
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(retrain_found(handle, repeats=4, on_epoch=interrupt))
    seen: list[int] = []
    reports = list(retrain_found(handle, repeats=4, on_epoch=lambda epoch, *_: seen.append(epoch)))
    assert seen == [2, 1, 2]
    assert reports[-1].fields["values"] == undisturbed[-1].fields["values"]
    for report, other in zip(reports[:-1], undisturbed[:-1], strict=True):
        assert weights(report) == weights(other)


def test_more_trainings_leave_those_that_are_done(study, monkeypatch):
    handle = study()
    few = list(retrain_found(handle, repeats=2))
    seen: list[int] = []
    more = list(retrain_found(handle, repeats=3, on_epoch=lambda epoch, *_: seen.append(epoch)))
    assert seen == [1, 2]
    assert more[-1].fields["values"][:2] == few[-1].fields["values"]
    monkeypatch.setattr(Trainer, "train_epoch", None)
    assert [r.fields for r in retrain_found(handle, repeats=3)] == [r.fields for r in more]


@pytest.mark.parametrize(("name", "found_with"), [("chain", None), ("cells", 4)])
def test_a_network_is_trained_wider(study, name, found_with):
    handle = study(name)
    (plain,) = retrain_found(handle, top=1)
    (wide,) = retrain_found(handle, top=1, channels=9)
    assert folders([plain, wide]) == ["found.network", "found.network-9-channels"]
    assert wide.fields["params"] > plain.fields["params"]
    if name == "chain":
        found_with = plain.fields["architecture"]["width"]
        assert wide.fields["architecture"] == plain.fields["architecture"] | {"width": 9}
    else:
        assert wide.fields["architecture"] == plain.fields["architecture"]
        assert wide.fields["network"] == plain.fields["network"] | {"channels": 9}
    card = (Path(wide.fields["folder"]) / "README.md").read_text()
    assert f"| channels | 9 (found with {found_with}) |" in card
    model = optnas.load(wide.fields["folder"])
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_a_network_without_channels_to_choose_is_not_trained_wider(study, tmp_path):
    handle = study("stages")
    with pytest.raises(UserError, match="of a StageArchitecture has none to choose"):
        list(retrain_found(handle, channels=9))
    assert not list(tmp_path.rglob("*channels*"))


def test_a_network_is_trained_on_other_images(study, tmp_path):
    handle = study()
    (tmp_path / "chain" / "optnas_test_shapes.py").write_text(OWN_DATA)
    (home,) = retrain_found(handle)
    (away,) = retrain_found(handle, data=DataSettings(name="optnas_test_shapes:shapes"), epochs=3)
    assert folders([home, away]) == ["found.network", "found.network-optnas_test_shapes.shapes"]
    assert away.fields["architecture"] == home.fields["architecture"]
    assert away.fields["input_shape"] == (3, 10, 10)
    assert len(away.fields["class_names"]) == 4
    assert home.fields["origin"]["data"] == "digits"
    assert "found on" not in home.fields["origin"]
    card = (Path(away.fields["folder"]) / "README.md").read_text()
    assert "| data | optnas_test_shapes:shapes |\n| found on | digits |" in card
    assert describe(Path(home.fields["folder"])).test_accuracy == home.fields["test_accuracy"]
    model = optnas.load(away.fields["folder"])
    assert model(torch.zeros(2, 3, 10, 10)).shape == (2, 4)


def test_other_images_come_with_their_own_defaults(study):
    """Not with the classes and the samples of the search."""
    (report,) = retrain_found(study(), data=DataSettings(name="digits"), epochs=1)
    assert len(report.fields["class_names"]) == 10
    assert report.fields["train_images"] + report.fields["test_images"] == 1797


@pytest.fixture
def retrain_command(study, optnas_command):
    """Runs ``optnas retrain`` on a copy of a study; the exit code and what was printed."""
    file = Path(study().config.folder) / "found.yaml"
    return functools.partial(optnas_command, "retrain", file)


def test_the_command_reports_mean_and_deviation_last(retrain_command):
    code, out, err = retrain_command("--repeats", 2, "--channels", 7, "--json")
    assert (code, err) == (0, "")
    first, second, summary = map(json.loads, out.splitlines())
    assert first["folder"].endswith("found.network-7-channels")
    assert second["folder"].endswith("found.network-7-channels-repeat-2")
    assert (summary["n"], summary["folder"]) == (2, first["folder"])
    assert summary["values"] == [first["test_accuracy"], second["test_accuracy"]]
    _, out, _ = retrain_command("--repeats", 2, "--channels", 7)
    mean, deviation = summary["mean"], summary["std"]
    assert out.splitlines()[-2].startswith(f"test accuracy {mean:.4f} +- {deviation:.4f} (mean")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--root", "x"), "--root and --download belong to --data"),
        (("--download",), "--root and --download belong to --data"),
        (("--data", "digts"), "There is no data set `digts`. Did you mean `digits`?"),
        (("--data", "kmnist", "--root", "nowhere"), "`kmnist` is not in nowhere"),
        (("--data", "absent:images"), "absent"),
        (("--repeats", "0"), "--repeats"),
    ],
)
def test_the_command_refuses(retrain_command, arguments, message):
    code, out, err = retrain_command(*arguments)
    assert (code, out) == (2, "")
    assert message in err


PICTURES = (
    "data: {name: images, root: pictures, size: 16, stream: true, augment: [resized_crop, flip]}"
)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of twelve JPEGs, with a test set of four."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label in ("a", "b"):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return tmp_path / "pictures"


def test_everything_but_the_architecture_may_be_otherwise(study, pictures):
    handle = study("cells")
    sizes = NetworkSettings(cells=4, stem="large")
    images = DataSettings(name="images", root=str(pictures), size=16, stream=True)
    options = {"network": sizes, "channels": 6, "batch_size": 5, "top": 1}
    (plain,) = retrain_found(handle, top=1)
    (large,) = retrain_found(handle, data=images, **options)
    assert folders([large]) == ["found.network-images-4-cells-large-stem-6-channels"]
    assert large.fields["architecture"] == plain.fields["architecture"]
    assert large.fields["input_shape"] == (3, 16, 16)
    assert large.fields["train"]["batch_size"] == 5
    said = {"cells": 4, "channels": 6, "stem": "large"}
    assert large.fields["network"] == plain.fields["network"] | said
    assert optnas.load(large.fields["folder"])(torch.zeros(2, 3, 16, 16)).shape == (2, 2)


def test_the_block_says_it_too(study, pictures):
    folder = study("cells").config.folder
    text = (folder / "found.yaml").read_text().replace("retrain: {epochs: 2}", "")
    pictures.rename(folder / "pictures")
    (folder / "found.yaml").write_text(
        f"{text}retrain:\n  epochs: 1\n  warmup_epochs: 0\n  ema: 0.5\n  mixup: 0.2\n"
        f"  label_smoothing: 0.1\n  network: {{cells: 5, channels: 8, stem: 7x7}}\n  {PICTURES}\n"
    )
    (report,) = retrain_found(open_existing(str(folder / "found.yaml")), top=1)
    assert report.fields["network"] == {"cells": 5, "channels": 8, "stem": "7x7"}
    assert report.fields["train"]["ema"] == 0.5
    assert report.fields["augmentation"]["resized_crop"]
    assert report.fields["data"]["root"] == str(folder / "pictures")
    assert report.fields["test_images"] == 8


def test_a_size_that_there_is_not_is_refused(study):
    with pytest.raises(UserError, match="has no such option"):
        list(retrain_found(study("chain"), network=NetworkSettings(cells=3)))
    with pytest.raises(UserError, match=r"--stem: .*, not 'huge'"):
        network_said(stem="huge", cells=None)
    with pytest.raises(UserError, match="so do --size and --stream"):
        images_said(None, root=None, size=32, stream=True, download=False)


def test_code_that_a_stored_retraining_names_is_not_imported():
    stored = {"retrain": {"data": {"name": "evil:function"}}}
    assert references(stored) == {"retrain.data": "evil:function"}


def test_networks_of_several_studies_answer_together(study):
    first, second = (str(study(name).config.folder / "found.yaml") for name in ("cells", "stages"))
    text = Path(second).read_text().replace("study: found", "study: other")
    (Path(second).parent / "other.yaml").write_text(text)
    second = str(Path(second).parent / "other.yaml")
    optnas.run(second)
    handles = [open_existing(path) for path in (first, second)]
    *reports, last = retrain_together(handles, epochs=1, top=1)
    assert [Path(r.fields["folder"]).name for r in reports] == ["found.network", "other.network"]
    folder = Path(last.text.partition("kept in ")[2].partition(";")[0])
    assert folder.name == "found-and-other.network-ensemble"
    assert last.fields["params"] == sum(report.fields["params"] for report in reports)
    assert optnas.load(folder)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    other = text.replace("classes: [0, 1, 7]", "classes: [0, 1, 8]").replace(": other", ": third")
    (Path(second).parent / "third.yaml").write_text(other)
    optnas.run(Path(second).parent / "third.yaml")
    third = open_existing(str(Path(second).parent / "third.yaml"))
    with pytest.raises(UserError, match="the same classes, tested on the same images"):
        list(retrain_together([handles[0], third]))


def test_several_studies_are_for_an_ensemble():
    with pytest.raises(UserError, match="for --ensemble alone"):
        opened_together("a.yaml", ["b.yaml"], ensemble=False, allow=())
    with pytest.raises(UserError, match="one study has one name, not 2"):
        opened_together("a.yaml", ["b", "c"], ensemble=True, allow=())
