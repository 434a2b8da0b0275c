"""Whatever a storage holds, commands end without a traceback, and touch nothing of others'."""

import itertools
import json
import random
import shutil
import sqlite3
from pathlib import Path

import damaging
import pytest
from damaging import command, contents, damage_attribute, damage_bytes, damage_rows, fresh
from optuna.distributions import FloatDistribution

import optnas
from optnas.storage.opening import open_storage
from optnas.trials.damage import DamagedError, _are_numbers, fits
from optnas.trials.failures import is_grounds, one_line

STUDY = """\
study: ward
space: cell
sampler: {name: econas, initial: 4}
objective: {name: "napping:Nap", seconds: 0}
budget: {trials: 6}
"""
READING = (("status",), ("best", "--json"), ("doctor",))
HARMS = {"rows": damage_rows, "attributes": damage_attribute, "bytes": damage_bytes}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    shutil.copy(Path(__file__).parents[1] / "benchmarks" / "napping.py", folder)
    (folder / "ward.yaml").write_text(STUDY)
    optnas.run(folder / "ward.yaml")
    (folder / "journal.yaml").write_text(STUDY + "storage: journal:///ward.log\n")
    optnas.run(folder / "journal.yaml")
    return folder


def check(folder: Path, name: str, harm: str, *commands: tuple[str, ...]) -> None:
    for verb, *options in commands:
        code, said, trace = command(verb, str(folder / name), *options)
        assert trace is None, (harm, verb, trace)
        assert code in (0, 1, 2), (harm, verb, said)
        assert "Traceback" not in said, (harm, verb, said)
        assert "\x1b" not in said, (harm, verb, said)


@pytest.mark.parametrize(
    "value", [{"x": [1, 10**400]}, [-(10**400)], [True], ["1"], [float("nan")], [float("inf")]]
)
def test_numbers_that_nobody_could_have_written_are_none(value):
    assert not _are_numbers(value)
    assert _are_numbers([10**300, -(10**300), 0.5])
    assert not fits(FloatDistribution(0, 1), 10**400)


@pytest.mark.parametrize("kind", HARMS)
def test_a_damaged_database_is_read_or_refused(healthy, tmp_path, kind):
    rng = random.Random(kind)
    for _ in range(8):
        folder = fresh(healthy, tmp_path / "study")
        (folder / "thesis.tex").write_text("years of work")
        harm = HARMS[kind](folder / "ward.db", rng)
        before = {n: c for n, c in contents(folder).items() if "ward.db" not in n}
        check(folder, "ward.yaml", harm, *READING)
        after = contents(folder)
        assert {name: after.get(name) for name in before} == before, harm


def test_a_damaged_journal_is_read_or_refused(healthy, tmp_path):
    rng = random.Random("journal")
    for _ in range(8):
        folder = fresh(healthy, tmp_path / "study")
        harm = damage_bytes(folder / "ward.log", rng)
        check(folder, "journal.yaml", harm, *READING)


def test_the_doctor_lists_every_damaged_line_of_a_journal(healthy, tmp_path):
    folder = fresh(healthy, tmp_path / "study")
    journal = folder / "ward.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    harms = {40: b"ward\n", 60: b"\xff\xfe\n", 90: b'{"op_code": 5}\n', 120: b"[]\n"}
    for index, harm in harms.items():
        lines[index] = harm
    journal.write_bytes(b"".join(lines))
    code, said, trace = command("doctor", str(folder / "journal.yaml"))
    assert (code, trace) == (1, None), said
    told = [
        int(line.split()[2]) for line in said.splitlines() if "of the journal is damaged" in line
    ]
    assert told == [41, 61, 91, 121]
    code, said, _ = command("status", str(folder / "journal.yaml"))
    assert code == 2
    assert "line 41 of the journal is damaged" in said
    assert journal.read_bytes() == b"".join(lines)


def test_every_field_of_a_journal_may_hold_anything(healthy, tmp_path):
    """Of each kind of operation one line, with each of its fields replaced, or gone."""
    path = fresh(healthy, tmp_path / "study") / "ward.log"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    last = {log["op_code"]: index for index, log in enumerate(lines)}
    assert len(last) > 7
    odd = ({"id": "thesis.tex"}, ["x"], None, True, 1.5, "1", 10**30, ...)
    refused = 0
    for index, value in itertools.product(last.values(), odd):
        for key in lines[index]:
            log = lines[index] | {key: value}
            if value is ...:
                del log[key]
            changed = [*lines[:index], log, *lines[index + 1 :]]
            path.write_text("".join(json.dumps(each) + "\n" for each in changed))
            try:
                storage = open_storage(f"journal:///{path}", create=False)
                for study in storage.get_all_studies():
                    storage.get_all_trials(study._study_id)
            except DamagedError:
                refused += 1
    assert refused > 100


