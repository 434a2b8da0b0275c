"""The picture of README.md: a search, and the network that it found.

    python docs/site/picture.py studies/digits.yaml docs/pictures/digits.svg

It shows the study as it is stored: run it first.
"""

import io
import re
import sys
import tempfile
from pathlib import Path

import matplotlib
from matplotlib import pyplot
from optuna.trial import TrialState

import optnas

COLOURS = {
    "depth": "#00796b",
    "width": "#1565c0",
    "baseline": "#616161",
    "operations": "#ef6c00",
    "kernels": "#8e24aa",
}


def main(study_file: str, path: str) -> None:
    study = optnas.open(study_file)
    trials = [t for t in study.optuna.trials if t.state == TrialState.COMPLETE]
    matplotlib.rcParams.update({"svg.hashsalt": "optnas", "svg.fonttype": "none", "font.size": 11})
    matplotlib.rcParams["font.family"] = ["Arial", "Helvetica", "sans-serif"]
    figure, (accuracy, params) = pyplot.subplots(1, 2, figsize=(10, 3), layout="constrained")
    for phase, colour in COLOURS.items():
        own = [t for t in trials if t.user_attrs["phase"] == phase]
        numbers = [t.number for t in own]
        accuracy.scatter(numbers, [100 * t.value for t in own], color=colour, label=phase)
        params.scatter(numbers, [t.user_attrs["params"] / 1000 for t in own], color=colour)
    accuracy.set(xlabel="network", ylabel="validation accuracy, %")
    params.set(xlabel="network", ylabel="parameters, thousands", ylim=(0, None))
    accuracy.legend(fontsize=9, loc="lower left")
    for axes in (accuracy, params):
        axes.spines[["top", "right"]].set_visible(False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    best = study.best()
    assert best is not None
    Path(path).write_text(_stacked(text.getvalue(), _drawn(best.architecture)))


def _drawn(architecture: "optnas.spaces.Architecture") -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.svg")
        optnas.draw(architecture, file)
        return file.read_text()


def _stacked(upper: str, lower: str) -> str:
    """Two SVG pictures below each other, as wide as the upper one, on white."""
    (width, above), (inner, below) = _size(upper), _size(lower)
    factor = min(1, width / inner)
    placed = [
        _placed(upper, 0, 0, width, above),
        _placed(lower, (width - factor * inner) / 2, above, factor * inner, factor * below),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {above + factor * below}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(placed)}</svg>\n'
    )


def _placed(picture: str, x: float, y: float, width: float, height: float) -> str:
    """A picture inside another: at a place, of a size."""
    start = picture[picture.index("<svg") :]
    tag, rest = start.split(">", 1)
    tag = re.sub(r' (width|height)="[^"]*"', "", tag)
    place = f' x="{x}" y="{y}" width="{width}" height="{height}"'
    return f"{tag}{place}>{rest}"


def _size(svg: str) -> tuple[float, float]:
    found = re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg)
    assert found is not None
    return float(found[1]), float(found[2])


if __name__ == "__main__":
    main(*sys.argv[1:])
