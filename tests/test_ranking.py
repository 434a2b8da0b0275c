import json
import signal
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SHARED
from optuna.trial import FrozenTrial, TrialState, create_trial
from readers import studies

from optnas.config.file import StudyFile, study_from_dict
from optnas.config.proxy import Proxy
from optnas.errors import UserError
from optnas.experiments.ranking import _dynamic, _monotonicity, parse_settings, rank
from optnas.experiments.studies import Experiment, Stopped, _Watcher

SETTINGS = (Proxy(0, 0, 0, 1), Proxy(0, 0, 0, 2))


def config(folder: Path, **keys: Any) -> StudyFile:
    """Networks of a few hundred parameters on a part of the digits."""
    given = {
        "study": "tiny",
        "storage": "journal:///tiny.log",
        "seed": 1,
        "space": {"name": "chain", "depth": [1, 2], "width": [2, 8]},
        "data": {"name": "digits", "samples": 0.2},
        "train": {"lr": 0.1},
        "retrain": {"epochs": 4},
    }
    return study_from_dict(given | keys, folder)


def without_time(fields: dict[str, Any]) -> dict[str, Any]:
    rows = [{**row, "measured_speedup": None} for row in fields["settings"]]
    return json.loads(json.dumps({**fields, "settings": rows}))


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Experiment, list[str]]:
    folder, lines = tmp_path_factory.mktemp("ranked"), []
    experiment = rank(
        config(folder), networks=6, settings=SETTINGS, dynamic=True, on_study=lines.append
    )
    return folder, experiment, lines


def test_the_same_networks_are_trained_in_every_setting(
    ranked: tuple[Path, Experiment, list[str]],
) -> None:
    folder, _, lines = ranked
    trained = studies(folder / "tiny.log")
    assert {name: len(trials[0].intermediate_values) for name, trials in trained.items()} == {
        "tiny-rank-6-c0r0s0e4": 4,
        "tiny-rank-6-c0r0s0e1": 1,
        "tiny-rank-6-c0r0s0e2": 2,
    }
    zoos = [[trial.params for trial in trials] for trials in trained.values()]
    assert zoos[0] == zoos[1] == zoos[2]
    assert len(zoos[0]) == 6
    assert [line.split()[0] for line in lines] == ["1/3", "2/3", "3/3"]


def test_fields_say_how_well_each_setting_ranks(
    ranked: tuple[Path, Experiment, list[str]],
) -> None:
    fields = ranked[1].fields
    assert fields["original"] == "c0r0s0e4"
    assert [row["setting"] for row in fields["settings"]] == ["c0r0s0e1", "c0r0s0e2"]
    for row, speedup in zip(fields["settings"], (4, 2), strict=True):
        assert row["speedup"] == pytest.approx(speedup)
        assert -1 <= row["rho_low"] <= row["rho"] <= row["rho_high"] <= 1
        assert -1 <= row["tau_low"] <= row["tau"] <= row["tau_high"] <= 1
        assert row["retained"].keys() == {"1", "2"}
        assert 0 <= row["retained"]["1"] <= row["retained"]["2"] <= row["top"] == 1
    spread = fields["spread"]
    assert 0 < spread["worst"] < spread["median"] < spread["best"] <= 1
    dynamic = fields["dynamic"]
    assert dynamic["networks"] == 4  # As many as epochs.
    assert [p["params"] for p in dynamic["points"]] == sorted(
        p["params"] for p in dynamic["points"]
    )


def test_what_is_done_is_not_done_again(
    ranked: tuple[Path, Experiment, list[str]],
) -> None:
    folder, experiment, _ = ranked
    before = studies(folder / "tiny.log")
    again = rank(config(folder), networks=6, settings=SETTINGS, dynamic=True)
    assert again.fields == experiment.fields
    assert studies(folder / "tiny.log") == before


