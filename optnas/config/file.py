"""study.yaml: read, checked as a whole before anything else happens, and kept in the study.

Every mistake is one :class:`StudyFileError` that names the file, the line and the key.
"""

import json
import os.path
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from optnas.config import plugins
from optnas.config.checks import check_data, checked_plugins, expand, validated
from optnas.config.former import in_todays_words
from optnas.config.keys import SUPPLIED, Choice, StudyKeys
from optnas.config.messages import Source, StudyFileError, found, key_text
from optnas.config.paths import (
    absolute,
    artifacts_location,
    default_artifacts,
    default_storage,
    storage_url,
)
from optnas.config.plugins import Kind
from optnas.config.yaml import MAX_DEPTH, KeyPath, YamlError, parse

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from optnas.spaces import Space

__all__ = [
    "StudyFile",
    "StudyFileError",
    "differences",
    "from_resolved",
    "load_study_file",
    "study_from_dict",
]

#: A study file is a page of text; what is longer is another file.
MAX_BYTES = 1 << 20

# May change between the runs of one study; `data.` lists keys of that block.
_CHANGEABLE = (
    "storage",
    "artifacts",
    "checkpoint",
    "budget",
    "workers",
    "retrain",
    "max_retries",
    "folder",
)
_CHANGEABLE_DATA = ("root", "download")


class StudyFile(StudyKeys):
    """A study's whole configuration, checked: defaults spelled out and paths absolute.

    Made by :func:`load_study_file`, :func:`study_from_dict` or :func:`from_resolved`.
    """

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """Where relative paths start and modules are looked for: the study file's folder."""
        return self._folder

    def resolved(self) -> dict[str, Any]:
        """Everything but the storage as JSON values, to be kept with the study."""
        return {**self.model_dump(mode="json", exclude={"storage"}), "folder": str(self.folder)}

    def identity(self) -> dict[str, Any]:
        """The part of ``resolved`` that must not change between the runs of one study."""
        return identity_of(self.resolved())

    def make_space(self) -> "Space[Any]":
        """The search space."""
        return self._make("space", self.space, {})  # type: ignore[no-any-return]

    def make_sampler(
        self, space: "Space[Any]", *, in_channels: int, classes: int, seed: int | None
    ) -> "BaseSampler":
        """The sampler.

        Args:
            space: What it searches.
            in_channels: Channels of the images.
            classes: Number of classes.
            seed: The sampler's seed.
        """
        supplied = {
            "space": space,
            "in_channels": in_channels,
            "classes": classes,
            "seed": seed,
            "max_retries": self.max_retries,
        }
        return self._make("sampler", self.sampler, supplied)  # type: ignore[no-any-return]

    def make_pruner(self) -> "BasePruner":
        """The pruner."""
        return self._make("pruner", self.pruner, {})  # type: ignore[no-any-return]

    def _make(self, kind: Kind, choice: Choice, supplied: Mapping[str, Any]) -> Any:
        cls = plugins.load(kind, choice.name, self.folder)
        return cls(**plugins.accepted(cls, supplied), **self._options(kind, cls, choice))

    def objective_options(self, cls: type[Any]) -> dict[str, Any]:
        """The options of the objective, an instance of ``cls``, of the types that it expects."""
        return self._options("objective", cls, self.objective)

    @staticmethod
    def _options(kind: Kind, cls: type[Any], choice: Choice) -> dict[str, Any]:
        model = plugins.options_model(cls, SUPPLIED[kind])
        return dict(model.model_validate_json(json.dumps(choice.options)))


def load_study_file(path: str | Path) -> StudyFile:
    """Read and check a study file; nothing is created and no data is touched.

    Args:
        path: The file. Relative paths in it start in its folder.

    Raises:
        StudyFileError: If anything is wrong, about the first thing that is.
    """
    path = Path(path)
    name = str(path)
    try:
        document = parse(_read(path))
    except YamlError as error:
        lines: dict[KeyPath, int] = {error.path: error.line}
        raise Source(name, lines).error(error.path, str(error)) from None
    if document.data is None:
        raise StudyFileError(f"{name}: the file is empty; `optnas init` writes one to start from")
    return _build(document.data, Path(absolute(name, Path.cwd())).parent, name, document.lines)


def study_from_dict(mapping: Mapping[str, Any], folder: str | Path | None = None) -> StudyFile:
    """The same from Python values, with the keys of a study file.

    Args:
        mapping: Strings, numbers, bools, None, lists, tuples, paths and mappings of these.
        folder: Where relative paths start; by default the current one.

    Raises:
        StudyFileError: If anything is wrong, about the first thing that is.
    """
    return _build(mapping, Path(absolute(str(folder or "."), Path.cwd())))


