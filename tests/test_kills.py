"""Workers killed with SIGKILL at random instants: the search ends as if undisturbed.

`make stress` kills two hundred.
"""

import random
from pathlib import Path

import killing
import pytest


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, killing.Ended]:
    """How the searches end that nobody disturbs."""
    return {
        name: killing.search(study_file(tmp_path_factory.mktemp(name), name))
        for name in killing.STUDIES
    }


def study_file(folder: Path, name: str) -> Path:
    path = folder / "killed.yaml"
    path.write_text(killing.STUDIES[name])
    return path


@pytest.mark.parametrize(
    ("name", "workers", "streams", "kills"),
    [
        ("macro-micro", 1, 1, 3),
        ("macro-micro", 3, 1, 3),
        ("macro-micro", 1, 3, 3),
        ("randgrow", 1, 1, 2),
        ("econas", 1, 1, 2),
        ("ftso", 1, 1, 2),
    ],
)
def test_searches_whose_workers_are_killed(undisturbed, tmp_path, name, workers, streams, kills):
    alone = undisturbed[name]
    file = study_file(tmp_path, name)
    killer = killing.Killer(file, random.Random(name), workers=workers, streams=streams)
    disturbed = killer.search(kills=kills, span=alone.seconds / 2)
    assert disturbed.kills > 0
    assert killing.differences(disturbed, alone, workers=workers * streams) is None


def test_another_search_is_told_apart(undisturbed):
    """Otherwise the tests above could not fail."""
    alone = undisturbed["econas"]
    for other in undisturbed.values():
        assert (killing.differences(other, alone) is None) == (other is alone)
