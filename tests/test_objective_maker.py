"""The images first, then the study, the objective last; whatever is wrong is said before."""

import importlib
import pickle
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import optnas
from optnas.config.file import study_from_dict
from optnas.config.schema import schema
from optnas.errors import UserError
from optnas.objectives import classification
from optnas.report.text import known_fields
from optnas.study.objectives import ObjectiveMaker

KEYS = {
    "study": "tiny",
    "space": {"depth": [2, 3], "width": [4, 6]},
    "sampler": "random",
    "train": {"epochs": 1},
    "data": {"name": "digits", "classes": [0, 1, 2], "samples": 0.2},
    "budget": {"trials": 2},
}


@pytest.fixture
def events(monkeypatch):
    """What happens, in order."""
    seen = []

    def watched(name, function):
        def call(*arguments, **keywords):
            given = [k for k in ("checkpoints", "on_epoch") if keywords.get(k) is not None]
            seen.append(" ".join((name, *given)))
            return function(*arguments, **keywords)

        return call

    load = watched("images", classification.load_images)
    monkeypatch.setattr(classification, "load_images", load)
    made = watched("objective", classification.Classification.__init__)
    monkeypatch.setattr(classification.Classification, "__init__", made)
    from optnas.running import runner

    opened = watched("study", runner.create_or_open)
    monkeypatch.setattr(runner, "create_or_open", opened)
    return seen


def test_the_images_come_first_and_the_objective_last(tmp_path, events):
    config = study_from_dict(KEYS, tmp_path)
    assert len(optnas.run(KEYS | {"storage": f"sqlite:///{tmp_path}/s.db"}).study.trials) == 2
    last = "objective checkpoints on_epoch"
    assert events == ["images", "objective", "study", last]
    events.clear()
    ObjectiveMaker(config).make()
    assert events == ["images", "objective"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"cells": 3}}, "has no such option"),
        (
            {"space": "nasbench201", "network": {"cells": 4}},
            "network: `cells` must be a positive multiple of 3",
        ),
        ({"data": {"name": "images", "root": "nowhere"}}, "needs `root`"),
        ({"train": {"epochs": 1, "drop_path": 0.1}}, "has none"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_created(tmp_path, change, message):
    keys = KEYS | {"storage": f"sqlite:///{tmp_path}/s.db"} | change
    with pytest.raises(UserError, match=message):
        optnas.run(keys)
    with pytest.raises(UserError, match="cannot be used"):
        optnas.run(KEYS | {"storage": f"sqlite:///{tmp_path}/s.db"}, device="no_such_device")
    assert list(tmp_path.iterdir()) == []


OLD = """
class Old:
    made = 0

    def __init__(self, space, images, wide: int):
        Old.made += 1
        self.space, self.in_channels, self.classes, self.wide = space, *images, wide

    @classmethod
    def from_settings(cls, space, data, *, wide: int, **others):
        assert not others
        return cls(space, (1, data.name == "digits" and 10), wide)

    def __call__(self, trial):
        assert self.checkpoints is not None
        self.on_epoch(type("Progress", (), {"epoch": 1, "epochs": 1}))
        self.space.suggest(trial)
        return 0.5

class New(Old):
    in_channels, classes = 3, 10

    @classmethod
    def from_settings(cls, space, *, wide: int, on_epoch=None):
        made = cls(space, (3, 10), wide)
        made.on_epoch, made.checkpoints = on_epoch, "none are asked for"
        return made
"""


@pytest.mark.parametrize(("name", "times"), [("Old", 1), ("New", 2)])
def test_objectives_of_ones_own_are_given_what_they_take(tmp_path, name, times):
    module = f"objectives_of_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(OLD)
    keys = KEYS | {"objective": {"name": f"{module}:{name}", "wide": 3}}
    seen = []
    from optnas.running import events, runner

    class Display(events.Display):
        def epoch(self, progress, worker):
            seen.append(progress.epoch)

    runner.run(study_from_dict(keys, tmp_path), display=Display())
    assert seen == [1, 1]
    assert getattr(sys.modules[module], name).made == times


def test_a_configuration_has_one_space(tmp_path):
    config = study_from_dict(KEYS, tmp_path)
    assert config.search_space is config.search_space
    assert config.make_space() is config.search_space
    assert config == study_from_dict(KEYS, tmp_path)
    other = config.model_copy(update={"space": config.space.model_copy(update={"name": "rows"})})
    assert "search_space" not in vars(other)
    assert "search_space" not in vars(pickle.loads(pickle.dumps(config)))
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that offers data sets."""
    (tmp_path / "shapes_data.py").write_text(
        textwrap.dedent('''
            import dataclasses
            import numpy as np
            from optnas.objectives.data import DATASETS

            def circles():
                """Circles of three sizes."""
                images = np.arange(60 * 36, dtype=np.uint32).astype(np.uint8).reshape(60, 6, 6)
                return images, [0, 1, 2] * 20, images[:6], [0, 1, 2] * 2

            NUMBERS = dataclasses.replace(DATASETS["digits"], description="Numbers.")
            WRONG = 3
        ''')
    )
    info = tmp_path / "shapes_data-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shapes-data\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[optnas.data]\ncircles = shapes_data:circles\nnumbers = shapes_data:NUMBERS\n"
        "wrong = shapes_data:WRONG\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("shapes_data", None)


@pytest.mark.usefixtures("package")
def test_packages_offer_data_sets(tmp_path):
    known = known_fields()["data"]
    assert (known["circles"], known["numbers"]) == ("Circles of three sizes.", "Numbers.")
    names = schema()["properties"]["data"]["anyOf"][0]["anyOf"][0]["enum"]
    assert {"circles", "numbers", "digits"} <= set(names)
    from optnas.config.settings import DataSettings
    from optnas.objectives.data import DataError, load_images

    circles = load_images(DataSettings(name="circles"), 0)
    assert (circles.input_shape, circles.classes) == ((1, 6, 6), 3)
    numbers, digits = (load_images(DataSettings(name=n), 0) for n in ("numbers", "digits"))
    assert np.array_equal(numbers.train_images, digits.train_images)
    with pytest.raises(DataError, match="must be a `Dataset` or a function: 3"):
        load_images(DataSettings(name="wrong"), 0)
    keys = KEYS | {"data": "circles", "budget": {"trials": 1}}
    outcome = optnas.run({**keys, "storage": f"sqlite:///{Path(tmp_path, 's.db')}"})
    assert len(outcome.study.trials) == 1