def from_resolved(resolved: Mapping[str, Any], storage: str) -> StudyFile:
    """The configuration that ``StudyFile.resolved`` gave, as kept in a study.

    Args:
        resolved: The stored configuration.
        storage: Where the study is; a relative path starts in the current folder.

    Raises:
        StudyFileError: If the stored configuration does not fit this version of optnas or what
            is installed here.
    """
    source = "the stored configuration"
    values = dict(resolved)
    folder = values.pop("folder", None)
    if not isinstance(folder, str):
        raise Source(source).error(("folder",), f"expected a string {found(folder)}")
    try:
        values["storage"] = storage_url(storage, Path.cwd())
    except ValueError as error:
        raise Source(source).error(("storage",), str(error)) from None
    return _build(values, Path(folder), source)


def identity_of(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What ``StudyFile.identity`` is, from a stored ``StudyFile.resolved``."""
    identity = {key: value for key, value in resolved.items() if key not in _CHANGEABLE}
    data = resolved["data"] or {}
    identity["data"] = {key: data[key] for key in data if key not in _CHANGEABLE_DATA}
    # A file may be moved; what it holds is the objective's concern.
    identity["objective"] = {
        key: os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value
        for key, value in resolved["objective"].items()
    }
    return identity


def differences(stored: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """How two identities differ, one line per key: ``sampler.epochs: stored 10, file says 12``.

    Args:
        stored: The identity of the study.
        new: The identity of the file.
    """
    before, after = _flat(stored), _flat(new)
    lines = []
    for path in [*before, *(path for path in after if path not in before)]:
        old = f"stored {_shown(before[path])}" if path in before else "not stored"
        now = f"file says {_shown(after[path])}" if path in after else "not in the file"
        if path not in before or path not in after or before[path] != after[path]:
            lines.append(f"{key_text(path)}: {old}, {now}")
    return lines


def _flat(value: Any, path: KeyPath = ()) -> dict[KeyPath, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {k: v for key in value for k, v in _flat(value[key], (*path, key)).items()}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read(path: Path) -> str:
    if os.path.exists(path) and not os.path.isfile(path):
        raise StudyFileError(f"{path}: expected a file, but this is a folder or a device")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise StudyFileError(
            f"{path}: no such file; `optnas init` writes one to start from"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyFileError(f"{path}: cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise StudyFileError(f"{path}: larger than 1 MiB, so not a study file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StudyFileError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None


def _build(
    data: Any, folder: Path, name: str = "", lines: Mapping[KeyPath, int] | None = None
) -> StudyFile:
    source = Source(name, lines or {})
    data = _json_values(data, (), source)
    if not isinstance(data, dict):
        text = f"expected keys and values such as 'study: digits' {found(data)}"
        raise source.error((), text)
    expanded, shorthand = expand(in_todays_words(data, source))
    source = Source(name, source.lines, shorthand)
    study = validated(StudyFile, expanded, source)
    study = study.model_copy(update=_paths(study, folder, source))
    study._folder = folder
    check_data(study, source)
    return study.model_copy(update=checked_plugins(study, folder, source))


def _paths(study: StudyKeys, folder: Path, source: Source) -> dict[str, Any]:
    key = "storage"
    try:
        storage = storage_url(study.storage or default_storage(study.study), folder)
        key = "artifacts"
        if study.artifacts:
            artifacts = artifacts_location(study.artifacts, folder)
        else:
            artifacts = default_artifacts(study.study, storage, folder)
    except ValueError as error:
        raise source.error((key,), str(error)) from None
    data = study.data
    if data is not None and data.root:
        data = data.model_copy(update={"root": absolute(data.root, folder)})
    return {"storage": storage, "artifacts": artifacts, "data": data}


def _json_values(value: Any, path: KeyPath, source: Source) -> Any:
    """Python's values as JSON's: tuples as lists and paths as strings."""
    if len(path) > MAX_DEPTH:
        raise source.error(path[:3], f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise source.error(path, f"every key must be a string {found(wrong[0])}")
        return {key: _json_values(value[key], (*path, key), source) for key in value}
    if isinstance(value, (list, tuple)):
        return [_json_values(item, (*path, i), source) for i, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise source.error(path, f"expected text without lone surrogates {found(value)}")
    if value is None or isinstance(value, (str, int, float)):
        return value
    text = f"expected a string, a number, a bool, None, a list or a mapping {found(value)}"
    raise source.error(path, text)
