"""Where the files of a study are: its network, its page.

Beside the storage's file, and beside the study file where the storage is a server, under the
study's name. Studies in different storages may have one name there, and different names one form
as a file: whoever comes second has its identity in the name, too.
"""

import contextlib
import html
import json
from pathlib import Path
from typing import Any

from optnas.config.paths import absolute, file_name, split_bucket
from optnas.errors import UserError
from optnas.spaces import Architecture
from optnas.storage.files import write_whole
from optnas.storage.urls import storage_file
from optnas.study.opening import OpenStudy
from optnas.study.record import identity_of

MARK = "study.json"
"""The file in a network's folder that says whose it is."""
PAGE_MARK_NAME = "optnas-study"
PAGE_MARK = f'<meta name="{PAGE_MARK_NAME}" content="{{}}">'
"""What says in a page whose it is."""

# What a training that was cut off leaves in a folder, before it says whose it is.
_UNFINISHED = ("training.pt", "weights.safetensors", "README.md")


def network_folder(handle: OpenStudy, suffix: str = "") -> str:
    """Where ``optnas retrain`` puts the network, unless told otherwise.

    Args:
        handle: The study.
        suffix: What is added to the name of a network that is trained otherwise.
    """
    ending = f".network{suffix}"
    plain, own = (f"{path}{ending}" for path in _names(handle))
    older = _older_folder(handle, suffix)
    for path in (plain, own):
        if Path(path).exists() and _is_own(handle, Path(path)):
            return path
    if older not in (None, plain) and _was_made_for(handle, Path(str(older))):
        return str(older)
    return own if Path(plain).exists() else plain


def mark_network(handle: OpenStudy, folder: Path) -> None:
    """Say in the folder of a network whose it is, if it can be written."""
    content = json.dumps({"study": handle.study.study_name, "id": _identity(handle)})
    with contextlib.suppress(UserError):
        if folder.is_dir() and not (folder / MARK).exists():
            write_whole(folder / MARK, content.encode())


def page_path(handle: OpenStudy, ending: str = ".html") -> Path:
    """Where ``optnas report`` writes the page, unless told otherwise.

    Args:
        handle: The study.
        ending: How its name ends.
    """
    plain, own = (Path(f"{path}{ending}") for path in _names(handle))
    return plain if not plain.exists() or _is_own_page(handle, plain) else own


def page_marks(handle: OpenStudy) -> dict[str, str]:
    """What a page has in its head to say whose it is, by name."""
    return {PAGE_MARK_NAME: _identity(handle)}


def _names(handle: OpenStudy) -> tuple[str, str]:
    """The paths without endings: by the study's name, and by its identity, too."""
    file = storage_file(handle.config.storage)
    folder = handle.config.folder if file is None else file.parent
    plain = absolute(file_name(handle.config.study), folder)
    return plain, f"{plain}-{_identity(handle)[:8]}"


def _identity(handle: OpenStudy) -> str:
    identity = identity_of(handle.study)
    return identity if identity.isalnum() else "made-otherwise"


def _older_folder(handle: OpenStudy, suffix: str) -> str | None:
    """Where version 0.1.0 put the network: beside the artifacts, whosever they were, too."""
    config = handle.config
    if split_bucket(config.artifacts) is not None:
        return absolute(f"{file_name(config.study)}.network{suffix}", config.folder)
    return f"{config.artifacts.removesuffix('.artifacts')}.network{suffix}"


def _is_own(handle: OpenStudy, folder: Path) -> bool:
    mark = _read(folder / MARK)
    if mark is not None:
        return bool(mark.get("id") == _identity(handle))
    if (folder / "network.json").exists():
        return _was_made_for(handle, folder)
    return folder.is_dir() and all(p.name.startswith(_UNFINISHED) for p in folder.iterdir())


def _was_made_for(handle: OpenStudy, folder: Path) -> bool:
    """Whether the network in a folder without a mark is that of one of the study's trials."""
    description = _read(folder / "network.json") or {}
    origin = description.get("origin")
    if (folder / MARK).exists() or not isinstance(origin, dict):
        return False
    number, trials = origin.get("trial"), handle.study.get_trials(deepcopy=False)
    if origin.get("study") != handle.study.study_name or not isinstance(number, int):
        return False
    if not 0 <= number < len(trials):
        return False
    if "channels" in origin:
        return True  # The architecture was changed before it was trained.
    named: Architecture | None = handle.config.search_space.named_by(trials[number])
    return named is not None and json.loads(named.to_json()) == description.get("architecture")


def _is_own_page(handle: OpenStudy, page: Path) -> bool:
    """Whether a page is this study's, or one of the same name of version 0.1.0."""
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            head = file.read(10_000)
    except OSError:
        return False
    begin, _, _ = PAGE_MARK.partition("{}")
    if begin in head:
        return PAGE_MARK.format(_identity(handle)) in head
    return f"<h1>Search {html.escape(handle.study.study_name)}</h1>" in head


def _read(path: Path) -> dict[str, Any] | None:
    """The mapping in a file; None where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
