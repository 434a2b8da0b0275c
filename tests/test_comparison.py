import functools
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHARED
from optuna.trial import FrozenTrial, TrialState, create_trial
from readers import studies

from optnas.config.file import StudyFile, study_from_dict
from optnas.errors import UserError
from optnas.experiments.comparison import Run, _check_spends, _cost, _summary, compare
from optnas.experiments.comparison_report import comparison_page
from optnas.experiments.contenders import Contender, parse_contenders, spending
from optnas.experiments.standings import standings
from optnas.experiments.studies import Experiment
from optnas.pages.frame import render
from optnas.spaces.nasbench201 import EDGES, OPERATIONS, NasBench201Architecture
from optnas.storage.urls import StorageError
from optnas.trials.attributes import CONTINUES

SAMPLERS = "macro_micro,random,{name: tpe, n_startup_trials: 2}"


def keys(**changes: Any) -> dict[str, Any]:
    """Networks of a few hundred parameters on a part of the digits."""
    given = {
        "study": "tiny",
        "storage": "journal:///tiny.log",
        "seed": 1,
        "space": {"name": "chain", "depth": [1, 2], "width": [2, 8]},
        "sampler": {"name": "macro_micro", "epochs": 1},
        "data": {"name": "digits", "samples": 0.2},
        "train": {"lr": 0.1},
    }
    return given | changes


#: In place of a training, so that processes start fast.
OBJECTIVE = """
import time
import types

class Objective:
    in_channels, classes = 1, 10

    def __init__(self, space, train):
        self.space, self.train = space, train

    @classmethod
    def from_settings(cls, space, data, *, train, limits, seed, device, **others):
        return cls(space, train)

    def __call__(self, trial):
        architecture = self.space.suggest(trial)
        epochs = self.train.epochs or trial.suggest_int("epochs", 1, 1000)
        for epoch in range(1, epochs + 1):
            time.sleep(0.01)
            value = 1 - 1 / (architecture.width + architecture.depth * epoch)
            trial.report(value, epoch)
            self.on_epoch(types.SimpleNamespace(epoch=epoch, epochs=epochs))
        return value
"""


def config(folder: Path, **changes: Any) -> StudyFile:
    return study_from_dict(keys(**changes), folder)


def run(folder: Path, samplers: str = SAMPLERS, **options: Any) -> Experiment:
    file = config(folder)
    given = {"unit": "epochs", "amount": 6, "seeds": 2, "candidate_epochs": 2}
    return compare(file, parse_contenders(samplers, file), **(given | options))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Experiment]:
    folder = tmp_path_factory.mktemp("compared")
    return folder, run(folder)


def test_every_sampler_spends_the_same_with_every_seed(
    compared: tuple[Path, Experiment],
) -> None:
    trained = studies(compared[0] / "tiny.log")
    labels = ("macro_micro", "random", "tpe n_startup_trials=2")
    assert trained.keys() == {
        f"tiny-compare-{label}-{seed}" for label in labels for seed in (0, 1)
    }
    for name, trials in trained.items():
        assert sum(len(trial.intermediate_values) for trial in trials) == 6, name
        if "macro" not in name:
            assert {len(trial.intermediate_values) for trial in trials} == {2}
    first, second = (trained[f"tiny-compare-random-{seed}"] for seed in (0, 1))
    assert [t.params for t in first] != [t.params for t in second]


