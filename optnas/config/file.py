"""study.yaml: read, checked as a whole before anything else happens, and kept in the study.

Every mistake is one :class:`StudyFileError` that names the file, the line and the key.
"""

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import PrivateAttr

from optnas.config import plugins
from optnas.config.checks import check_data, checked_plugins, expand, validated
from optnas.config.keys import SUPPLIED, Choice, StudyKeys
from optnas.config.messages import Source, StudyFileError, found
from optnas.config.old_keys import with_current_keys
from optnas.config.overrides import Override, overridden, places
from optnas.config.paths import (
    absolute,
    artifacts_location,
    default_artifacts,
    default_storage,
    storage_url,
)
from optnas.config.plugins import Kind
from optnas.config.reading import json_values, read_text
from optnas.config.settings import DataSettings
from optnas.config.stored import (
    contradictions,
    differences,
    identity_of,
    kept_settings,
    references,
    with_old_behaviour,
    with_stored,
)
from optnas.config.yaml import KeyPath, YamlError, parse

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from optnas.spaces import Space


@dataclasses.dataclass(frozen=True)
class Written:
    """A configuration as its author wrote it, nothing filled in.

    How a configuration was written makes no difference to what it is: all of these are equal.

    Args:
        keys: What was written, as JSON values; a block may be only a name.
        folder: Where relative paths start.
        source: Where it was written.
        allowed: Code that may be imported beside what the keys name, should a storage name it.
    """

    keys: Mapping[str, Any] = dataclasses.field(compare=False)
    folder: Path = dataclasses.field(compare=False)
    source: Source = dataclasses.field(compare=False, default_factory=Source)
    allowed: frozenset[str] = dataclasses.field(compare=False, default=frozenset())

    @property
    def place(self) -> tuple[str, str] | None:
        """The storage and the name of the study; None if they cannot be understood."""
        name = self.keys.get("study")
        try:
            text = self.keys.get("storage", default_storage(str(name)))
            return (storage_url(str(text), self.folder), name) if isinstance(name, str) else None
        except ValueError:
            return None

    def checked(self) -> "StudyFile":
        """The configuration of a new study: what was not written has today's defaults.

        Raises:
            StudyFileError: If anything is wrong, about the first thing that is.
        """
        return self._built(*expand(self.keys))

    def over(self, stored: Mapping[str, Any], storage: str) -> tuple["StudyFile", list[str]]:
        """The configuration of a study that exists: what was not written is as it was stored.

        Args:
            stored: The stored configuration, as ``StudyFile.resolved`` gave it.
            storage: The URL of its storage.

        Returns:
            The configuration, and how what was written contradicts what is stored, a line per
            key; then the configuration is the stored one.

        Raises:
            StudyFileError: If anything is wrong.
        """
        allowed = self.allowed.union(references(self.keys).values())
        made = from_resolved({**stored, "folder": str(self.folder)}, storage, allowed)
        given, shorthand = expand(self.keys, made.resolved())
        try:
            study = self._built(with_stored(given, made.resolved(), self.folder), shorthand)
            changed = differences(made.identity(), study.identity())
        except StudyFileError:
            # By itself it shows whether it is wrong, or only does not fit what is stored.
            changed = contradictions(given, made.identity(), self.checked().identity())
            if not changed:
                raise
        if changed:
            return made, changed
        study._kept = self._what_is_kept(given, study)
        return study, []

    def _what_is_kept(self, given: Mapping[str, Any], study: "StudyFile") -> tuple[str, ...]:
        try:
            today = self.checked()
        except StudyFileError as error:
            return (f"what the file does not say (as a new study it is refused: {error})",)
        return tuple(kept_settings(given, study.resolved(), today.resolved()))

    def _built(self, expanded: dict[str, Any], shorthand: frozenset[str]) -> "StudyFile":
        source = dataclasses.replace(self.source, shorthand=shorthand)
        study = validated(StudyFile, expanded, source)
        study = study.model_copy(update=_paths(study, self.folder, source))
        study._folder, study._written = self.folder, self
        check_data(study, source)
        return study.model_copy(update=checked_plugins(study, self.folder, source))


