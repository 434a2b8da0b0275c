"""The page that says where every rule of the papers is: what it names is there, and as it says."""

import functools
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from optnas.config.file import StudyFile, load_study_file

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/papers.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| what")
]
SPANS = sorted({span for *_, where in ROWS for span in re.findall(r"`([^`]+)`", where)})
NAMES = [span for span in SPANS if re.fullmatch(r"[a-z_]+(\.\w+)+", span)]
SETTINGS = [match.groups() for s in SPANS if (match := re.match(r"(\w+): ([\w.]+): (.+)", s))]
PAGES = {page: (ROOT / "docs" / page).read_text() for page in ("macro_micro.md", "faces.md")} | {
    page: (ROOT / "docs" / page).read_text()
    for page in ("randgrow.md", "stagewise.md", "econas.md", "ftso.md")
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_there(name):
    assert has_name(f"optnas.{name}")


@pytest.mark.parametrize(("study", "key", "value"), SETTINGS)
def test_settings_are_as_said(study, key, value):
    assert setting(loaded(study), key.split(".")) == yaml.safe_load(value)


def test_every_row_says_where_it_is():
    assert len(ROWS) > 150
    assert len(NAMES) > 60
    assert len(SETTINGS) > 90
    for row in ROWS:
        _, section, where = row
        assert section
        assert "`" in where or "*differs*" in where, row


@pytest.mark.parametrize("page", PAGES)
def test_what_differs_is_in_a_table(page):
    assert "\n## Differences from the paper\n\n| paper | here | why |\n" in PAGES[page]


def has_name(dotted: str) -> bool:
    """Whether a module has it, or a class there, as an attribute or as a field."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if part in getattr(found, "__dataclass_fields__", ()):
                return part == parts[-1]
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@functools.cache
def loaded(study: str) -> StudyFile:
    return load_study_file(ROOT / "studies" / f"{study}.yaml")


def setting(config: Any, keys: list[str]) -> Any:
    """What a study file says, or its default."""
    for key in keys:
        if isinstance(config, dict):
            config = config[key]
        elif key in getattr(config, "options", {}):
            config = config.options[key]
        else:
            config = getattr(config, key)
    if isinstance(config, tuple | list):
        return list(config)
    return config if isinstance(config, str | int | float | None) else str(config)