def test_fields_say_what_each_sampler_found(compared: tuple[Path, Experiment]) -> None:
    folder, experiment = compared
    trained = studies(folder / "tiny.log")
    fields = experiment.fields
    assert (fields["baseline"], fields["random_networks"]) == ("random", 6)
    rows = {row["label"]: row for row in fields["contenders"]}
    for label, row in rows.items():
        values = [
            [trial.value or 0.0 for trial in trained[f"tiny-compare-{label}-{seed}"]]
            for seed in (0, 1)
        ]
        assert row["finals"] == [max(some) for some in values]
        assert row["mean"] == pytest.approx(np.mean(row["finals"]))
        curve = row["curve"]
        assert curve["mean"][-1] == pytest.approx(row["mean"])
        assert curve["mean"] == sorted(curve["mean"])
        assert curve["cost"][-1] == 6
    assert rows["random"]["p_value"] is None
    assert 0 < rows["macro_micro"]["p_value"] < 1
    random = [t.value for s in (0, 1) for t in trained[f"tiny-compare-random-{s}"]]
    improvement = 100 * (rows["macro_micro"]["mean"] - np.mean(random)) / np.mean(random)
    assert rows["macro_micro"]["relative_improvement"] == pytest.approx(improvement)


def test_processes_find_the_same_and_go_on_where_one_stopped(tmp_path: Path) -> None:
    (tmp_path / "fake_training.py").write_text(OBJECTIVE)
    expected, found = (
        config(tmp_path, study=name, objective="fake_training:Objective") for name in "ab"
    )
    text = "macro_micro,random"
    one = compare(expected, parse_contenders(text, expected), unit="epochs", amount=9, seeds=2)
    lines: list[str] = []
    for amount in (4, 9):  # The first cuts a network of macro-micro in two.
        both = compare(
            found,
            parse_contenders(text, found),
            unit="epochs",
            amount=amount,
            seeds=2,
            processes=2,
            on_study=lines.append,
        )
    assert {line.split()[0] for line in lines} == {"1/4", "2/4", "3/4", "4/4"}
    # Stock samplers draw from a stream of numbers, which a study that goes on begins anew.
    first, other = (e.fields["contenders"][0] for e in (one, both))
    assert first == other
    for name, trials in studies(tmp_path / "tiny.log").items():
        lost = {trial.user_attrs.get("continues") for trial in trials}
        kept = [trial for trial in trials if trial.number not in lost]
        assert sum(len(trial.intermediate_values) for trial in kept) == 9, name


def test_what_is_done_is_not_done_again_and_a_smaller_budget_looks_back(
    compared: tuple[Path, Experiment],
) -> None:
    folder, experiment = compared
    before = studies(folder / "tiny.log")
    assert run(folder).fields == experiment.fields
    earlier = run(folder, amount=2)
    assert studies(folder / "tiny.log") == before
    for row in earlier.fields["contenders"][1:]:  # One network of two epochs.
        label = row["label"]
        assert row["finals"] == [before[f"tiny-compare-{label}-{s}"][0].value for s in (0, 1)]


def test_table_and_page_show_the_samplers(
    compared: tuple[Path, Experiment], tmp_path: Path
) -> None:
    experiment = compared[1]
    experiment.write(tmp_path, "comparison")
    assert json.loads((tmp_path / "comparison.json").read_text()) == experiment.fields
    rows = [line.split("  ")[0] for line in experiment.text.splitlines()[1:4]]
    assert rows == ["macro_micro", "random", "tpe n_startup_trials=2"]
    page = (tmp_path / "comparison.html").read_text()
    assert page.count('<g class="line">') == page.count('<g class="band">') == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random", [Contender("random", {"name": "random"}, None)]),
        ("random+median", [Contender("random+median", {"name": "random"}, {"name": "median"})]),
        (
            "tpe,{name: tpe, multivariate: true}",
            [
                Contender("tpe", {"name": "tpe"}, None),
                Contender("tpe multivariate=True", {"name": "tpe", "multivariate": True}, None),
            ],
        ),
        (
            "{name: tpe, pruner: {name: median, n_startup_trials: 3}}",
            [Contender("tpe+median", {"name": "tpe"}, {"name": "median", "n_startup_trials": 3})],
        ),
        ("my.module:Name", [Contender("my.module:Name", {"name": "my.module:Name"}, None)]),
    ],
)
def test_contenders_are_read(text: str, expected: list[Contender], tmp_path: Path) -> None:
    assert parse_contenders(text, config(tmp_path)) == expected