class StudyFile(StudyKeys):
    """A study's whole configuration, checked: defaults spelled out and paths absolute.

    Made by :func:`load_study_file`, :func:`study_from_dict` or :func:`from_resolved`.
    """

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _written: Written = PrivateAttr(default_factory=lambda: Written({}, Path.cwd()))
    _kept: tuple[str, ...] = PrivateAttr(default=())

    @property
    def folder(self) -> Path:
        """Where relative paths start and modules are looked for: the study file's folder."""
        return self._folder

    @property
    def written(self) -> Written:
        """What its author wrote."""
        return self._written

    @property
    def kept(self) -> tuple[str, ...]:
        """What differs from a new study with the same file, because the study was made so."""
        return self._kept

    def resolved(self) -> dict[str, Any]:
        """Everything but the storage as JSON values, to be kept with the study."""
        return {**self.model_dump(mode="json", exclude={"storage"}), "folder": str(self.folder)}

    def identity(self) -> dict[str, Any]:
        """The part of ``resolved`` that must not change between the runs of one study."""
        return identity_of(self.resolved())

    @functools.cached_property
    def search_space(self) -> "Space[Any]":
        """The search space: one, made when it is first asked for."""
        return self._make("space", self.space, {})  # type: ignore[no-any-return]

    def make_space(self) -> "Space[Any]":
        """The same; samplers and pruners are made anew."""
        return self.search_space

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied.__dict__.pop("search_space", None)  # A copy may say another one.
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        # Who gets the configuration makes the space himself: it may not be picklable.
        state = super().__getstate__()
        kept = {key: value for key, value in state["__dict__"].items() if key != "search_space"}
        return {**state, "__dict__": kept}

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
    """Read and check the file of a new study; nothing is created and no data is touched.

    Args:
        path: The file. Relative paths in it start in its folder.

    Raises:
        StudyFileError: If anything is wrong, about the first thing that is.
    """
    return read_study_file(path).checked()


def read_study_file(path: str | Path, overrides: Sequence[Override] = ()) -> Written:
    """Read a study file; what its keys say is not checked yet.

    Args:
        path: The file. Relative paths in it start in its folder.
        overrides: Keys that are said otherwise; paths among them start there, too.

    Raises:
        StudyFileError: If it cannot be read, or is no mapping.
    """
    path = Path(path)
    name = str(path)
    try:
        document = parse(read_text(path))
    except YamlError as error:
        lines: dict[KeyPath, int] = {error.path: error.line}
        raise Source(name, lines).error(error.path, str(error)) from None
    if document.data is None:
        raise StudyFileError(f"{name}: the file is empty; `optnas init` writes one to start from")
    folder, data = Path(absolute(name, Path.cwd())).parent, document.data
    source = Source(name, document.lines, elsewhere=places(overrides, document.lines))
    if isinstance(data, dict):
        data = overridden(data, overrides)
    return _written(data, folder, source)


def study_from_dict(mapping: Mapping[str, Any], folder: str | Path | None = None) -> StudyFile:
    """The same from Python values, with the keys of a study file.

    Args:
        mapping: Strings, numbers, bools, None, lists, tuples, paths and mappings of these.
        folder: Where relative paths start; by default the current one.

    Raises:
        StudyFileError: If anything is wrong, about the first thing that is.
    """
    return written_in_python(mapping, folder).checked()


def written_in_python(mapping: Mapping[str, Any], folder: str | Path | None = None) -> Written:
    """The same, but not checked yet.

    Raises:
        StudyFileError: If there are values that JSON does not have.
    """
    return _written(mapping, Path(absolute(str(folder or "."), Path.cwd())), Source())


def from_resolved(
    resolved: Mapping[str, Any], storage: str, allowed: Collection[str] = ()
) -> StudyFile:
    """The configuration that ``StudyFile.resolved`` gave, as kept in a study.

    Args:
        resolved: The stored configuration.
        storage: Where the study is; a relative path starts in the current folder.
        allowed: Code that may be imported if the configuration names it: ``module:Name``.

    Raises:
        StudyFileError: If the stored configuration does not fit this version of optnas or what
            is installed here, or names code that is not allowed.
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
    for key, name in references(values).items():
        if name not in allowed:
            raise Source(source).error(
                (key,),
                f"names code, {name!r}, and nothing is imported because a storage names it; if "
                f"you know it, name the study file, or say --allow {name}",
            )
    values = with_old_behaviour(values, Path(folder))
    return _written(values, Path(folder), Source(source)).checked()


def _written(data: Any, folder: Path, source: Source) -> Written:
    data = json_values(data, (), source)
    if not isinstance(data, dict):
        text = f"expected keys and values such as 'study: digits' {found(data)}"
        raise source.error((), text)
    return Written(with_current_keys(data, source), folder, source)


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
    retrain = study.retrain
    if retrain.data is not None:
        placed = _placed(retrain.data, folder, source, ("retrain", "data"))
        retrain = retrain.model_copy(update={"data": placed})
    data = None if study.data is None else _placed(study.data, folder, source, ("data",))
    return {"storage": storage, "artifacts": artifacts, "data": data, "retrain": retrain}


def _placed(
    data: DataSettings, folder: Path, source: Source, keys: tuple[str, ...]
) -> DataSettings:
    """The same data, its places as absolute paths."""
    places: dict[str, str] = {}
    for key in ("root", "labels"):
        if getattr(data, key):
            try:
                places[key] = absolute(getattr(data, key), folder)
            except ValueError as error:
                raise source.error((*keys, key), str(error)) from None
    return data.model_copy(update=places)
