"""Drawings of architectures, on the trials that train them and in files."""

import itertools
import json
import re
import sys
import xml.etree.ElementTree as ET
from importlib import resources
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.artifacts import download_artifact, get_all_artifact_meta
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from optuna_dashboard import wsgi
from PIL import Image
from searches import GROWTH, growing, opened, trial

import optnas
from optnas.doctor.examination import diagnose
from optnas.drawing import attach as trial_drawings
from optnas.drawing.architectures import COLOURS, MODULE, REDUCTION, draw, picture
from optnas.drawing.attach import draw_best, with_drawings
from optnas.drawing.raster import png
from optnas.drawing.shapes import (
    DARK,
    FONTS,
    PAPER,
    SIZE,
    Box,
    Curve,
    Picture,
    Text,
    caption,
    captioned,
    contrast,
    readable_on,
    svg,
    text_width,
)
from optnas.errors import UserError
from optnas.pages.plots import GREY
from optnas.report.page import report_page
from optnas.running import runner
from optnas.spaces import (
    CellArchitecture,
    CellSpace,
    ChainArchitecture,
    ChainSpace,
    FaceArchitecture,
    FaceSpace,
    GrowthArchitecture,
    GrowthSpace,
    NasBench201Architecture,
    NasBench201Space,
    Row,
    StageArchitecture,
    StageSpace,
)
from optnas.spaces.nasbench201 import OPERATIONS
from optnas.storage.artifacts import open_artifacts

SVG = "{http://www.w3.org/2000/svg}"
CELL = (
    (("sep_conv_3x3", 0), ("max_pool_3x3", 1)),
    (("skip_connect", 2), ("none", 0)),
    (("dil_conv_5x5", 1), ("skip_connect", 1)),
)


def grown(architecture: GrowthArchitecture, rounds: int) -> GrowthArchitecture:
    """An architecture after so many rounds of growth."""
    space = GrowthSpace(architecture.cells, architecture.channels, architecture.mode)
    for seed in range(rounds):
        architecture = space.grow(architecture, seed)
    return architecture


def architectures() -> dict[str, object]:
    """Small, large, random and degenerate ones of every space."""
    rng = np.random.default_rng(0)
    return {
        "cell": CellSpace().random(rng),
        "cell of one node": CellSpace(1).random(rng),
        "cell of many nodes": CellSpace(10).random(rng),
        "nasbench201": NasBench201Space().random(rng),
        "nasbench201, nothing": NasBench201Architecture(("none",) * 6),
        "chain": ChainSpace(depth=(5, 15)).random(rng),
        "chain of one layer": ChainArchitecture(1, 1),
        "chain of two layers": ChainArchitecture(2, 300),
        "chain of many layers": ChainSpace(depth=(250, 250)).random(rng),
        "face": FaceSpace(depth=(20, 40)).random(rng),
        "small face network": FaceArchitecture(1, (1, 1, 1, 1), 1),
        "face network of many blocks": FaceArchitecture(64, (3, 13, 130, 3)),
        "stage": StageSpace().random(rng),
        "one stage": StageArchitecture((1,)),
        "many stages": StageArchitecture((3, 1, 4, 1, 5, 9, 2, 6), "nasnet"),
        "long stage": StageArchitecture((200, 1), "bottleneck"),
        "growth, initial": GrowthArchitecture(1, 1),
        "growth": grown(GrowthArchitecture(2, 4), 3),
        "growth of cells, initial": GrowthArchitecture(3, 4, "cell"),
        "growth of cells": grown(GrowthArchitecture(3, 4, "cell"), 3),
    }


ALL = architectures()
every_kind = pytest.mark.parametrize("architecture", ALL.values(), ids=ALL)


def texts(architecture, **options) -> list[str]:
    return [
        e.text for e in ET.fromstring(svg(picture(architecture, **options))).iter(f"{SVG}text")
    ]


def boxes(drawing: Picture) -> list[Box]:
    return [shape for shape in drawing.shapes if isinstance(shape, Box)]


