"""What a study has seen of its data: said, recorded, compared; `optnas data`, `optnas init`."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from optnas.cli.commands import app
from optnas.errors import UserError
from optnas.running.retraining import retrain_found
from optnas.running.runner import run
from optnas.study import data as study_data
from optnas.study.data import DATA, ChangedData, data_seen_by_study, seen_lines
from optnas.study.opening import open_existing

STUDY = """
study: own
data: {{name: images, root: {root}, size: 8}}
sampler: random
space: {{depth: [2, 3], width: [4, 5]}}
train: {{epochs: 1}}
retrain: {{epochs: 1}}
budget: {{trials: {trials}}}
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pets")
    return tmp_path


def write(root, classes=("cat", "dog"), count=15, seed=0):
    rng = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 60, (9, 9, 3), dtype=np.uint8)
            pixels[:, :, label % 3] += 150
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def go(place, root="pets", trials=1, **options):
    (place / "s.yaml").write_text(STUDY.format(root=root, trials=trials))
    return run(place / "s.yaml", **options).opened


def test_the_reading_is_recorded_and_said(place):
    handle = go(place)
    lines = seen_lines(handle.study)
    assert lines[0] == "data 'images': 2 classes; 20 training, 4 validation, 6 test images"
    assert lines[1] == "classes: cat 15, dog 15"
    assert lines[2] == "images: 9x9 (30); RGB 30, squashed to 8x8 in 3 channels"
    result = CliRunner().invoke(app, ["status", "s.yaml"])
    assert "data     data 'images': 2 classes" in result.output
    fields = json.loads(CliRunner().invoke(app, ["status", "s.yaml", "--json"]).output)
    assert fields["data"]["counts"]["test"] == [3, 3]


def test_the_lines_come_before_the_first_trial(place):
    (place / "s.yaml").write_text(STUDY.format(root="pets", trials=1))
    output = CliRunner().invoke(app, ["run", "s.yaml"]).output.splitlines()
    assert output[1].startswith("data 'images'")
    # The images, the classes, how images are made ready, and what is ahead.
    assert [line[:5] for line in output].index("trial") == 5
    events = CliRunner().invoke(app, ["run", "s.yaml", "--json"]).output.splitlines()
    assert json.loads(events[0])["data"]["class_names"] == ["cat", "dog"]


def test_the_same_images_elsewhere_go_on(place):
    go(place)
    (place / "pets").rename(place / "moved")
    handle = go(place, "moved", 2)
    assert seen_lines(handle.study)[-1].startswith("the same images as before, which were in")


def edits(place):
    def more():
        write(place / "new", count=1, seed=9)
        shutil.move(place / "new" / "cat" / "0.png", place / "pets" / "cat" / "new.png")

    def fewer():
        (place / "pets" / "cat" / "3.png").unlink()

    def changed():
        shutil.copy(place / "pets" / "dog" / "3.png", place / "pets" / "cat" / "3.png")

    def relabelled():
        for number in (1, 2):
            a, b = (place / "pets" / c / f"{number}.png" for c in ("cat", "dog"))
            a.rename(place / "t.png"), b.rename(a), (place / "t.png").rename(b)

    def renamed():
        (place / "pets" / "cat").rename(place / "pets" / "zebra")

    def others():
        shutil.rmtree(place / "pets")
        write(place / "pets", seed=7)

    return locals()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("more", "\n  1 image more\n"),
        ("fewer", "\n  1 image fewer\n"),
        ("changed", "\n  1 image changed\n"),
        ("relabelled", r"\n  4 labels moved \(cat to dog 2, dog to cat 2\)\n"),
        ("renamed", "\n  classes: cat became zebra\n"),
        ("others", "\n  30 images changed\n"),
    ],
)
def test_other_data_is_refused_with_the_difference_unless_accepted(place, name, message):
    handle = go(place)
    edits(place)[name]()
    before = dict(handle.study.user_attrs)
    with pytest.raises(ChangedData, match=message):
        go(place, trials=2)
    assert open_existing("s.yaml").study.user_attrs == before
    with pytest.raises(ChangedData, match=message):
        list(retrain_found(open_existing("s.yaml")))
    handle = go(place, trials=2, accept_changed_data=True)
    assert seen_lines(handle.study)[-1].startswith("changed data accepted before trial 1: ")
    handle = go(place, trials=3)
    assert len(handle.study.trials) == 3
    assert len(handle.study.user_attrs[DATA]["accepted"]) == 1


