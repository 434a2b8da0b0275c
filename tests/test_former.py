"""Study files of older versions, and what was stored of them."""

import json
import warnings
from pathlib import Path

import pytest

from optnas.config.file import from_resolved, load_study_file
from optnas.config.messages import StudyFileError

STUDY = """
study: cells
space: cell
data: digits
sampler: {{name: econas, initial: 5, {}}}
"""


def loaded(folder: Path, options: str):
    file = folder / "study.yaml"
    file.write_text(STUDY.format(options))
    return load_study_file(file)


@pytest.mark.parametrize("order", ["paper", "code"])
def test_synchronous_orders_are_a_sampler_of_their_own(tmp_path: Path, order: str) -> None:
    with pytest.warns(UserWarning, match=r"study.yaml:5: sampler.order: .*`synchronous_econas`"):
        study = loaded(tmp_path, f"order: {order}, promote: [3, 2], epochs: 4")
    assert study.sampler.name == "synchronous_econas"
    options = study.sampler.options
    said = {"initial": 5, "order": order, "promote": [3, 2], "epochs": 4}
    assert {key: options[key] for key in said} == said


def test_in_the_asynchronous_order_they_mean_nothing(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"sampler\.promote: .* means nothing"):
        study = loaded(tmp_path, "order: asynchronous, promote: [3, 2]")
    assert study.sampler.name == "econas"
    assert study.identity() == loaded(tmp_path, "cycles: 100").identity()


@pytest.mark.parametrize("order", ["asynchronous", "paper"])
def test_what_was_stored_is_the_same_study(tmp_path: Path, order: str) -> None:
    with pytest.warns(UserWarning, match="synchronous_econas"):
        study = loaded(tmp_path, f"order: {order}")
    stored = json.loads(json.dumps(study.resolved()))
    stored["sampler"] |= {"name": "econas", "order": order, "promote": [8, 4], "epochs": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = from_resolved(stored, study.storage)
    assert again.identity() == study.identity()


def test_an_order_that_never_was_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"sampler\.order"):
        loaded(tmp_path, "order: sideways")