def extents(drawing: Picture) -> list[tuple[float, float, float, float]]:
    """Left, upper, right and lower ends of every box, and of every text that is not in one."""
    found = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in boxes(drawing)]
    for shape in drawing.shapes:
        if isinstance(shape, Text) and shape.anchor == "start":
            width, half = text_width(shape.text, shape.size), shape.size / 2
            found.append((shape.x, shape.y - half, shape.x + width, shape.y + half))
    return found


@every_kind
def test_nothing_overlaps_and_nothing_is_cut_off(architecture):
    drawing = picture(architecture)
    found = extents(drawing)
    for left, top, right, bottom in found:
        assert left >= 0
        assert top >= 0
        assert right <= drawing.width
        assert bottom <= drawing.height
    for index, (left, top, right, bottom) in enumerate(found):
        for other in found[:index]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart, (found[index], other)


@every_kind
def test_a_text_has_room_in_its_box(architecture):
    for box in boxes(picture(architecture)):
        assert text_width(box.text) <= box.width + 1, box.text


@every_kind
def test_the_same_architecture_gives_the_same_bytes(architecture):
    again = type(architecture).from_json(architecture.to_json())
    assert svg(picture(architecture)) == svg(picture(again))
    assert png(picture(architecture)) == png(picture(again))


@every_kind
def test_files_are_what_their_names_say(architecture, tmp_path):
    for name in ("a.svg", "a.PNG"):
        optnas.draw(architecture, tmp_path / name)
    root = ET.parse(tmp_path / "a.svg").getroot()
    assert root.tag == f"{SVG}svg"
    with Image.open(tmp_path / "a.PNG") as image:
        assert image.format == "PNG"
        shape = (float(root.get("width")), float(root.get("height")))
        assert image.width / image.height == pytest.approx(shape[0] / shape[1], rel=0.02)
        assert image.width * image.height <= 8.1e6
        assert len(set(image.convert("L").tobytes())) > 2


def test_a_cell_shows_its_operations_and_where_it_ends():
    architecture = CellArchitecture(CELL, CELL[::-1][:1] + CELL[:1] + CELL[1:2])
    normal = texts(architecture)
    normal = normal[: normal.index("Reduction cell")]
    operations = [operation.replace("_", " ") for node in CELL for operation, _ in node]
    assert sorted(t for t in normal if " " in t and t[:4] not in ("cell", "Norm")) == sorted(
        o for o in operations if " " in o
    )
    assert normal.count("none") == 1
    assert {"cell k-2", "cell k-1", "cell k", "0", "1", "2"} <= set(normal)


@pytest.mark.parametrize(("concat", "lines"), [("loose", 2), ("all", 3)])
def test_the_output_takes_the_nodes_that_the_network_does(concat, lines):
    drawing = picture(CellArchitecture(CELL, CELL), concat)
    outputs = [box for box in boxes(drawing) if box.text == "cell k"]
    assert len(outputs) == 2
    tips = [shape.tip for shape in drawing.shapes if getattr(shape, "tip", None)]
    for box in outputs:
        near = [
            (x, y)
            for x, y in tips
            if box.x - 2 <= x <= box.x + box.width and box.y - 2 <= y <= box.y + box.height + 2
        ]
        assert len(near) == lines


def test_a_chain_has_a_block_for_every_layer_in_the_colour_of_its_operation():
    architecture = ChainArchitecture(
        6, 8, ("conv", *["separable"] * 4, "conv"), (3, 5, 7, 3, 3, 5)
    )
    drawing = picture(architecture)
    signs = [box.text for box in boxes(drawing) if box.text]
    assert signs == ["c3", "s5", "s7", "s3", "s3", "c5", *sorted(set(signs))]  # The legend last.
    layers = [box for box in boxes(drawing) if box.text][:6]
    legend = {}
    for shape, following in zip(drawing.shapes, drawing.shapes[1:], strict=False):
        if isinstance(shape, Box) and isinstance(following, Text) and following.size == SIZE:
            legend[following.text] = shape.fill
    named = zip(architecture.operations, architecture.kernels, strict=True)
    expected = [legend[f"{operation} {kernel}x{kernel}"] for operation, kernel in named]
    assert [box.fill for box in layers] == expected
    assert len(set(legend.values())) == len(legend) == 5
    heights, widths = [box.height for box in layers], [box.width for box in layers]
    assert heights == sorted(heights, reverse=True)
    assert widths == sorted(widths)
    assert len(set(heights)) == len(set(widths)) == 3