def test_an_image_that_is_known_keeps_its_split(place):
    def splits():
        rows = study_data_rows(open_existing("s.yaml"))
        return dict(zip(rows["content"].tolist(), rows["split"].tolist(), strict=True))

    go(place)
    before = splits()
    write(place / "new", count=8, seed=9)
    for label in ("cat", "dog"):
        for number in range(8):
            source = place / "new" / label / f"{number}.png"
            shutil.move(source, place / "pets" / label / f"a{number}.png")
        (place / "pets" / label / "5.png").unlink()
    go(place, trials=2, accept_changed_data=True)
    after = splits()
    assert len(after) == 46
    assert all(after[content] == split for content, split in before.items())


def study_data_rows(handle):
    from optnas.objectives.data.reading import membership_of

    return membership_of(data_seen_by_study(handle).record).rows


def test_a_long_list_of_images_is_an_artifact(place, monkeypatch):
    monkeypatch.setattr(study_data, "INLINE", 10)
    handle = go(place)
    assert set(handle.study.user_attrs[DATA]["images"]) == {"sha256"}
    assert len(study_data_rows(handle)) == 30
    (artifact,) = (place / "own.artifacts").glob("images-*")
    artifact.write_bytes(b"something else")
    with pytest.raises(UserError, match="missing or damaged"):
        go(place, trials=2)
    artifact.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        go(place, trials=2)


@pytest.mark.parametrize(
    "images",
    [
        "text",
        {},
        {"sha256": "../../etc/passwd"},
        {"sha256": 3},
        {"sha256": "0" * 64, "inline": "!"},
        {"sha256": "a" * 64},
    ],
)
def test_a_stored_list_that_somebody_wrote_is_refused_in_one_line(place, images):
    handle = go(place)
    stored = handle.study.user_attrs[DATA]
    handle.study.set_user_attr(DATA, {**stored, "images": images})
    with pytest.raises(UserError, match="missing or damaged"):
        go(place, trials=2)


def test_stored_lines_control_no_terminal(place):
    handle = go(place)
    stored = handle.study.user_attrs[DATA]
    stored["reading"]["lines"][0] = "\x1b[2Jgone\n\u202e"
    stored["accepted"] = [{"trials": 3, "changes": ["\x07"]}, "text"]
    handle.study.set_user_attr(DATA, stored)
    lines = seen_lines(handle.study)
    assert lines[0] == r"\x1b[2Jgone\n\u202e"
    assert lines[-1] == r"changed data accepted before trial 3: \x07"


def test_functions_and_known_sets_are_recognised_too(place):
    (place / "mine.py").write_text(
        "import numpy as np\n"
        "x = np.random.default_rng(0).integers(0, 255, (40, 6, 6), dtype='uint8')\n"
        "y = [0, 1] * 20\n"
        "def load():\n"
        "    import os\n"
        "    flip = bool(os.path.exists('flip'))\n"
        "    return x[:30, ::-1] if flip else x[:30], y[:30], x[30:], y[30:]\n"
    )
    keys = {
        "study": "arrays",
        "data": "mine:load",
        "sampler": "random",
        "space": {"depth": [2, 3], "width": [4, 5]},
        "train": {"epochs": 1},
        "budget": {"trials": 1},
    }
    run(keys)
    (place / "flip").touch()
    with pytest.raises(ChangedData, match="30 images changed"):
        run({**keys, "budget": {"trials": 2}})
    digits = {**keys, "study": "digits", "data": {"name": "digits", "classes": [0, 1]}}
    handle = run(digits).opened
    record = handle.study.user_attrs[DATA]
    assert "images" not in record
    record["reading"]["digest"] = "0" * 64
    handle.study.set_user_attr(DATA, record)
    with pytest.raises(ChangedData, match="as many images as before, with other pixels"):
        run({**digits, "budget": {"trials": 2}})