def test_a_damaged_search_goes_on_or_is_refused(healthy, tmp_path):
    rng = random.Random("run")
    for _ in range(4):
        folder = fresh(healthy, tmp_path / "study")
        harm = damage_attribute(folder / "ward.db", rng)
        check(folder, "ward.yaml", harm, ("run",))


@pytest.mark.parametrize(
    ("error", "grounds"),
    [
        (OSError(28, "No space left on device"), True),
        (ConnectionResetError(), True),
        (ValueError("a network that cannot be"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (MemoryError(), False),
        (ZeroDivisionError(), False),
    ],
)
def test_whose_failure_an_error_is(error, grounds):
    assert is_grounds(error) is grounds


def test_a_drivers_error_is_the_grounds():
    import sqlalchemy
    from optuna.exceptions import StorageInternalError

    locked = sqlite3.OperationalError("database is locked")
    wrapped = sqlalchemy.exc.OperationalError("UPDATE", {}, locked)
    told = StorageInternalError("An exception is raised during the commit.")
    assert all(map(is_grounds, (locked, wrapped, told)))
    # What Optuna says of any commit is not what went wrong.
    told.__cause__ = wrapped
    assert one_line(told) == "OperationalError: (sqlite3.OperationalError) database is locked"


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    damaging.prepare(folder)
    return folder


@pytest.mark.parametrize("verb", ["status", "best", "doctor", "report", "run"])
def test_a_trials_number_that_is_none_is_told(healthy, tmp_path, verb):
    folder = fresh(healthy, tmp_path / "study")
    with sqlite3.connect(folder / "ward.db") as connection:
        connection.execute("UPDATE trials SET number = 'FAIL' WHERE number = 2")
    connection.close()
    code, said, trace = command(verb, str(folder / "ward.yaml"))
    assert (code, trace) == (2, None)
    assert "has a damaged number: expected a whole number" in said


@pytest.mark.parametrize("verb", ["status", "best", "doctor", "report", "run"])
@pytest.mark.parametrize(
    "change",
    [
        "trial_values SET value = 'RUNNING' WHERE trial_value_id = 3",
        "trial_intermediate_values SET intermediate_value = '{' WHERE trial_id = 3",
        "trial_intermediate_values SET step = '1e999' WHERE trial_id = 3",
    ],
)
def test_texts_for_numbers_are_told_or_not_asked_for(healthy, tmp_path, verb, change):
    folder = fresh(healthy, tmp_path / "study")
    with sqlite3.connect(folder / "ward.db") as connection:
        connection.execute(f"UPDATE {change}")
    connection.close()
    check(folder, "ward.yaml", change, (verb,))


def without_a_time(folder: Path) -> None:
    with sqlite3.connect(folder / "ward.db") as connection:
        connection.execute("UPDATE trials SET datetime_start = 'yesterday' WHERE number = 2")
    connection.close()


@pytest.mark.parametrize(("verb", "ends"), [("run", 2), ("doctor", 1)])
def test_a_time_that_is_none_is_told(healthy, tmp_path, verb, ends):
    folder = fresh(healthy, tmp_path / "study")
    without_a_time(folder)
    code, said, trace = command(verb, str(folder / "ward.yaml"))
    assert (code, trace) == (ends, None)
    assert "trial 2: what is stored as 'datetime_start' is damaged: expected a time" in said


@pytest.mark.parametrize("verb", ["status", "best"])
def test_a_time_that_nobody_asks_for_changes_no_answer(healthy, tmp_path, verb):
    folder = fresh(healthy, tmp_path / "study")
    before = command(verb, str(folder / "ward.yaml"))
    without_a_time(folder)
    assert command(verb, str(folder / "ward.yaml")) == before
    assert before[0] == 0


@pytest.mark.parametrize("kind", damaging.MUTATIONS)
def test_every_command_reads_a_damaged_study_or_refuses_it(studies, tmp_path, kind):
    """`make stress` damages two thousand."""
    for number in range(2):
        assert damaging.mutate(kind, number, studies, tmp_path / "study") == []
