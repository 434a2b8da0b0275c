"""The commands, as a new user tries them."""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import optuna
import pytest

import optnas
from optnas.trials import pulse

TINY = """\
study: tiny
space: {depth: [2, 3], width: [4, 6]}
sampler: {name: macro_micro, epochs: 2, search_operations: false}
data: {name: digits, classes: [0, 1, 2], samples: 0.5}
retrain: {epochs: 3}
"""
FOREIGN_URL = "postgresql+psycopg://me:s3cret@127.0.0.1:{port}/db"
# Entry points are found in the folder of the interpreter that runs the tests.
OPTNAS = [str(Path(sys.executable).with_name("optnas"))]


@pytest.fixture
def study_file(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The file of a study that has come to its end; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "tiny.yaml"
    path.write_text(TINY)
    assert optnas.run(path).ending == "finished"
    return path


@pytest.mark.parametrize("closed", [">&-", "<&- 2>&-"])
def test_a_closed_stream_goes_nowhere(closed, tmp_path):
    line = f"{Path(sys.executable).parent}/optnas list {closed}"
    ended = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_ctrl_c_before_anything_else_answers_it(optnas_command, monkeypatch, study_file):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("optnas.config.file.read_study_file", interrupt)
    code, _, err = optnas_command("run", study_file)
    assert (code, err) == (130, "Interrupted; give the same command again to go on.\n")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def test_a_search_from_the_file_to_the_network(optnas_command, study_file, tmp_path):
    code, out, err = optnas_command("run", study_file)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "study 'tiny' starts: macro_micro"
    assert lines[1].startswith("data 'digits': 3 classes; ")
    assert re.match(
        r"ahead: .* trials .*: depth .*, width .*, micro .*; .* with one worker", lines[4]
    )
    assert lines[5].split() == ["trial", "phase", "accuracy", "params", "mult-adds", "time"]
    trials = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/tiny.db").trials
    rows = [re.fullmatch(r" *(\d+)  (\w+) .* (0\.\d{4}) .*", line) for line in lines]
    assert [int(row[1]) for row in rows if row] == [t.number for t in trials]
    assert "The search is finished." in out
    assert "The search of 'tiny' has found" in out
    assert f"optnas retrain {study_file}" in out
    created = {p.name for p in tmp_path.iterdir() if not p.name.startswith("tiny.db-")}
    assert created == {"tiny.artifacts", "tiny.db", "tiny.yaml"}

    code, out, err = optnas_command("retrain", study_file)
    assert (code, err) == (0, "")
    assert "test accuracy 0." in out
    assert out.endswith(f"Next: optnas predict {tmp_path / 'tiny.network'} IMAGE...\n")
    model = optnas.load(tmp_path / "tiny.network")
    assert len(model.class_names) == 3
    again = optnas_command("retrain", study_file)
    assert again == (0, out[out.index("test accuracy") :], "")

    code, _, err = optnas_command("retrain", study_file, "--epochs", "4")
    assert code == 2
    assert "holds another network" in err
    code, out, _ = optnas_command(
        "retrain", study_file, "--trial", 0, "--output", tmp_path / "other", "--json"
    )
    assert code == 0
    fields = json.loads(out)
    assert fields["origin"]["trial"] == 0
    assert fields["folder"] == str(tmp_path / "other")
    assert 0 < fields["test_accuracy"] <= 1


def test_a_retraining_is_left_between_two_batches_and_gone_on_with(
    optnas_command, finished, tmp_path, monkeypatch
):
    undisturbed, place = tmp_path / "undisturbed", tmp_path / "network"
    assert optnas_command("retrain", finished, "--output", undisturbed)[0] == 0
    check, batches = pulse.Pulse.check, itertools.count()

    def interrupting(self: pulse.Pulse) -> None:
        if next(batches) == 5:
            signal.raise_signal(signal.SIGINT)
        check(self)

    monkeypatch.setattr(pulse.Pulse, "check", interrupting)
    code, _, err = optnas_command("retrain", finished, "--output", place)
    assert code == 130
    assert "interrupted: it stops after this batch" in err
    said = re.search(rf"^Interrupted; {place} keeps (.*) of 3 epochs; the same command", err, re.M)
    assert float(said[1]) % 1  # In the middle of an epoch.
    assert optnas_command("retrain", finished, "--output", place)[0] == 0
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (place, undisturbed)]
    assert weights[0] == weights[1]


