"""A wheel as a new user has it: installed, and taken the whole way outside the repository.

    python tests/release.py dist/optnas-*.whl      # an environment of its own, all packages anew

`tests/test_wheel.py` does the same in an environment that borrows the packages of this one.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

# What a new user might edit; here, so that it takes seconds.
SMALLER = {
    "depth: [2, 10], width: [8, 24]": "depth: [2, 3], width: [4, 6]",
    "train: {epochs: 20}": "train: {epochs: 1}\nretrain: {epochs: 2}",
}


def install(wheel: Path, folder: Path, packages: Sequence[str] | None = None) -> Path:
    """An environment with the wheel.

    Args:
        wheel: The wheel.
        folder: Where the environment is made.
        packages: Folders with what the wheel needs; None installs it from the registry.

    Returns:
        Its Python.
    """
    venv.create(folder, with_pip=packages is None)
    python = folder / "bin" / "python"
    quiet = ["--quiet", "--disable-pip-version-check"]
    if packages is None:
        run(python, "-m", "pip", "install", *quiet, wheel)
        return python
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index")
    run(*pip, "--no-compile", *quiet, wheel)
    (place,) = folder.glob("lib/python*/site-packages")
    (place / "borrowed.pth").write_text("\n".join(packages) + "\n")
    return python


def take_the_whole_way(python: Path, folder: Path) -> list[str]:
    """From `optnas init` to an exported network; what every command said.

    Args:
        python: Of an environment with optnas.
        folder: An empty folder.
    """
    optnas = python.with_name("optnas")
    for kind, colour in (("dark", 40), ("light", 200)):
        for number in range(12):
            place = folder / "photos" / kind / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20 + number, 24), (colour, colour + number, 90)).save(place)
    start = ("init", "study.yaml", "--data", "images", "--root", "photos", "--trials", "2")
    said = [run(optnas, *start, cwd=folder)]
    text = (folder / "study.yaml").read_text()
    for key, smaller in SMALLER.items():
        assert key in text, text
        text = text.replace(key, smaller)
    (folder / "study.yaml").write_text(text)
    said += [
        run(optnas, *words, cwd=folder)
        for words in (
            ("run", "study.yaml"),
            ("retrain", "study.yaml"),
            ("export", "study.network", "--to", "python"),
            ("predict", "study.network", "photos/dark/1.jpg", "--json"),
        )
    ]
    (answer,) = json.loads(said[-1])["predictions"]
    assert answer["label"] in ("dark", "light"), answer
    assert (folder / "study.network" / "model.py").is_file()
    where = run(python, "-c", "import optnas; print(optnas.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(python.parents[1]), where
    return said


def run(*command: str | Path, cwd: Path | None = None) -> str:
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=own | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def main() -> None:
    (wheel,) = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        python = install(wheel.resolve(), Path(folder, "environment"))
        place = Path(folder, "empty")
        place.mkdir()
        print(*take_the_whole_way(python, place), sep="\n")


if __name__ == "__main__":
    main()
