"""Searches in a reduced setting, and the full one for the networks they find."""

import dataclasses
from pathlib import Path

import pytest
import torch

import optnas
from optnas.config.proxy import Proxy
from optnas.config.settings import DataSettings, NetworkSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import load_images
from optnas.objectives.networks import sizes
from optnas.running.retraining import retrain_found
from optnas.spaces import CellSpace, ChainSpace, NasBench201Space
from optnas.study.opening import open_existing

SMALL = NetworkSettings(cells=3, channels=8)
DATA = DataSettings(name="digits", classes=(0, 1))


def test_images_are_seen_at_the_reduced_resolution():
    images = load_images(DATA, seed=0)
    reduced = images.reduced(Proxy.parse("c0r2s0e1").side)
    assert images.input_shape == (1, 8, 8)
    assert reduced.input_shape == (1, 4, 4)
    assert reduced.validation_images.shape[2:] == reduced.test_images.shape[2:] == (4, 4)
    assert reduced.validation_images.dtype == torch.uint8
    grey = dataclasses.replace(images, test_images=torch.full_like(images.test_images, 77))
    assert set(grey.reduced(lambda side: 3).test_images.unique().tolist()) == {77}


@pytest.mark.parametrize("space", [ChainSpace((2, 3), (8, 16)), CellSpace(), NasBench201Space()])
def test_every_factor_makes_a_candidate_cheaper(space):
    size = None if isinstance(space, ChainSpace) else SMALL
    options = {"train": TrainSettings(epochs=1), "limits": {}, "seed": 0, "device": "cpu"}

    def cost(text: str) -> tuple[int, int]:
        import optuna

        proxy = Proxy.parse(text)
        objective = Classification.from_settings(space, DATA, network=size, proxy=proxy, **options)
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1)
        )
        study.optimize(objective, n_trials=1)
        attrs = study.trials[0].user_attrs
        return attrs["multiply_adds"], len(objective.images.train_images)

    full, images = cost("c0r0s0e1")
    assert cost("c2r0s0e1")[0] < full
    assert cost("c0r2s0e1")[0] < full
    assert cost("c0r0s1e1") == (full, pytest.approx(images / 2, abs=2))


def test_what_the_networks_lack_is_refused():
    options = {"train": TrainSettings(epochs=1), "limits": {}, "seed": 0, "device": "cpu"}
    with pytest.raises(UserError, match=r"network.cells: the network of a ChainArchitecture"):
        Classification.from_settings(ChainSpace(), DATA, network=SMALL, **options)


def test_a_space_without_channels_has_no_channels_to_reduce(monkeypatch):
    monkeypatch.setattr(sizes, "_options", lambda architecture: {})
    options = {"train": TrainSettings(epochs=1), "limits": {}, "seed": 0, "device": "cpu"}
    with pytest.raises(UserError, match="has no channels to reduce; write c0"):
        Classification.from_settings(CellSpace(), DATA, proxy=Proxy(1, 0, 0, 1), **options)


def test_the_networks_found_are_trained_in_the_full_setting(tmp_path: Path):
    file = tmp_path / "cells.yaml"
    file.write_text(
        """
study: cells
space: cell
sampler: {name: econas, initial: 3, cycles: 1, parents: [1, 1, 1]}
pruner: {name: hierarchical, epochs: 1}
data: {name: digits, classes: [0, 1, 7]}
network: {cells: 3, channels: 8}
proxy: c2r2s1e3
retrain: {epochs: 2, top: 2, batch_size: 32, augment: [crop, cutout], auxiliary: 0.4}
"""
    )
    outcome = optnas.run(file)
    assert outcome.ending == "finished"
    ended = {len(t.intermediate_values) for t in outcome.study.trials}
    assert ended <= {1, 2, 3}
    assert 3 in ended
    *reports, mean = retrain_found(open_existing(str(file)))
    assert mean.fields["networks"] == 2
    assert [Path(r.fields["folder"]).name for r in reports] == ["cells.network", "cells.network-2"]
    for report in reports:
        assert report.fields["input_shape"] == (1, 8, 8)
        assert report.fields["train"]["batch_size"] == 32
        trial = outcome.study.trials[report.fields["origin"]["trial"]]
        assert report.fields["multiply_adds"] > trial.user_attrs["multiply_adds"]
        model = optnas.load(report.fields["folder"])
        assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
