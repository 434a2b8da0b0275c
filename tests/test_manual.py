"""The manual holds: study files, commands and code of every page, new ones too; tutorials run."""

import functools
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import optuna
import pytest
import typer
import yaml
from manual import PAGES, ROOT, Block, blocks, commands, name_of, prose, run_page

from optnas import cli, samplers, spaces
from optnas.config.file import load_study_file

pytestmark = pytest.mark.usefixtures("one_thread")

COMMANDS = typer.main.get_command(cli.app).commands
STRATEGIES = [p for p in sorted((ROOT / "samplers").glob("*.py")) if "code-block" in p.read_text()]
TUTORIALS = ROOT / "docs" / "tutorials"
LANGUAGES = {"", "sh", "python", "yaml", "text"}

# Where the Python of a page is run.
TESTED = {
    "README.md": "test_readme.py",
    "docs/architecture.md": "test_docs.py",
    "docs/export.md": "test_docs.py",
    "docs/faces.md": "test_face_answers.py",
    "docs/predict.md": "test_readme.py",
    "docs/python.md": "test_docs.py",
    "docs/tutorials/objective.md": "test_readme.py",
    "docs/tutorials/photos.md": "test_manual.py",
    "docs/tutorials/space.md": "test_readme.py",
    "docs/tutorials/strategy.md": "test_manual.py",
}

# What pages have a shell do beside optnas, make and Python.
PROGRAMS = {
    ".ci/run",
    ".venv/bin/python",
    ".venv/bin/ruff",
    "echo",
    "export",
    "fi",
    "if",
    "log=worker-$SLURM_ARRAY_TASK_ID.jsonl",
    "nvidia-cuda-mps-control",
    "pip",
    "pip3",
    "scontrol",
    "torchrun",
    "wait",
}

WHOLE = {"study": "part", "data": "digits", "space": "chain", "sampler": "random"}
"""What a study file must have, of which a page shows a part."""

own_pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


@own_pages
def test_a_page_has_blocks_of_known_languages(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert page.read_text().count("```") == 2 * len(blocks(page))


@own_pages
def test_study_files_of_a_page_are_valid(page, tmp_path):
    for block in blocks(page, "yaml"):
        if re.search(r"\w+:[A-Z]\w+", block.text):
            continue  # It is run, with the module that it names.
        keys = yaml.safe_load(block.text)
        others = {} if "study" in keys else {k: v for k, v in WHOLE.items() if k not in keys}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(others) * bool(others) + block.text)
        load_study_file(tmp_path / "study.yaml")


@own_pages
def test_commands_of_a_page_are_commands(page):
    for block in blocks(page):
        for words in _of_a_block(block):
            _check(words, block.text)
    for words in _in_prose(page):
        _parse(words, whole=False)


@own_pages
def test_the_python_of_a_page_is_run_somewhere(page):
    has_code = bool(blocks(page, "python"))
    assert has_code == (name_of(page) in TESTED), f"run the Python of {page}, and say where"
    if has_code:
        place = (ROOT / "tests" / TESTED[name_of(page)]).read_text()
        assert page.name in place or page.stem in place


@pytest.mark.parametrize("name", ["photos", "strategy"])
def test_a_tutorial_runs(name, tmp_path, monkeypatch, capsys):
    if name == "photos":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    run_page(TUTORIALS / f"{name}.md", tmp_path, capsys, {})


def test_the_tutorial_on_several_machines_runs(postgresql_url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"postgresql+psycopg://optnas@db.example.org/optnas": postgresql_url}
    run_page(TUTORIALS / "machines.md", tmp_path, capsys, places)


def test_every_tutorial_is_run():
    names = {page.stem for page in TUTORIALS.glob("*.md")}
    assert names == {"photos", "objective", "space", "strategy", "machines"}


@own_pages
def test_links_of_a_page_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"https?:", target):
            continue
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file), target