def test_a_name_of_the_file_takes_its_options_and_nothing_means_the_file_and_random(
    tmp_path: Path,
) -> None:
    file = config(tmp_path, pruner={"name": "median", "n_startup_trials": 9}, sampler="tpe")
    one, other = parse_contenders("", file)
    assert (one.label, one.pruner, other.label) == ("tpe", None, "random")
    assert one.sampler == file.resolved()["sampler"]
    pruned = parse_contenders("random+median", file)[0].pruner
    assert pruned is not None
    assert pruned["n_startup_trials"] == 9


@pytest.mark.parametrize("text", ["tpe,tpe", "[", "{n: 3}", "3", ",,"])
def test_contenders_that_cannot_be_read_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--samplers: expected"):
        parse_contenders(text, config(tmp_path))


def test_spending_is_one_amount_of_the_command_or_of_the_file(tmp_path: Path) -> None:
    nothing = {"epochs": None, "seconds": None, "trials": None}
    file = config(tmp_path, budget={"hours": 0.5})
    assert spending({**nothing, "trials": 7}, file) == ("trials", 7)
    assert spending({**nothing}, file) == ("seconds", 1800)
    with pytest.raises(UserError, match="give one of --epochs, --seconds and --trials"):
        spending({**nothing, "epochs": 3, "trials": 7}, file)
    with pytest.raises(UserError, match="give one of"):
        spending({**nothing}, config(tmp_path))
    with pytest.raises(UserError, match="give one of"):
        spending({**nothing}, config(tmp_path, budget={"hours": 1, "trials": 3}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "2", "--samplers", "tpa"], "tpa: sampler.name: unknown sampler 'tpa'"),
        (["--trials", "2", "--samplers", "random+meddian"], "did you mean 'median'"),
        (["--samplers", "random"], "give one of --epochs"),
    ],
)
def test_bad_input_ends_with_one_message_before_anything_is_made(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    command: Callable[..., Any],
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(keys()))
    code, _, err = command(file, *arguments)
    assert code == 2
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def trial(epochs: int, **attrs: Any) -> FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        value=0.5,
        user_attrs={"train_seconds": 10.0 * epochs, **attrs},
        intermediate_values=dict.fromkeys(range(1, epochs + 1), 0.5),
    )


def test_a_trial_that_goes_on_from_another_costs_what_it_adds() -> None:
    trials = [trial(3), trial(5, **{CONTINUES: 0}), trial(2)]
    assert [_cost(one, trials, "epochs") for one in trials] == [3, 2, 2]
    assert [_cost(one, trials, "seconds") for one in trials] == [30, 20, 20]
    without_reports = create_trial(
        state=TrialState.COMPLETE, value=0.5, user_attrs={"epochs_trained": 12}
    )
    assert _cost(without_reports, [without_reports], "epochs") == 12


def test_an_objective_that_records_no_cost_is_refused_instead_of_running_for_ever() -> None:
    free = create_trial(state=TrialState.COMPLETE, value=0.5)
    _check_spends("trials", free)
    for unit in ("epochs", "seconds"):
        with pytest.raises(UserError, match=f"the objective records no {unit}"):
            _check_spends(unit, free)  # type: ignore[arg-type]


