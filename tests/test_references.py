"""Known networks of timm, trained as what was found and set beside it."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

import optnas
from optnas.errors import UserError
from optnas.objectives.kept.references import references_of
from optnas.objectives.networks.build import build_model
from optnas.objectives.networks.costs import count_multiply_adds, count_params
from optnas.objectives.networks.known import KnownArchitecture
from optnas.running.retraining import retrain_found
from optnas.study.opening import open_existing

timm = pytest.importorskip("timm")

STUDY = """
study: found
sampler: random
space: {depth: [2, 2], width: [4, 4]}
data: {name: digits, classes: [0, 1, 7], samples: 0.3}
train: {epochs: 1, lr: 0.01}
retrain: {epochs: 1}
budget: {trials: 1}
"""
SMALL = "test_resnet"
"""A ResNet of half a million parameters that timm has for tests."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    (folder / "found.yaml").write_text(STUDY)
    optnas.run(folder / "found.yaml")
    return folder


@pytest.fixture
def study(searched, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(searched, folder)
    return open_existing(str(folder / "found.yaml"))


def test_a_known_network_is_timms():
    """ResNet-18 and MobileNetV3 of timm, for ImageNet: their published counts."""
    resnet = build_model(KnownArchitecture("resnet18"), (3, 224, 224), 1000)
    assert count_params(resnet) == 11_689_512
    assert count_multiply_adds(resnet, (3, 224, 224)) == 1_814_073_344
    mobile = build_model(KnownArchitecture("mobilenetv3_small_100"), (3, 224, 224), 1000)
    assert count_params(mobile) == 2_542_856


def test_first_weights_follow_the_generator():
    first, again, other = (
        build_model(KnownArchitecture(SMALL), (1, 8, 8), 3, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    before = torch.get_rng_state()
    build_model(KnownArchitecture(SMALL), (1, 8, 8), 3, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [network.state_dict() for network in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_known_networks_stand_beside_what_was_found(study):
    reports = list(retrain_found(study, repeats=2, references=f"timm:{SMALL}"))
    trained, table = reports[:-1], reports[-1]
    found, known = table.fields["comparison"]
    assert (known["network"], known["trainings"], found["trainings"]) == (SMALL, 2, 2)
    folder = Path(trained[-1].fields["folder"])
    assert folder.name == f"found.network-reference-{SMALL}-repeat-2"
    assert known["values"][1] == trained[-1].fields["test_accuracy"]
    for row in (found, known):
        assert row["milliseconds"] > 0
        assert row["bytes"] > 4 * row["params"]
        assert row["multiply_adds"] > 0
    seeds = [report.fields.get("seed") for report in trained]
    assert seeds[0] == seeds[3]
    assert seeds[1] == seeds[4]
    split = {report.fields["data_sha256"] for report in trained if "data_sha256" in report.fields}
    assert len(split) == 1
    assert SMALL in table.text
    assert "+-" in table.text
    json.dumps(table.fields)
    model = optnas.load(folder)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    again = list(retrain_found(study, repeats=2, references=f"timm:{SMALL}"))
    assert again[-1].fields["comparison"][1]["values"] == known["values"]


def test_weights_in_a_file_are_where_it_starts(study, tmp_path):
    network = timm.create_model(SMALL, pretrained=False, in_chans=1, num_classes=5)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    for file in (path, tmp_path / "weights.pth"):
        (reference,) = references_of(f"timm:{SMALL}@{file}")
        model = timm.create_model(SMALL, pretrained=False, in_chans=1, num_classes=3)
        copied = reference.load_into(model)
        # All but the classifier, which is for other classes.
        assert copied == len(network.state_dict()) - 2
    reports = list(retrain_found(study, references=f"timm:{SMALL}@{path}"))
    assert reports[-1].fields["comparison"][1]["network"] == f"{SMALL}-pretrained"
    card = (Path(reports[1].fields["folder"]) / "README.md").read_text()
    assert "weights.safetensors" in card


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet18", "expected timm:NAME"),
        ("timm:", "expected timm:NAME"),
        ("timm:resnet81", "timm has no network 'resnet81'; did you mean "),
        ("timm:hf-hub:user/model", "must be that of a network of timm"),
        ("timm:../evil", "must be that of a network of timm"),
        (f"timm:{SMALL}@absent.pth", "absent.pth: No such file"),
    ],
)
def test_what_is_no_known_network_is_refused(study, text, message):
    with pytest.raises(UserError, match=message):
        list(retrain_found(study, references=text))


def test_weights_of_another_network_and_pickles_are_refused(tmp_path):
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    model = timm.create_model(SMALL, pretrained=False)
    for name, message in (("evil", "cannot be read as weights"), ("other", "is not of a")):
        (reference,) = references_of(f"timm:{SMALL}@{tmp_path / name}.pth")
        with pytest.raises(UserError, match=message):
            reference.load_into(model)