def test_long_chains_wrap_and_lose_no_layer():
    architecture = ChainArchitecture(250, 16)
    drawing = picture(architecture)
    assert sum(bool(box.text) for box in boxes(drawing)) == 250 + 1  # One in the legend.
    assert drawing.width < 1200


def test_stages_have_a_block_for_every_module():
    for block, extra in (("basic", 0), ("bottleneck", 0), ("nasnet", 2)):
        drawing = picture(StageArchitecture((3, 40, 2), block))
        # The stem, the classifier and two colours in the legend.
        assert len(boxes(drawing)) == 45 + extra + 4
        # Told without colours, too: two modules that halve the resolution, and the legend's.
        assert [box.text for box in boxes(drawing) if box.text] == ["/2"] * 3


def test_a_network_that_grew_shows_its_increments_and_what_they_take():
    architecture = grown(GrowthArchitecture(2, 4), 2)
    drawing = picture(architecture)
    said = {box.text: box for box in boxes(drawing)}
    assert {f"+{n + 1}" for n in range(len(architecture.increments))} <= said.keys()
    assert {"stem, 12 ch.", "cell 1, 4 ch.", "cell 8, 16 ch.", "classifier"} <= said.keys()
    halving = {f"cell {n}, {architecture.layer_channels(n)} ch., /2" for n in (3, 6)}
    assert {text for text in said if text.endswith("ch., /2")} == halving
    for number, each in enumerate(architecture.increments, start=1):
        cell = next(b for name, b in said.items() if name.startswith(f"cell {each.target},"))
        beside = said[f"+{number}"]  # Where it attaches.
        assert cell.y <= beside.y < beside.y + beside.height <= cell.y + cell.height
        row = [b for b in boxes(drawing) if b.y == beside.y and b is not beside and b is not cell]
        assert [b.text.partition(" of ")[0] for b in row] == [
            o.replace("_", " ") for o in each.operations
        ]
        for box, operation in zip(row, each.operations, strict=True):  # By shape, too.
            assert box.dashed == (operation == "identity")
            assert (box.radius > 5) == ("pool" in operation)


@every_kind
def test_every_text_can_be_read_on_what_it_stands_on(architecture):
    for shape in picture(architecture).shapes:
        if isinstance(shape, Box) and shape.text:
            assert contrast(caption(shape).colour, shape.fill) >= 4.5, shape
        elif isinstance(shape, Text | Curve):
            assert contrast(shape.colour, PAPER) >= 4.5, shape


def test_every_colour_of_the_palette_can_be_written_on():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    for colour in (*COLOURS.values(), MODULE, REDUCTION, DARK, PAPER):
        assert contrast(readable_on(colour), colour) >= 4.5, colour


def test_what_others_call_their_own_is_no_markup(tmp_path):
    hostile = Picture(9, 9, (Text(0, 0, "</svg><script>alert(1)</script>"),))
    assert [e.tag for e in ET.fromstring(svg(hostile))] == [f"{SVG}rect", f"{SVG}text"]


def test_an_own_kind_of_chain_is_drawn_as_a_chain_and_others_can_be_registered(tmp_path):
    class Residual(ChainArchitecture):
        pass

    assert svg(picture(Residual(3, 4))) == svg(picture(ChainArchitecture(3, 4)))

    class Numbered(Row):
        pass

    picture.register(Numbered, lambda architecture, concat: Picture(9, 9, ()))
    draw(Numbered(1), tmp_path / "a.svg")
    assert ET.parse(tmp_path / "a.svg").getroot().get("width") == "9"