def test_a_study_of_version_0_1_keeps_its_reading(place):
    """Its configuration does not say by which rules: they were those of version 0.1."""
    handle = go(place)
    record = handle.study.user_attrs["optnas"]
    data = {k: v for k, v in record["config"]["data"].items() if k in ("name", "root", "size")}
    config = {**record["config"], "data": {**data, "download": False, "samples": 1.0}}
    handle.study.set_user_attr("optnas", {**record, "config": config})
    handle.study.set_user_attr(DATA, None)
    with pytest.warns(UserWarning, match=r"kept from when the study was made: .*data\.reading 1"):
        again = go(place, trials=2)
    assert again.config.data.reading == 1
    assert again.study.user_attrs[DATA]["reading"]["counts"]["test"] == [3, 3]
    assert "images" not in again.study.user_attrs[DATA]


def test_data_says_everything_and_exits_2_where_nothing_can_be_trained(place):
    (place / "pets" / "cat" / "0.png").write_bytes(b"")
    (place / "pets" / "dog" / "1.png").write_bytes(b"<html>")
    command = [sys.executable, "-c", "from optnas.cli import main; main()", "data", "s.yaml"]
    (place / "s.yaml").write_text(STUDY.format(root="pets", trials=1))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cat/0.png: the file is empty" in done.stderr
    assert "dog/1.png: it is text" in done.stderr
    shutil.rmtree(place / "pets")
    write(place / "pets", count=25)
    shutil.copy(place / "pets" / "cat" / "0.png", place / "pets" / "cat" / "twin.png")
    (place / "pets" / "dog" / "1.png").write_bytes(b"<html>")
    text = CliRunner().invoke(app, ["data", "s.yaml"]).output
    assert "unreadable (1):\n  dog/1.png: it is text, such as a web page or SVG" in text
    assert "  cat/0.png = cat/twin.png" in text
    assert not (place / "own.db").exists()
    fields = json.loads(CliRunner().invoke(app, ["data", "s.yaml", "--json"]).output)
    assert fields["twins"]["within"] == 2
    assert fields["changes"] is None


def test_init_writes_a_file_of_ones_own_images_that_runs(place):
    (place / "studies").mkdir()
    arguments = ["init", "studies/mine.yaml", "--full", "--data", "images", "--root", "pets"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    text = (place / "studies" / "mine.yaml").read_text()
    assert "  root: ../pets\n" in text or '  root: "../pets"\n' in text
    for key in ("labels", "resize", "background", "unreadable", "layout", "channels", "stream"):
        assert f"  #{key}: " in text
    result = CliRunner().invoke(app, ["data", "studies/mine.yaml"])
    assert result.exit_code == 0
    assert "2 classes" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "images"], "needs --root"),
        (["--data", "images", "--root", "nowhere"], "--root nowhere does not exist"),
        (["--data", "images", "--root", "s.txt"], "--root s.txt is no folder"),
    ],
)
def test_init_says_what_is_missing(place, arguments, message):
    (place / "s.txt").write_text("")
    result = CliRunner().invoke(app, ["init", "x.yaml", *arguments])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert not (place / "x.yaml").exists()


def test_a_root_that_does_not_exist_says_so(place):
    with pytest.raises(UserError, match=r"folder of images per class: .*nowhere does not exist"):
        go(place, "nowhere")
    assert not (place / "own.db").exists()
