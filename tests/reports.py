"""Studies with a network that was trained and tested, made without training anything."""

import json
from pathlib import Path
from typing import Any

import torch
from searches import growing, opened

from optnas.objectives.kept.judgement import Judgement, Mistake, judgement
from optnas.study.folders import network_folder
from optnas.study.opening import OpenStudy

CLASSES = ["cat", "dog", "<b>owl</b>"]


def grown(folder: Path) -> OpenStudy:
    """A search of five networks, each trained for half an hour."""
    trials = growing()
    for each in trials:
        each.user_attrs |= {"device": "cpu (2 threads, x86_64)", "train_seconds": 1800.0}
    return opened(folder, trials, space={"name": "growth", "cells": 1, "channels": 4})


def described(right: int = 90, images: int = 100, **changes: Any) -> dict[str, Any]:
    """A description of a network that is right on so many images, as its folder has it."""
    probabilities = torch.full((images, 3), 0.1)
    labels = torch.arange(images) % 3
    answers = torch.where(torch.arange(images) < right, labels, (labels + 1) % 3)
    probabilities[torch.arange(images), answers] = 0.8
    judged = judgement(probabilities, labels, CLASSES, None)
    fields = {
        "test_accuracy": right / images,
        "test_images": images,
        "chosen_by_test": False,
        "params": 16254,
        "multiply_adds": 123456,
        "data_sha256": "same",
        "origin": {"study": "made", "trial": 4},
        "epochs": 20,
        "train_seconds": 90.0,
        "train_images": 700,
        "judgement": json.loads(json.dumps(judged, default=vars)),
    }
    return fields | changes


def judged_by(fields: dict[str, Any]) -> Judgement:
    """The judgement in a description."""
    judged = fields["judgement"]
    return Judgement(**{**judged, "mistakes": [Mistake(**each) for each in judged["mistakes"]]})


def keep(
    handle: OpenStudy, fields: dict[str, Any], ending: str = "", file: str = "network.json"
) -> Path:
    """Put a description where `optnas retrain` would."""
    folder = Path(network_folder(handle) + ending)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(fields))
    identity = {"study": "made", "id": handle.study.user_attrs["optnas"]["id"]}
    (folder / "study.json").write_text(json.dumps(identity))
    return folder