@pytest.mark.parametrize("name", ["a.pdf", "a", "svg"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"end its name in \.svg or \.png"):
        draw(ALL["chain"], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_drawn_or_written_is_one_message(tmp_path):
    with pytest.raises(UserError, match="there is no drawing of a Row"):
        draw(Row(3), tmp_path / "a.svg")
    with pytest.raises(UserError, match="cannot be written: No such file or directory"):
        draw(ALL["chain"], tmp_path / "none" / "a.svg")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        draw(ALL["chain"], tmp_path / "a.png")
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def drawings(study: optuna.Study, number: int) -> list[str]:
    """The names of the drawings on a trial."""
    trial = study.trials[number]
    found = get_all_artifact_meta(trial, storage=study._storage)
    return sorted(meta.filename for meta in found)


DRAWN = ["architecture.svg"]


def searched(found, objective) -> None:
    """One trial of a study, with its drawings, as a worker runs it."""
    store = open_artifacts(found.config.artifacts)
    found.study.optimize(with_drawings(objective, found, store), n_trials=1, catch=(OSError,))


@pytest.mark.parametrize("space", ["chain", "cell", "nasbench201", "stage", "growth"])
def test_every_trial_of_every_space_is_drawn(space, tmp_path):
    keys = {"name": space, **({"cells": 1, "channels": 4} if space == "growth" else {})}
    found = opened(tmp_path, space=keys)
    space = found.config.make_space()
    searched(found, lambda trial: float(bool(space.suggest(trial))))
    study = found.study
    assert drawings(study, 0) == DRAWN
    store = open_artifacts(found.config.artifacts)
    for meta in get_all_artifact_meta(study.trials[0], storage=study._storage):
        path = tmp_path / meta.filename
        download_artifact(artifact_store=store, artifact_id=meta.artifact_id, file_path=str(path))
        drawn = path.read_text()
        plain = svg(picture(space.named_by(study.trials[0]))).splitlines()
        assert set(plain[2:-1]) <= set(drawn.splitlines())  # All but the paper.
        counted = "([0-9,]+ parameters, )?"  # What cells have the network says that is built.
        assert re.search(f">{counted}accuracy 1.0000</text>", drawn)
        assert meta.mimetype == "image/svg+xml"


def test_pruned_trials_are_drawn_and_those_without_an_architecture_are_not(tmp_path):
    found = opened(tmp_path, space="nasbench201")
    space = found.config.make_space()

    def pruned(trial):
        space.suggest(trial)
        raise optuna.TrialPruned

    def unnamed(trial):
        return float(trial.suggest_categorical("phase", ["topology", "architecture"]) != "")

    def failed(trial):
        space.suggest(trial)
        raise OSError("gone")

    for objective in (pruned, unnamed, failed):
        searched(found, objective)
    assert [t.state for t in found.study.trials] == [
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.FAIL,
    ]
    assert [drawings(found.study, n) for n in range(3)] == [DRAWN, [], []]


def test_a_trial_outlives_its_drawing(tmp_path, monkeypatch):
    found = opened(tmp_path, space="nasbench201")
    space = found.config.make_space()

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(open_artifacts(tmp_path / "made.artifacts")), "write", full)
        with pytest.warns(UserWarning, match="The drawing was not stored: .*No space left"):
            searched(found, lambda trial: float(bool(space.suggest(trial))))
    monkeypatch.setattr(trial_drawings, "picture", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="The architecture was not drawn: ZeroDivisionError"):
        searched(found, lambda trial: float(bool(space.suggest(trial))))
    assert [t.value for t in found.study.trials] == [1.0, 1.0]


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "table.npz"
    cells = itertools.product(OPERATIONS, repeat=6)
    names = np.array([str(NasBench201Architecture(cell)) for cell in cells])
    np.savez(path, arch=names, accuracy=np.linspace(0, 1, len(names)))
    return path


def test_a_run_leaves_drawings_that_the_dashboard_shows_and_the_doctor_lets_be(table, tmp_path):
    found = runner.run(
        {
            "study": "tabular",
            "storage": f"sqlite:///{tmp_path}/tabular.db",
            "artifacts": str(tmp_path / "kept"),
            "space": "nasbench201",
            "sampler": "random",
            "data": "digits",
            "objective": {"name": "tabular", "table": str(table), "column": "accuracy"},
            "budget": {"trials": 3},
        }
    ).opened
    study, store = found.study, open_artifacts(found.config.artifacts)
    assert [drawings(study, number) for number in range(3)] == [DRAWN] * 3
    before = dict(store.items())
    assert len(before) == 3
    _, treated = diagnose(found.config.storage, fix=True)
    assert "orphans" not in {each.finding.kind for each in treated}
    assert dict(store.items()) == before

    app, answered = wsgi(study._storage, store), []
    trial = study.trials[1]
    for meta in get_all_artifact_meta(trial, storage=study._storage):
        path = f"/artifacts/{study._study_id}/{trial._trial_id}/{meta.artifact_id}"
        environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "wsgi.errors": sys.stderr}
        body = b"".join(app(environ, lambda status, *_: answered.append(status)))
        assert len(body) == before[meta.artifact_id]
    assert answered == ["200 OK"]


