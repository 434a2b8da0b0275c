"""The packages for OptunaHub: built from the tree, they run without optnas and without torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
import build

ROOT = Path(__file__).parents[1]
# Runs a package's example where neither optnas nor torch can be imported.
RUN = """
import runpy, sys
import optuna, optunahub

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("optnas", "torch"):
            raise ImportError(f"imported {name}")

sys.meta_path.insert(0, Refused())
optuna.logging.set_verbosity(optuna.logging.WARNING)
local = optunahub.load_local_module
optunahub.load_module = lambda package: local(package, registry_root=sys.argv[1])
for example in sys.argv[2:]:
    print("ran", example, flush=True)
    runpy.run_path(example)
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    registry = tmp_path_factory.mktemp("registry")
    for package in build.PACKAGES:
        build.build(package, registry)
    return registry


def front_matter(folder: Path) -> dict:
    _, header, _ = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header)


def test_every_strategy_and_pruner_of_the_entry_points_is_a_package():
    points = build.PROJECT["entry-points"]
    own = {
        value.partition(":")[2]
        for group in ("optnas.samplers", "optnas.pruners")
        for value in points[group].values()
        if value.startswith("optnas.")
    }
    # What people designed is looked at beside a study; nothing is searched.
    own.discard("BaselineSampler")
    assert {package.exports[0][1] for package in build.PACKAGES} == own


def test_every_example_runs_from_its_package_alone(registry):
    examples = [registry / package.path / "example.py" for package in build.PACKAGES]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", RUN, registry, *examples],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("ran ") == len(examples)
    found = [line for line in run.stdout.splitlines() if not line.startswith("ran ")]
    assert len(found) == len(examples)
    assert "None" not in found


@pytest.mark.parametrize("package", build.PACKAGES, ids=lambda package: package.name)
def test_a_package_says_what_the_registry_asks(package, registry):
    folder = registry / package.path
    says = front_matter(folder)
    assert says.keys() == {
        *("author", "title", "description", "tags", "optuna_versions", "license"),
    }
    assert says["license"] == "MIT License"
    page = (folder / "README.md").read_text()
    for heading in ("Abstract", "Class or Function Names", "Installation", "Example", "Others"):
        assert f"\n## {heading}\n" in page
    assert (folder / "example.py").read_text() in page
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    requirements = (folder / "requirements.txt").read_text().split()
    assert requirements
    assert set(requirements) <= set(build.PROJECT["dependencies"])


def test_copies_are_the_trees_own_files_but_for_their_imports(registry):
    folder = registry / "samplers" / "econas" / "_optnas"
    for copy in folder.rglob("*.py"):
        first, _, rest = copy.read_text().partition("\n")
        if not first:  # The package of a few modules whose own file would import all.
            assert copy.name == "__init__.py"
            continue
        origin = re.fullmatch(r"# Copied from optnas [\d.]+: (.+)\.", first)
        text = (ROOT / origin[1]).read_text()
        pattern = r"^(\s*from )(optnas)?\.+"
        same = [re.sub(pattern, r"\1", body, flags=re.MULTILINE) for body in (rest, text)]
        assert same[0] == same[1], origin[1]


def test_what_lay_in_the_folder_goes(tmp_path):
    package = build.PACKAGES[-1]
    left = tmp_path / package.path / "old.py"
    left.parent.mkdir(parents=True)
    left.touch()
    build.build(package, tmp_path)
    assert not left.exists()
