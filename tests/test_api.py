"""A study from Python: what the commands do, with Python's answers; callbacks; a notebook."""

import os
import re
import shlex
import signal
from pathlib import Path

import nbformat
import numpy as np
import optuna
import pytest
import sklearn.datasets
from nbclient import NotebookClient
from optuna.trial import TrialState

import optnas
from optnas.api import notebook
from optnas.api.callbacks import TensorBoardCallback
from optnas.errors import UserError
from optnas.spaces import CellSpace, Row
from optnas.storage.urls import StorageError

pytestmark = pytest.mark.usefixtures("one_thread")

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "search.ipynb"
SETTINGS = {
    "study": "tiny",
    "data": "digits",
    "space": {"name": "chain", "depth": [1, 2], "width": [2, 4]},
    "sampler": "random",
    "train": {"epochs": 1, "batch_size": 256},
    "budget": {"trials": 2},
    "retrain": {"epochs": 1},
}


def settings(folder: Path, **keys) -> dict:
    return SETTINGS | {"storage": f"sqlite:///{folder}/tiny.db"} | keys


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A study that has been run, and a list of what its callbacks were called with."""
    study = optnas.open(settings(tmp_path_factory.mktemp("searched")))
    calls: list[tuple[optuna.Study, optuna.trial.FrozenTrial]] = []
    study.run(progress=False, callbacks=[lambda *call: calls.append(call)])
    return study, calls


def test_opening_creates_nothing(tmp_path):
    study = optnas.open(settings(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError) as error:
        study.status()
    assert study._repr_html_() == f"<pre>{error.value}</pre>"
    assert not list(tmp_path.iterdir())


def test_a_file_its_storage_and_a_mapping_name_the_same_study(tmp_path, searched):
    study, _ = searched
    url = study._target["storage"]
    file = tmp_path / "study.yaml"
    file.write_text(
        f"study: tiny\nstorage: {url}\ndata: digits\nsampler: random\n"
        "space: {name: chain, depth: [1, 2], width: [2, 4]}\n"
    )
    expected = study.best()
    assert optnas.open(file).best() == expected
    assert optnas.open(url).best() == expected
    assert optnas.open(url, "tiny").best() == expected


def test_callbacks_are_called_with_the_study_and_every_finished_trial(searched):
    study, calls = searched
    assert [trial.number for _, trial in calls] == [0, 1]
    assert all(trial.state == TrialState.COMPLETE for _, trial in calls)
    assert {each.study_name for each, _ in calls} == {"tiny"}
    assert len(study.optuna.trials) == 2


def test_callbacks_hear_of_the_trials_of_every_worker(tmp_path):
    calls = []
    config = settings(tmp_path, workers={"count": 2}, budget={"trials": 4})
    outcome = optnas.run(config, callbacks=[lambda _, trial: calls.append(trial.number)])
    assert outcome.ending == "budget"
    assert sorted(calls) == [0, 1, 2, 3]


def test_a_callback_that_raises_ends_the_run(tmp_path):
    def refuse(study, trial):
        raise LookupError("no room for it")

    with pytest.raises(LookupError, match="no room"):
        optnas.run(settings(tmp_path), callbacks=[refuse])
    assert len(optnas.open(settings(tmp_path)).optuna.trials) == 1


def test_status_has_fields_and_shows_text(searched):
    study, _ = searched
    status = study.status()
    assert status["trials"] == {"complete": 2}
    assert repr(status).startswith("study    tiny")
    assert status._repr_html_().startswith("<pre>study    tiny")


def test_an_outcome_shows_the_network(searched):
    study, _ = searched
    outcome = study.run(progress=False)
    assert outcome.ending == "budget"
    assert outcome.best == study.best()
    shown = outcome._repr_html_()
    assert "<svg" in shown
    (command,) = re.findall(r"train it: optnas (.*)", repr(outcome))
    arguments = shlex.split(command)
    assert arguments[1:] == [study._target["storage"], "tiny"]
    assert optnas.open(*arguments[1:]).best() == study.best()
    assert f"chain of {outcome.best.architecture.depth} layer" in shown


def test_architectures_are_drawn_where_they_can_be(searched):
    study, _ = searched
    assert study.best().architecture._repr_svg_().startswith("<svg")
    cell = CellSpace().random(np.random.default_rng(0))
    assert cell._repr_svg_().startswith("<svg")
    assert Row(3)._repr_svg_() is None  # A number of a table.


def test_a_report_a_training_predictions_and_an_export(searched, tmp_path):
    study, _ = searched
    with pytest.raises(UserError, match="retrain"):
        study.predict(tmp_path)
    page = study.report(tmp_path / "page.html", inference=False)
    assert page.read_text().startswith("<!doctype html>")
    (training,) = study.retrain(progress=False)
    assert 0 <= training["test_accuracy"] <= 1
    assert f"test accuracy {training['test_accuracy']:.4f}" in repr(training)
    digits = sklearn.datasets.load_digits()
    picture = (digits.images[0] / 16 * 255).astype(np.uint8)
    seen = study.predict(picture, top=2)
    assert len(seen.labels) == 2
    exported = study.export("torch")
    assert exported.difference <= 1e-4
    assert all(Path(file).exists() for file in exported.files)


def test_an_interrupted_run_raises_after_saving(tmp_path):
    study = optnas.open(settings(tmp_path, budget={"trials": 1000}))

    def interrupt(_study, trial):
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="nothing is lost"):
        study.run(progress=False, callbacks=[interrupt])
    complete = [t for t in study.optuna.trials if t.state == TrialState.COMPLETE]
    assert len(complete) >= 2


def test_a_wrong_target_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml"):
        optnas.open(tmp_path / "none.yaml").status()
    with pytest.raises((UserError, StorageError)):
        optnas.open(f"sqlite:///{tmp_path}/none.db").run()


@pytest.mark.filterwarnings("ignore:MLflowCallback has been deprecated")
def test_mlflows_callback_of_optuna_integration_works_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    integration = pytest.importorskip("optuna_integration.mlflow")
    uri = (tmp_path / "mlruns").as_uri()
    callback = integration.MLflowCallback(tracking_uri=uri, metric_name="accuracy")
    outcome = optnas.run(settings(tmp_path), callbacks=[callback])
    client = mlflow.tracking.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    values = sorted(run.data.metrics["accuracy"] for run in runs)
    assert values == sorted(trial.value for trial in outcome.study.trials)


def test_tensorboard_has_a_run_for_every_trial(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    outcome = optnas.run(settings(tmp_path), callbacks=[TensorBoardCallback(tmp_path / "runs")])
    for trial in outcome.study.trials:
        files = (tmp_path / "runs" / f"trial-{trial.number:05}").rglob("events.*")
        scalars = {
            (value.tag, event.step): value.simple_value
            for file in files
            for event in events(file, Event)
            for value in event.summary.value
            if value.HasField("simple_value")
        }
        for epoch, accuracy in trial.intermediate_values.items():
            assert scalars["accuracy", epoch] == pytest.approx(accuracy)
        assert scalars["value", 0] == pytest.approx(trial.value)


def events(file: Path, kind):
    """The events of a file: a length of 8 bytes, its checksum, the event, its checksum."""
    data = file.read_bytes()
    while data:
        length = int.from_bytes(data[:8], "little")
        event = kind()
        event.ParseFromString(data[12 : 12 + length])
        yield event
        data = data[16 + length :]


def test_the_line_of_a_notebook_is_replaced(monkeypatch):
    """Short epochs do not wait for it: it is drawn a few times a second at most."""
    drawn = []
    monkeypatch.setattr("IPython.display.display", lambda line, **_: drawn.append(line) or Line())

    class Line:
        def update(self, line):
            drawn.append(line)

    view = notebook.View()
    for number in range(1000):
        view.show(f"<{number}>")
    view.close()
    notebook.View().close()  # Nothing was trained: there is nothing to show.
    assert len(drawn) < 100
    assert drawn[-1].data == "<pre>&lt;999&gt;</pre>"


def few_lines(output) -> bool:
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return len(text.splitlines()) <= 24  # A screen.


def test_the_notebook_runs_and_may_be_interrupted(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    saved = [[output.output_type for output in cell.outputs] for cell in code]
    assert all(few_lines(output) for cell in code for output in cell.outputs)
    interrupted = nbformat.v4.new_code_cell(
        "import os, signal\nstudy.run(callbacks=[lambda *_: os.kill(os.getpid(), signal.SIGINT)])",
        metadata={"tags": ["raises-exception"]},
    )
    book.cells.insert(book.cells.index(code[0]) + 1, interrupted)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=300, resources=resources).execute()
    line, error = interrupted.outputs
    assert "notebook: 1 trial, best" in line.data["text/html"]
    assert error.ename == "KeyboardInterrupt"
    assert [[output.output_type for output in cell.outputs] for cell in code] == saved
    assert all(few_lines(output) for cell in code for output in cell.outputs)
    assert (tmp_path / "notebook.html").exists()