def test_the_best_network_is_drawn_to_a_file(tmp_path, optnas_command):
    found = opened(tmp_path, growing(), space={"name": "growth", "cells": 1, "channels": 4})
    storage, path = f"sqlite:///{tmp_path}/made.db", tmp_path / "best.svg"
    code, out, err = optnas_command("best", storage, "--draw", path)
    assert (code, err) == (0, "")
    assert out.endswith(f"\ndrawn in {path}\n")
    best = GROWTH.from_trial(found.study.best_trial)
    said = f"{best.num_params(1, 10):,} parameters, accuracy {found.study.best_value:.4f}"
    drawn = captioned(picture(best), said)
    assert path.read_text() == svg(drawn)
    code, out, _ = optnas_command("best", storage, "--draw", tmp_path / "best.png", "--json")
    assert json.loads(out)["found"][0]["trial"] == found.study.best_trial.number
    assert (tmp_path / "best.png").read_bytes() == png(drawn)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.jpg", "a drawing is an SVG or a PNG file"),
        ("none/a.svg", "cannot be written"),
        ("a.svg", "no network has been trained yet"),
    ],
)
def test_no_drawing_is_one_message(name, message, tmp_path, optnas_command):
    opened(tmp_path, [] if name == "a.svg" else [trial(0, 0.5)])
    storage = f"sqlite:///{tmp_path}/made.db"
    code, out, err = optnas_command("best", storage, "--draw", tmp_path / name)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert {path.suffix for path in tmp_path.iterdir()} <= {".db", ".db-shm", ".db-wal"}


def test_cells_are_drawn_as_their_networks_are_built(tmp_path):
    space = CellSpace()
    architecture = space.random(np.random.default_rng(1))
    params = space.to_params(architecture)
    made = optuna.trial.create_trial(value=0.5, params=params, distributions=space.distributions())
    for concat in ("loose", "all"):
        (tmp_path / concat).mkdir()
        found = opened(tmp_path / concat, [made], space="cell", network={"concat": concat})
        draw_best(found, tmp_path / f"{concat}.svg")
        expected = svg(captioned(picture(architecture, concat), "accuracy 0.5000"))
        assert (tmp_path / f"{concat}.svg").read_text() == expected
        assert expected in report_page(found, "made.yaml")


def test_the_page_does_without_a_drawing(tmp_path):
    phase = {"phase": CategoricalDistribution(["topology"])}
    made = optuna.trial.create_trial(value=0.5, params={"phase": "topology"}, distributions=phase)
    found = opened(tmp_path, [made], space="cell")
    page = report_page(found, "made.yaml")
    assert f'font-family="{FONTS}"' not in page
    assert "trial 0 names no architecture" in page


def test_the_colours_of_pages_and_plots_can_be_read_on_light_and_dark():
    style = resources.files("optnas.pages").joinpath("templates/style.css").read_text()
    light, dark, *_ = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for theme in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))
        for text in ("ink", "quiet", "link", "grey"):
            assert contrast(colours[text], colours["paper"]) >= 4.5, text
        for line in (name for name in colours if re.fullmatch(r"c\d", name)):
            assert contrast(colours[line], colours["paper"]) >= 3, line  # It is no text.
    for paper in ("#ffffff", "#000000"):
        assert contrast(GREY, paper) >= 4.5