def test_an_interrupted_ranking_goes_on_and_says_the_same(
    ranked: tuple[Path, Experiment, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(self: _Watcher, progress: Any, worker: int) -> None:
        if (progress.number, progress.epoch) == (3, 2):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(_Watcher, "epoch", interrupt)
        with pytest.raises(Stopped, match="interrupted"):
            rank(config(tmp_path), networks=6, settings=SETTINGS, dynamic=True)
    resumed = rank(config(tmp_path), networks=6, settings=SETTINGS, dynamic=True)
    assert without_time(resumed.fields) == without_time(ranked[1].fields)


def test_tables_and_page_show_the_settings(
    ranked: tuple[Path, Experiment, list[str]], tmp_path: Path
) -> None:
    experiment = ranked[1]
    experiment.write(tmp_path / "new", "ranking")
    assert json.loads((tmp_path / "new" / "ranking.json").read_text()) == experiment.fields
    text = (tmp_path / "new" / "ranking.txt").read_text()
    assert "c0r0s0e1" in text
    assert "dynamic: accuracy and final accuracy" in text
    page = (tmp_path / "new" / "ranking.html").read_text()
    figures = page.split("<figure>")[1:]
    # Spread, speed-up, epochs, best kept, overfitting, two scatters of ranks and of accuracies,
    # dynamic.
    assert len(figures) == 10
    for figure in figures:
        drawing = ET.fromstring(figure[figure.index("<svg") : figure.index("</svg>") + 6])
        drawn = [group for group in drawing.iter("g") if group.get("class") in ("points", "line")]
        assert drawn
        assert all(len(list(group.iter())) > 1 for group in drawn)
    assert page.count("http") == page.count("http-equiv") == 1  # Nothing is from elsewhere.


def test_a_folder_that_cannot_be_written_is_an_error_of_the_user(
    ranked: tuple[Path, Experiment, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        ranked[1].write(tmp_path / "file", "ranking")


def test_without_settings_it_is_the_spread_of_random_networks(tmp_path: Path) -> None:
    fields = rank(config(tmp_path), networks=3, full_epochs=1).fields
    assert fields["settings"] == []
    assert fields["dynamic"] is None
    assert fields["original"] == "c0r0s0e1"


def test_samplers_proxy_budget_and_limits_of_the_file_do_not_apply(tmp_path: Path) -> None:
    keys = {"sampler": "random", "budget": {"trials": 1}, "limits": {"params": 1}}
    keys |= {"pruner": "median", "proxy": "c0r0s0e5"}
    experiment = rank(config(tmp_path, **keys), networks=3, full_epochs=1)
    assert experiment.fields["networks"] == 3
    assert {
        len(t.intermediate_values) for t in studies(tmp_path / "tiny.log")["tiny-rank-3-c0r0s0e1"]
    } == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--settings", "c4r4"], "expected a proxy such as 'c4r4s0e60'"),
        (["--settings", "c0r0s0e4"], "c0r0s0e4 is the original setting"),
        (["--settings", "c0r5s0e1"], "`r` must be in 0 to 4"),
        (
            ["--networks", "3", "--full-epochs", "1", "--dynamic"],
            "give --full-epochs of at least 3",
        ),
    ],
)
def test_bad_input_ends_with_one_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    optnas_command: Callable[..., Any],
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(config(tmp_path).model_dump(mode="json") | {"artifacts": "a"}))
    code, _, err = optnas_command("rank", file, *arguments)
    assert code == 2
    assert message in err


def test_settings_are_read_once_each() -> None:
    assert parse_settings(" c4r4s0e60, c0r0s1e30,c4r4s0e60,") == [
        Proxy(4, 4, 0, 60),
        Proxy(0, 0, 1, 30),
    ]
    assert parse_settings("") == []


def test_monotonicity_is_kendalls_tau_of_a_factor_with_the_others_fixed() -> None:
    rhos = {"c0r0s0e30": 0.5, "c1r0s0e30": 0.7, "c2r0s0e30": 0.6, "c0r0s0e40": 0.6}
    rhos |= {"c0r0s0e90": 0.8, "c0r1s0e30": 0.4, "c0r2s0e30": 0.3, "c0r3s0e30": 0.2}
    rhos |= {"c1r1s0e90": 0.1}
    found = _monotonicity([{"setting": s, "rho": rho} for s, rho in rhos.items()])
    assert found["e"] == {"mean": pytest.approx(1), "groups": {"c0r0s0e*": pytest.approx(1)}}
    assert found["r"]["mean"] == pytest.approx(-1)
    assert found["c"]["mean"] == pytest.approx(1 / 3)  # Two pairs of three rise.
    assert found["s"] == {"mean": None, "groups": {}}


def network(params: int, *accuracies: float) -> FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        value=max(accuracies),
        user_attrs={"params": params},
        intermediate_values=dict(enumerate(accuracies, start=1)),
    )