def test_a_finished_search_adds_no_trial(optnas_command, finished):
    before = optuna.load_study(
        study_name="tiny", storage=f"sqlite:///{finished.with_suffix('.db')}"
    )
    code, out, err = optnas_command("run", finished)
    assert (code, err) == (0, "")
    assert "The search is finished." in out
    assert "chain of " in out
    assert len(before.trials) == len(before.get_trials())
    code, out, _ = optnas_command("run", finished, "--json")
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["start", "end"]


def test_run_for_programs(optnas_command, study_file):
    study_file.write_text(TINY + "budget: {trials: 2}\n")
    code, out, _ = optnas_command("run", study_file, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    kinds = " ".join(event["event"] for event in events)
    assert kinds == "start epoch epoch trial epoch epoch epoch trial end"
    trial = next(e for e in events if e["event"] == "trial")
    assert trial["state"] == "complete"
    assert trial["value"] == max(e["accuracy"] for e in events[1:3])
    assert events[-1]["ending"] == "budget"
    assert events[-1]["found"][0]["settled"] is False


def test_a_budget_that_ends_first_says_so(optnas_command, study_file, tmp_path):
    study_file.write_text(TINY + "budget: {trials: 1}\n")
    code, out, _ = optnas_command("run", study_file)
    assert code == 0
    assert "budget is used up before the search is finished" in out
    assert "The best network of 'tiny' so far" in out
    code, out, _ = optnas_command("best", study_file)
    assert "so far" in out
    assert "the search is not finished" in out
    code, out, _ = optnas_command("resume", f"sqlite:///{tmp_path}/tiny.db", "tiny")
    assert code == 0
    assert f"`optnas resume sqlite:///{tmp_path}/tiny.db tiny`" in out


def test_a_search_without_any_network_fails(optnas_command, study_file):
    study_file.write_text(TINY + "train: {lr: 1.0e+9, clip: null}\n")
    code, out, _ = optnas_command("run", study_file)
    assert code == 1
    assert "candidate: The loss is not finite" in out
    assert "No network could be trained" in out
    code, _, err = optnas_command("retrain", study_file)
    assert code == 2
    assert err == "optnas: no network has been trained yet; run the search first\n"


def test_questions_by_file_and_by_storage(optnas_command, finished):
    storage = f"sqlite:///{finished.with_suffix('.db')}"
    for command in ("status", "best"):
        answers = [
            optnas_command(command, *target, "--json")
            for target in ((finished,), (storage,), (storage, "tiny"))
        ]
        assert {code for code, _, _ in answers} == {0}
        assert len({out for _, out, _ in answers}) == 1
    fields = json.loads(optnas_command("status", finished, "--json")[1])
    assert fields["finished"] is True
    assert fields["running"] == []
    assert fields["trials"] == {"complete": fields["used"]["trials"]}
    text = optnas_command("status", finished)[1]
    assert re.search(r"^state +finished$", text, re.M)
    best = json.loads(optnas_command("best", finished, "--json")[1])
    assert best["finished"] is True
    assert best["found"][0]["settled"] is True
    assert set(best["found"][0]["architecture"]) == {"depth", "width", "operations", "kernels"}
    assert best["best_trial"]["value"] == fields["best_value"]


def test_what_can_be_named(optnas_command):
    code, out, _ = optnas_command("list", "--json")
    fields = json.loads(out)
    assert code == 0
    assert {"macro_micro", "random", "tpe"} <= set(fields["samplers"])
    assert "chain" in fields["spaces"]
    assert {"digits", "cifar10"} <= set(fields["data"])
    lines = [line for table in fields.values() for line in table.values()]
    assert all(line and "\n" not in line for line in lines)
    assert "macro_micro" in optnas_command("list")[1]


def test_the_schema_is_json(optnas_command):
    code, out, _ = optnas_command("schema")
    assert code == 0
    assert "study" in json.loads(out)["properties"]


LARGE = ("--data", "cifar10")


@pytest.mark.parametrize(
    ("arguments", "sampler", "space", "rungs"),
    [
        ((), "surrogate", "chain", False),
        (LARGE, "macro_micro", "chain", False),
        (("--trials", "40"), "surrogate", "chain", False),
        ((*LARGE, "--trials", "40"), "surrogate", "chain", True),
        ((*LARGE, "--trials", "5"), "random", "chain", False),
        (("--space", "cell"), "surrogate", "cell", False),
        ((*LARGE, "--space", "cell"), "surrogate", "cell", True),
        ((*LARGE, "--space", "cell", "--trials", "60"), "surrogate", "cell", True),
        ((*LARGE, "--full", "--space", "cell", "--trials", "60"), "surrogate", "cell", True),
        ((*LARGE, "--space", "growth", "--trials", "60"), "randgrow", "growth", False),
        ((*LARGE, "--space", "stage"), "stage_wise", "stage", False),
        ((*LARGE, "--space", "stage", "--sampler", "tpe", "--trials", "30"), "tpe", "stage", True),
        ((*LARGE, "--sampler", "econas", "--trials", "9"), "econas", "chain", False),
    ],
)
def test_init_proposes_by_space_and_budget(
    arguments, sampler, space, rungs, optnas_command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = optnas_command("init", "first.yaml", *arguments)
    assert code == 0, err
    assert ("--sampler" in arguments) == (f"The sampler is {sampler}: " not in out)
    study = optnas.config.file.load_study_file("first.yaml")
    assert (study.sampler.name, study.space.name) == (sampler, space)
    said = int(arguments[-1]) if "--trials" in arguments else None
    is_small = "small" in out
    assert is_small == (space == "chain" and "cifar10" not in arguments)
    if is_small:
        chains = study.make_space()
        assert (chains.depth, chains.width) == ((2, 10), (8, 24))
    assert study.budget.trials == said or (30 if sampler == "surrogate" else None)
    assert (study.pruner.name == "hierarchical") == rungs == ("stop there" in out)
    if rungs:
        assert study.make_pruner().rungs.epochs == (2, 6, study.train.epochs)


def test_init_writes_a_file_that_runs_and_never_overwrites(optnas_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = optnas_command("init", "first.yaml", "--sampler", "random")
    assert code == 0
    assert "optnas run first.yaml" in out
    assert optnas.config.file.load_study_file("first.yaml").sampler.name == "random"
    for strategy in ("econas", "ftso", "macro_micro", "randgrow", "stage_wise"):
        for name, arguments in ((strategy, ()), (f"{strategy}-full", ("--full",))):
            file = f"{name}.yaml"
            code, _, _ = optnas_command("init", file, "--sampler", strategy, *arguments)
            assert code == 0
            assert optnas.config.file.load_study_file(file).sampler.name == strategy
            assert (len(Path(file).read_text().splitlines()) <= 10) == (not arguments)
    before = contents(tmp_path)
    code, _, err = optnas_command("init", "first.yaml")
    assert code == 2
    assert err == "optnas: first.yaml exists; name another file\n"
    for arguments in (("--data", "digitz"), ("--sampler", "macromicro")):
        code, _, err = optnas_command("init", "second.yaml", *arguments)
        assert code == 2
        assert "did you mean" in err
    assert contents(tmp_path) == before


BAD_FILES = {
    "broken": ("study: [", "1"),
    "empty": ("", "the file is empty"),
    "list": ("- study\n- digits\n", "expected keys and values"),
    "unknown key": (TINY + "bugdet: {trials: 3}\n", "did you mean 'budget'?"),
    "unknown option": (TINY.replace("epochs: 2", "epoch: 2"), "did you mean 'epochs'?"),
    "repeated key": (TINY + "study: again\n", "study"),
    "wrong type": (TINY + "seed: many\n", "seed: expected an integer"),
    "nan": (TINY + "train: {lr: .nan}\n", "train.lr: expected a finite number"),
    "depths": (TINY.replace("[2, 3]", "[3, 2]"), "space.depth"),
    "width": (TINY.replace("[4, 6]", "[0, 6]"), "space.width"),
    "sampler": (TINY.replace("macro_micro", "macro_mikro"), "did you mean 'macro_micro'?"),
    "data set": (TINY.replace("digits", "digitz"), "did you mean 'digits'?"),
    "space": (TINY.replace("{depth", "{name: chian, depth"), "did you mean 'chain'?"),
    "wrong space": (TINY + "pruner: chain\n", "pruner"),
    "no data": (TINY.replace("{name: digits,", "{name: cifar10, root: nowhere,"), "nowhere"),
    "no folder": (TINY + "storage: sqlite:///missing/tiny.db\n", "missing does not exist"),
    "a folder": (TINY + "storage: sqlite:///a_folder\n", "a_folder"),
    "not a database": (TINY + "storage: sqlite:///notes.txt\n", "not a database"),
    "unknown storage": (TINY + "storage: sqlight:///tiny.db\n", "did you mean 'sqlite://'?"),
}


@pytest.mark.parametrize(("text", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_input_is_one_message_and_nothing_is_created(
    optnas_command, study_file, tmp_path, text, expected
):
    study_file.write_text(text)
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "notes.txt").write_text("Not a database, long enough to be looked at. " * 20)
    before = contents(tmp_path)
    code, out, err = optnas_command("run", study_file)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"optnas: [^\n]+\n", err), err
    assert expected in err
    assert contents(tmp_path) == before


PICKY = """
from optuna.samplers import RandomSampler


class CellsOnly(RandomSampler):
    def __init__(self, space, seed: int | None = None):
        raise TypeError(f"CellsOnly searches a CellSpace, not {space!r}.")
"""


def test_a_sampler_that_cannot_search_the_space(optnas_command, study_file, tmp_path):
    (tmp_path / "optnas_test_picky.py").write_text(PICKY)
    study_file.write_text("study: tiny\nsampler: optnas_test_picky:CellsOnly\ndata: digits\n")
    before = contents(tmp_path)
    code, _, err = optnas_command("run", study_file)
    assert code == 2
    assert re.fullmatch(r"optnas: [^\n]+ CellsOnly searches a CellSpace, not ChainSpace.*\n", err)
    assert contents(tmp_path) == before


def test_a_file_that_does_not_exist(optnas_command, tmp_path):
    code, _, err = optnas_command("run", tmp_path / "none.yaml")
    assert code == 2
    assert err.startswith(f"optnas: {tmp_path}/none.yaml: no such file")
    assert not list(tmp_path.iterdir())


def test_a_database_server_that_does_not_answer_keeps_its_password(
    optnas_command, study_file, tmp_path
):
    pytest.importorskip("psycopg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = FOREIGN_URL.format(port=free.getsockname()[1])
    study_file.write_text(TINY + f"storage: {url}\n")
    before = contents(tmp_path)
    for arguments in (("run", study_file), ("status", url), ("status", study_file)):
        code, out, err = optnas_command(*arguments)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"optnas: [^\n]+\n", err)
        assert "refused" in err
        assert "s3cret" not in err
    assert contents(tmp_path) == before


def test_another_configuration_is_refused_with_the_difference(
    optnas_command, study_file, tmp_path
):
    study_file.write_text(TINY + "budget: {trials: 1}\n")
    optnas_command("run", study_file)
    status = optnas_command("status", study_file, "--json")
    study_file.write_text(TINY.replace("epochs: 2", "epochs: 5") + "budget: {trials: 9}\n")
    for command in ("run", "status", "best", "retrain"):
        code, out, err = optnas_command(command, study_file)
        assert (code, out) == (2, "")
        assert "\n  sampler.epochs: stored 2, file says 5\n" in err
        assert "Traceback" not in err
    assert optnas_command("status", f"sqlite:///{tmp_path}/tiny.db", "--json") == status
    study_file.write_text(TINY + "budget: {trials: 2}\n")
    assert optnas_command("run", study_file)[0] == 0
    assert json.loads(optnas_command("status", study_file, "--json")[1])["used"]["trials"] == 2


@pytest.mark.parametrize("command", ["status", "best", "report", "retrain", "dashboard"])
def test_asking_for_a_study_that_is_not_there_creates_nothing(
    optnas_command, study_file, tmp_path, command
):
    before = contents(tmp_path)
    for target in ((study_file,), (f"sqlite:///{tmp_path}/none.db", "tiny"), ("none.yaml",)):
        code, out, err = optnas_command(command, *target)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"optnas: [^\n]+\n", err)
    assert contents(tmp_path) == before


def test_a_name_that_is_not_in_the_storage(optnas_command, finished):
    storage = f"sqlite:///{finished.with_suffix('.db')}"
    code, _, err = optnas_command("best", storage, "huge")
    assert code == 2
    assert "there is no study 'huge'" in err
    code, _, err = optnas_command("status", finished, "huge")
    assert code == 2
    assert "named 'tiny'" in err
    code, _, err = optnas_command("retrain", finished, "--trial", 999)
    assert code == 2
    assert "there is no trial 999" in err


def test_help_loads_nothing():
    code = (
        "import sys; from optnas.cli import app; app(['--help'], standalone_mode=False); "
        "assert not {'torch', 'optuna', 'pydantic'} & set(sys.modules), 'loaded'"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    for command in (
        *("run", "resume", "status", "best", "report", "retrain", "dashboard", "init", "list"),
    ):
        assert re.search(rf"^ +{command} +\w", run.stdout, re.M)


def test_the_dashboard_is_on_loopback_until_it_is_told_to_end(finished):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*OPTNAS, "dashboard", str(finished), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline().startswith(f"http://127.0.0.1:{port}/dashboard/studies/")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies") as answer:
            studies = json.load(answer)
        figures: list[dict[str, str]] = []
        while not figures:  # They are drawn while it serves.
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies/1") as answer:
                shown = json.load(answer)
                figures = shown["plotly_graph_objects"]
        drawing = shown["trials"][0]["artifacts"][0]["artifact_id"]
        address = f"http://127.0.0.1:{port}/artifacts/1/{shown['trials'][0]['trial_id']}/{drawing}"
        with urllib.request.urlopen(address) as answer:
            drawn = answer.read()
        rival = subprocess.run(command, capture_output=True, text=True)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()
    summaries = next(iter(studies.values()))
    assert [summary["study_name"] for summary in summaries] == ["tiny"]
    assert all(figure["id"].startswith("optnas-") for figure in figures)
    assert drawn.startswith((b"<svg", b"\x89PNG"))
    assert server.returncode == 0
    assert rival.returncode == 2
    assert rival.stderr.startswith(f"optnas: port {port}: ")


def test_a_reader_that_leaves_early_ends_the_run_quietly(study_file):
    command = f"{OPTNAS[0]} run {study_file} | head -2"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert len(run.stdout.splitlines()) == 2
    assert run.stderr == ""
    assert run.returncode != 0
    storage = f"sqlite:///{study_file.with_suffix('.db')}"
    study = optuna.load_study(study_name="tiny", storage=storage)
    assert all(trial.state.is_finished() for trial in study.trials)


def test_a_terminal_of_80_columns(study_file):
    """A pseudo-terminal; what is drawn is looked at line by line."""
    import pty

    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    environment.pop("NO_COLOR", None)
    study_file.write_text(TINY + "budget: {trials: 3, epochs: 5000, hours: 12}\n")
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [*OPTNAS, "run", str(study_file)], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # The other end is closed when the run ends.
        while chunk := os.read(ours, 4096):
            written += chunk
    os.close(ours)
    assert run.wait() == 0
    text = written.decode()
    assert re.search(r"\x1b\[(?:\d+;)*3\dm", text)
    lines = re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
    footers = [line for line in lines if "/5000 epochs" in line]
    assert footers
    assert all(len(line) <= 80 and not line.endswith("…") for line in footers)
    assert "budget is used up" in text