def test_worked_summary() -> None:
    runs = {
        "good": [Run((2, 4), (0.8, 0.9)), Run((2, 4), (0.7, 1.0))],
        "random": [Run((2, 4, 6), (0.5, -np.inf, 0.9)), Run((2, 4), (0.6, 0.4))],
        "silent": [Run((), ()), Run((5,), (0.9,))],
    }
    good, random, silent = _summary(runs, 4, "random")["contenders"]
    assert good["finals"] == [0.9, 1.0]
    assert good["p_value"] == pytest.approx(1 / 6)
    # The mean of 0.5, 0.6 and 0.4: what was had for more than 4 does not count.
    assert good["relative_improvement"] == pytest.approx(90)
    assert random["finals"] == [0.5, 0.6]
    assert silent["finals"] == [None, None]
    assert silent["mean"] is silent["p_value"] is silent["relative_improvement"] is None
    assert silent["curve"]["cost"] == []
    assert good["curve"]["cost"][0] == pytest.approx(2)
    assert good["curve"]["mean"][0] == pytest.approx(0.75)


def test_a_page_without_curves_has_its_table() -> None:
    summary = _summary({"silent": [Run((), ())]}, 4, None)
    fields = {"study": "s", "unit": "epochs", "amount": 4, "seeds": 1, **summary}
    html = render(comparison_page(fields))
    assert '<th scope="row" class="text">silent</th>' in html
    assert "<figure>" not in html


def test_without_random_search_there_is_nothing_to_refer_to() -> None:
    summary = _summary({"good": [Run((1,), (0.8,))]}, 4, None)
    assert (summary["baseline"], summary["random_networks"]) == (None, 0)
    assert summary["contenders"][0]["p_value"] is None