def test_dynamic_rankings_give_the_ith_smallest_network_i_epochs() -> None:
    trials = [
        network(300, 0.50, 0.60, 0.70),
        network(100, 0.40, 0.45, 0.50),
        network(200, 0.55, 0.65, 0.60),
        network(400, 0.10, 0.20, 0.30),  # More networks than epochs: in static rankings alone.
    ]
    found = _dynamic(trials, seed=0)
    assert found["points"] == [
        {"params": 100, "dynamic": 0.40, "final": 0.50},
        {"params": 200, "dynamic": 0.65, "final": 0.65},
        {"params": 300, "dynamic": 0.70, "final": 0.70},
    ]
    rhos = {name: entry["rho"] for name, entry in found["rankings"].items()}
    assert rhos["dynamic"] == pytest.approx(1)
    assert rhos["params_and_dynamic"] == pytest.approx(1)
    networks = {name: entry["networks"] for name, entry in found["rankings"].items()}
    assert networks["static_1_epoch"] == networks["params"] == len(trials) > networks["dynamic"]
    assert rhos["static_1_epoch"] == pytest.approx(0.8)  # 0.40, 0.55, 0.50 and 0.10.
    assert found["equal_epochs"] == 2


@pytest.mark.skipif(not SHARED.exists(), reason="the table is not here")
def test_a_table_of_one_setting_cannot_rank_another(tmp_path: Path) -> None:
    table = str(SHARED / "data" / "nasbench201_cifar10.npz")
    file = study_from_dict(
        {
            "study": "table",
            "space": "nasbench201",
            "sampler": "random",
            "objective": {"name": "tabular", "table": table, "column": "val_12ep"},
        },
        tmp_path,
    )
    with pytest.raises(UserError, match="does not follow reduced settings"):
        rank(file, networks=3, full_epochs=12, settings=SETTINGS)


def test_the_same_networks_are_trained_elsewhere(
    ranked: tuple[Path, Experiment, list[str]],
) -> None:
    folder, _, _ = ranked
    other = config(
        folder, study="other", data={"name": "digits", "classes": [0, 1]}, retrain={"epochs": 2}
    )
    experiment = rank(config(folder), networks=6, elsewhere=other)
    row = experiment.fields["elsewhere"]
    assert (row["setting"], row["networks"]) == ("other", 6)
    assert -1 <= row["pearson"] <= 1
    assert "Pearson" in experiment.text
    trained = studies(folder / "tiny.log")
    here, there = trained["tiny-rank-6-c0r0s0e4"], trained["other-rank-6-c0r0s0e2"]
    assert [t.params for t in here] == [t.params for t in there]


def test_a_setting_s_overfitting_is_shown(ranked: tuple[Path, Experiment, list[str]]) -> None:
    _, experiment, _ = ranked
    assert all(row["gap"] is not None for row in experiment.fields["settings"])
    assert all(-1 <= row["pearson"] <= 1 for row in experiment.fields["settings"])
