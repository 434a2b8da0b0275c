"""What the manual shows that does not lie in docs/, and the drawings, made by its build."""

import re
import shutil
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import optnas
from optnas import spaces
from optnas.errors import UserError

ROOT = Path(__file__).parents[2]
COPY = ROOT / ".venv" / "manual"  # The packages as they are installed, for mkdocstrings to read.
PACKAGES = {
    "optnas": "optnas",
    "samplers": "optnas/samplers",
    "objectives": "optnas/objectives",
}
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}

SPACES: Mapping[str, spaces.Space[Any]] = {
    "chain": spaces.ChainSpace(depth=(8, 12), width=(16, 32)),
    "cell": spaces.CellSpace(),
    "nasbench201": spaces.NasBench201Space(),
    "growth": spaces.GrowthSpace(cells=1, channels=16),
    "stage": spaces.StageSpace(stages=3, modules=(2, 8)),
    "face": spaces.FaceSpace(preset="small", depth=(18, 34)),
}
"""Of each a network is drawn, for `<!-- drawing: NAME -->`."""


@event_priority(100)  # Before mkdocstrings looks at what there is.
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give mkdocstrings a tree in which the packages lie as they are installed."""
    shutil.rmtree(COPY, ignore_errors=True)
    for folder, place in PACKAGES.items():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, COPY / place, ignore=ignored, copy_function=_copied)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, the study files and the drawings."""
    for source, page in PAGES.items():
        text = _within_docs((ROOT / source).read_text())
        files.append(File.generated(config, page, content=text))
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        files.append(File.generated(config, f"studies/{path.name}", abs_src_path=str(path)))
        if (page := _report(path)) is not None:
            files.append(File.generated(config, f"reports/{path.stem}.html", content=page))
    for name, space in SPACES.items():
        content = _drawing(space.random(np.random.default_rng(1)))
        files.append(File.generated(config, f"drawings/{name}.svg", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put drawings and reports in their places, and have links find what was brought in."""
    markdown = markdown.replace("](../studies/", "](studies/")
    for source, copy in PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({copy}")
    reports = [file.src_uri for file in files if file.src_uri.startswith("reports/")]
    links = ", ".join(f"[{Path(uri).stem}]({uri})" for uri in reports)
    shown = f"Reports of studies that were run here: {links}." if links else ""
    markdown = markdown.replace("<!-- reports -->", shown)
    shown = r"![A random network of the space \1](drawings/\1.svg){ .drawing }"
    return re.sub(r"<!-- drawing: (\w+) -->", shown, markdown)


def _copied(source: str, copy: str) -> str:
    """A module whose docstrings say in Markdown what they say in reStructuredText."""
    text = Path(source).read_text()
    text = re.sub(r":(?:class|func|meth|mod|attr):`~?([^`]*)`", r"`\1`", text)
    text = re.sub(
        r"^( *)Example:\n\n +\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)",
        lambda found: f"{found[1]}Example:\n\n{_fenced(found[1], found[2])}",
        text,
        flags=re.M,
    )
    Path(copy).write_text(text)
    return copy


def _fenced(indent: str, code: str) -> str:
    return textwrap.indent(f"```python\n{textwrap.dedent(code).strip()}\n```\n", indent) + "\n"


def _within_docs(text: str) -> str:
    """A page of the top folder with the links of a page in docs/."""
    for source, page in PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text.replace("](docs/", "](").replace("](studies)", "](gallery.md)")


def _report(study_file: Path) -> str | None:
    """The report of a study that was run, if it was."""
    if not study_file.with_suffix(".db").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            page = optnas.open(study_file).report(Path(folder, "report.html"), inference=False)
        except UserError:  # Nothing was trained yet.
            return None
        return page.read_text()


def _drawing(architecture: spaces.Architecture) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawing.svg")
        optnas.draw(architecture, path)
        return path.read_bytes()