def test_interrupted_processes_end_and_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "fake_training.py").write_text(OBJECTIVE)
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(keys(sampler="random", objective="fake_training:Objective")))
    options = ["--epochs", "100000", "--seeds", "2", "--processes", "2"]
    command = [
        sys.executable,
        "-c",
        "from optnas.cli import main; main()",
        "compare",
        str(file),
    ]
    started = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    while not any(trials for trials in known(tmp_path).values()):
        assert started.poll() is None
        time.sleep(0.2)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 130, err
    assert "Interrupted; nothing is lost: the same command goes on." in err
    trials = [trial for some in studies(tmp_path / "tiny.log").values() for trial in some]
    assert all(trial.state.is_finished() for trial in trials)
    options = ["--epochs", "40", "--seeds", "2", "--json"]
    again = subprocess.run([*command, *options], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["contenders"][0]["mean"] > 0


def known(folder: Path) -> dict[str, list[FrozenTrial]]:
    """The studies so far, while another process makes them."""
    try:
        return studies(folder / "tiny.log")
    except StorageError:  # It is being made.
        return {}


@pytest.mark.skipif(not SHARED.exists(), reason="the table is not here")
def test_the_table_is_compared_at_equal_simulated_seconds(tmp_path: Path) -> None:
    file = study_from_dict(
        {
            "study": "table",
            "storage": "journal:///table.log",
            "space": "nasbench201",
            "sampler": "random",
            "objective": {
                "name": "tabular",
                "table": str(SHARED / "data" / "nasbench201_cifar10.npz"),
                "column": "val_12ep",
            },
        },
        tmp_path,
    )
    for unit, amount in (("seconds", 2_000.0), ("epochs", 240.0)):
        experiment = compare(
            file, parse_contenders("random,econas", file), unit=unit, amount=amount, seeds=2
        )
        for row in experiment.fields["contenders"]:
            assert all(0.5 < value < 1 for value in row["finals"])


# On tables, in memory.


def table_file(folder: Path, name: str = "small", **changes: Any) -> Path:
    """A study file on a table of its own: the cells of NAS-Bench-201 with made-up values."""
    cells = [
        NasBench201Architecture(operations)
        for operations in itertools.product(OPERATIONS, repeat=len(EDGES))
    ]
    rng = np.random.default_rng(0)
    values = np.array([cell.operations.count("nor_conv_3x3") / 10 for cell in cells])
    values += rng.random(len(cells)) / 100
    np.savez(
        folder / f"{name}.npz", arch=[*map(str, cells)], value=values, worth=100 - 10 * values
    )
    file = folder / f"{name}.yaml"
    objective = {"name": "tabular", "table": f"{name}.npz", "column": "value"}
    given = {"study": name, "space": "nasbench201", "sampler": "random", "objective": objective}
    file.write_text(json.dumps(given | changes))
    return file


@pytest.fixture
def command(optnas_command: Callable[..., Any]) -> Callable[..., tuple[int, str, str]]:
    """Runs `optnas compare`: its exit code, and what it writes."""
    return functools.partial(optnas_command, "compare")


def fields_of(outcome: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = outcome
    assert code == 0, err
    fields: dict[str, Any] = json.loads(out)
    return fields


def test_a_table_is_compared_in_memory_and_nothing_is_stored(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    file = table_file(tmp_path)
    before = set(tmp_path.iterdir())
    options = ("--samplers", "local_search,random", "--trials", "12", "--seeds", "3")
    once = fields_of(command(file, *options, "--json"))
    assert set(tmp_path.iterdir()) == before
    assert fields_of(command(file, *options, "--json", "--processes", "2")) == once
    assert [len(row["finals"]) for row in once["contenders"]] == [3, 3]
    assert once["contenders"][0]["curve"]["cost"][-1] == 12


def test_a_score_judges_the_network_with_the_best_value(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    file = table_file(tmp_path)
    options = ("--samplers", "local_search,random", "--trials", "12", "--seeds", "2")
    plain = fields_of(command(file, *options, "--json"))
    scored = fields_of(command(file, *options, "--score", "worth", "--json"))
    for one, other in zip(plain["contenders"], scored["contenders"], strict=True):
        assert other["finals"] == pytest.approx([100 - 10 * value for value in one["finals"]])
    code, _, err = command(file, *options, "--score", "price")
    assert code
    assert "no column of numbers 'price'" in err


def test_only_tables_have_scores(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--score: only tables"):
        run(tmp_path, score="worth")
    assert not list(tmp_path.iterdir())


def test_several_tables_are_ranked_together(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    files = [table_file(tmp_path, name) for name in ("first", "second")]
    options = ("--samplers", "local_search,random", "--trials", "20", "--seeds", "3")
    fields = fields_of(command(*files, *options, "--json"))
    assert [one["study"] for one in fields["tables"]] == ["first", "second"]
    assert {entry["label"] for entry in fields["ranking"]} == {"local_search", "random"}
    assert fields["pairs"][0]["pairs"] == 6
    code, out, _ = command(*files, *options, "--output", tmp_path / "out")
    assert not code
    assert "all together" in out
    assert (tmp_path / "out" / "comparison.html").read_text().count('<g class="band">') == 4


def test_a_study_counts_once(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = table_file(tmp_path, "first")
    code, _, err = command(file, file, "--trials", 3)
    assert (code, err) == (
        2,
        "optnas: a study is named twice, and would count twice in the ranking\n",
    )


def test_the_ranking_says_what_can_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    noise = rng.random(20) / 10
    rows = [
        {"label": "good", "finals": list(0.8 + noise)},
        {"label": "as good", "finals": list(0.8 + noise[::-1])},
        {"label": "bad", "finals": list(0.5 + noise)},
        {"label": "silent", "finals": [None] * 20},
    ]
    fields = standings(rows)
    assert [entry["label"] for entry in fields["ranking"]][2:] == ["bad", "silent"]
    tied = {entry["label"]: entry["tied"] for entry in fields["ranking"]}
    assert tied["good"]
    assert tied["as good"]
    assert not tied["bad"]
    by_names = {frozenset((pair["first"], pair["second"])): pair for pair in fields["pairs"]}
    pair = by_names[frozenset(("good", "bad"))]
    assert pair["difference"] == pytest.approx(0.3)
    assert pair["low"] == pytest.approx(0.3)
    assert 2 <= pair["p_corrected"] / pair["p_value"] <= 3  # One of the two smallest of three.
    assert by_names[frozenset(("good", "silent"))]["p_value"] is None
