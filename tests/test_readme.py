"""The examples of README.md, of the tutorials that go with it, and of predictions work."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch
from manual import ROOT, blocks
from PIL import Image


def block_with(text: str, page: str, language: str = "python") -> str:
    (block,) = (block.text for block in blocks(ROOT / page, language) if text in block.text)
    return block


def run(code: str, *, cwd: Path) -> str:
    """What a program prints, run as a file in a folder of its own."""
    (cwd / "example.py").write_text(code)
    return subprocess.run(
        [sys.executable, "example.py"], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout


def write_network(folder: Path) -> None:
    from optnas.config.settings import DataSettings, TrainSettings
    from optnas.objectives.data.images import load_images
    from optnas.objectives.kept import trained as networks
    from optnas.spaces import ChainArchitecture

    networks.retrain(
        ChainArchitecture(2, 4),
        load_images(DataSettings(name="digits"), seed=0),
        TrainSettings(epochs=1),
        folder,
        network={},
        seed=0,
        origin={},
        device=torch.device("cpu"),
    )


def test_a_trained_network_is_loaded(tmp_path):
    write_network(tmp_path / "digits.network")
    assert run(block_with("model = optnas.load", "README.md"), cwd=tmp_path).startswith("tensor([")
    (tmp_path / "photos").mkdir()
    for name in ("photo.png", "photos/1.png", "photos/2.png"):
        Image.fromarray(np.full((20, 30), 90, np.uint8)).save(tmp_path / name)
    code = block_with("answers = model.predict", "docs/predict.md") + "print(len(answers))"
    said = run(code, cwd=tmp_path).split()
    assert said[0].isdigit()
    assert said[2] == "2"


def test_the_sampler_runs_on_an_own_objective(tmp_path):
    assert "ChainArchitecture(depth=" in run(
        block_with("def objective", "docs/tutorials/objective.md"), cwd=tmp_path
    )


def test_an_own_space_is_searched_trained_and_loaded(tmp_path):
    """In a process of its own: the example adds to the known spaces."""
    page = "docs/tutorials/space.md"
    (tmp_path / "residual.py").write_text(block_with("class ResidualSpace", page))
    (tmp_path / "study.yaml").write_text(block_with("residual:ResidualSpace", page, "yaml"))
    code = """
        import optnas
        from optnas.objectives.models import build_model, count_params
        from optnas.running.retraining import retrain_found
        from optnas.config.file import load_study_file

        config = load_study_file("study.yaml").model_dump() | {"budget": {"trials": 2}}
        config["space"]["depth"] = [2, 3]
        outcome = optnas.run(config)
        assert len(outcome.study.trials) == 2
        list(retrain_found(outcome.opened, epochs=1))
        print(type(optnas.load("residual.network").network).__name__)

        import residual
        for depth in range(1, 9):
            a = residual.ResidualArchitecture(depth, 6)
            assert a.num_params(1, 10) == count_params(build_model(a, (1, 8, 8), 10)), depth
            assert a.num_params(1, 10) > residual.ChainArchitecture(depth, 6).num_params(1, 10)
    """
    assert "ResidualNetwork" in run(textwrap.dedent(code), cwd=tmp_path)