@pytest.mark.parametrize("module", STRATEGIES, ids=lambda path: path.stem)
def test_the_example_of_a_strategy_runs(module, monkeypatch, capsys):
    """For two trials that train nothing."""
    (found,) = re.findall(r"code-block:: python\n\n((?:            .*\n|\n)+)", module.read_text())
    known = vars(samplers) | vars(spaces) | {"optuna": optuna, "objective": _suggests}
    known |= {"space": spaces.CellSpace(), "images": None}
    known |= {"SurrogateSampler": samplers.SurrogateSampler}
    known |= {"SupernetClassification": lambda space, images: _suggests}
    optimize = optuna.Study.optimize
    monkeypatch.setattr(optuna.Study, "optimize", lambda study, f, **_: optimize(study, f, 2))
    exec(textwrap.dedent(found), known)
    trials = known["study"].trials
    assert all(trial.params for trial in trials)
    assert len(trials) == (0 if module.stem == "hierarchical" else 2)


def test_the_site_is_built_without_a_warning_and_asks_nobody_else(tmp_path):
    pytest.importorskip("mkdocs_awesome_nav")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text()
        for path in tmp_path.rglob("*.html")
    }
    assert {"index.html", "gallery.html", "changelog.html", "api/samplers.html"} <= pages.keys()
    for page in PAGES:
        assert name_of(page).removeprefix("docs/").replace(".md", ".html") in {
            *pages,
            "README.html",
            "CONTRIBUTING.html",
        }
    loaded = r"<(?:link|script|img|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//[^\s>]*"
    assert not [found for text in pages.values() for found in re.findall(loaded, text)]
    assert "class MacroMicroSampler" not in pages["api/samplers.html"]
    assert 'id="optnas.samplers.MacroMicroSampler"' in pages["api/samplers.html"]
    assert (tmp_path / "drawings" / "growth.svg").exists()


def _suggests(trial: optuna.Trial) -> float:
    sampler = trial.study.sampler
    sampler.space.suggest(trial)
    trial.set_user_attr("multiply_adds", 1000)
    trial.set_user_attr("stage_importance", [0.9, 0.8, 0.7])
    if sampler.sets_epochs:
        trial.suggest_int("epochs", 1, 100)
    return 0.5


def _of_a_block(block: Block) -> list[list[str]]:
    """The commands of a block: of what a terminal shows, those that were typed."""
    if block.language == "sh":
        return list(commands(block.text))
    if block.language:
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    typed = [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?(optnas|make) ", line)]
    return [words for line in typed for words in commands(line)]


def _in_prose(page: Path) -> list[list[str]]:
    """The commands of optnas that a text names, and those that stand indented in it."""
    text = prose(page)
    spans = re.findall(r"`(optnas [^`]*)`", text)
    spans += re.findall(r"^    (?:\$ )?(optnas .*(?:\\\n.*)*)$", text, re.M)
    spans = [span.replace("\n", " ").replace("\\", " ").replace("...", "") for span in spans]
    return [words for span in spans for words in commands(span)]


def _check(words: list[str], text: str) -> None:
    program = words[0]
    if program == "optnas":
        _parse(words, whole=True)
    elif program == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif program == "python" and words[1] in {b.title for p in PAGES for b in blocks(p)}:
        pass
    elif program == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).exists()
        options = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
        assert options <= _options_of_benchmarks(), words
    else:
        assert program in {*PROGRAMS, "python"}, f"nobody knows {shlex.join(words)} in\n{text}"


@functools.cache
def _options_of_benchmarks() -> set[str]:
    sources = [path.read_text() for path in (ROOT / "benchmarks").glob("*.py")]
    return {option for source in sources for option in re.findall(r'"(--[\w-]+)"', source)}


def _parse(words: list[str], *, whole: bool) -> None:
    """Ask the commands' own parser; a text may leave arguments out."""
    if len(words) < 2 or words[1].startswith("-"):
        return
    assert words[1] in COMMANDS, words
    command = COMMANDS[words[1]]
    options = words[2:]
    if hasattr(command, "commands"):
        if not options:
            return
        command, options = command.commands[options[0]], options[1:]
    try:
        command.make_context(words[1], options)
    except Exception as error:  # typer may bring a click of its own.
        if whole or type(error).__name__ not in ("MissingParameter", "BadOptionUsage"):
            raise


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-") for text in plain}
