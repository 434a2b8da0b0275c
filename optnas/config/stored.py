"""What a study was made with, and what its file says today: laid over each other, compared.

A stored configuration has the defaults of the version that made it. A key that the file does not
say has the stored value, so that a default can change for new studies alone.
"""

import json
import os.path
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

from optnas.config import plugins
from optnas.config.keys import PLUGINS, SUPPLIED, StudyKeys
from optnas.config.messages import inner_model, key_text
from optnas.config.plugins import Kind
from optnas.config.yaml import KeyPath
from optnas.extensions.importing import PluginError

OLD_BEHAVIOUR: Mapping[tuple[str, ...], Any] = {
    ("data", "reading"): 1,
    ("train", "kernels"): "torch",
    ("space", "chain", "kernels"): [3, 5, 7],
    ("space", "chain", "width_step"): 1,
    ("objective", "supernet_classification", "search", "final_lr"): 0.0,
    ("objective", "supernet_classification", "search", "warmup_epochs"): 0,
}
"""Keys that came after version 0.1.0 and mean something else for new studies: what they mean where
they are not stored, as JSON values.

By their path in a study file, in which the name of a sampler, pruner, objective or space comes
after its kind: ``("data", "KEY")``, ``("sampler", "econas", "KEY")``. Classes that inherit from
these have the same. A key whose default is what older versions did needs no line here.
"""

# Not what a study was made with, but where it is and how it is run: the file alone says it.
_OF_THE_RUN = ("storage", "artifacts", "folder", "budget", "workers")

# May change between the runs of one study; `data.` lists keys of that block.
_CHANGEABLE = (*_OF_THE_RUN, "checkpoint", "retrain", "max_retries")
_CHANGEABLE_DATA = ("root", "download", "labels")


def with_old_behaviour(stored: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A stored configuration, with what its version did where it did not know a key.

    Args:
        stored: The configuration as JSON values, blocks as mappings.
        folder: Where modules are looked for too.
    """
    filled = dict(stored)
    for path, value in OLD_BEHAVIOUR.items():
        inside = _place(path, filled, folder)
        if inside is not None:
            _fill(filled, inside, value)
    return filled


def references(config: Mapping[str, Any]) -> dict[str, str]:
    """The code that a configuration names, ``module:Name`` by key, if its blocks are mappings."""
    named = {}
    for key in (*PLUGINS, "data"):
        block = config.get(key)
        name = block.get("name") if isinstance(block, Mapping) else block
        if isinstance(name, str) and ":" in name:
            named[key] = name
    retrain = config.get("retrain")
    data = retrain.get("data") if isinstance(retrain, Mapping) else None
    name = data.get("name") if isinstance(data, Mapping) else data
    if isinstance(name, str) and ":" in name:
        named["retrain.data"] = name
    return named


def with_stored(
    given: Mapping[str, Any], stored: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """What a file says, and what is stored where it says nothing.

    Args:
        given: What the file says, as JSON values, blocks as mappings.
        stored: The configuration of its study, as ``StudyFile.resolved`` gave it.
        folder: Where modules are looked for too.
    """
    merged = {key: value for key, value in stored.items() if key not in _OF_THE_RUN}
    for key, value in given.items():
        before = merged.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            value = _block(key, value, before, folder)
        merged[key] = value
    return merged


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
    return _differences(_flat(stored), _flat(new))


def _differences(before: Mapping[KeyPath, Any], after: Mapping[KeyPath, Any]) -> list[str]:
    lines = []
    for path in [*before, *(path for path in after if path not in before)]:
        old = f"stored {_shown(before[path])}" if path in before else "not stored"
        now = f"file says {_shown(after[path])}" if path in after else "not in the file"
        if path not in before or path not in after or before[path] != after[path]:
            lines.append(f"{key_text(path)}: {old}, {now}")
    return lines


def contradictions(
    given: Mapping[str, Any], stored: Mapping[str, Any], new: Mapping[str, Any]
) -> list[str]:
    """The differences of two identities in what a file says, not in what it leaves open."""
    paths = set(_flat(given))
    before, after = (
        {path: value for path, value in _flat(identity).items() if _is_among(path, paths)}
        for identity in (stored, new)
    )
    return _differences(before, after)


def kept_settings(
    given: Mapping[str, Any], used: Mapping[str, Any], today: Mapping[str, Any]
) -> Iterator[str]:
    """The keys that a new study would have otherwise: ``sampler.initial 50 (now 10)``.

    Args:
        given: What the file says.
        used: The configuration of the study, resolved.
        today: The configuration of a new study with the same file, resolved.
    """
    paths, now = set(_flat(given)), _flat(today)
    for path, value in _flat(used).items():
        is_place = path[0] == "data" and path[-1] in _CHANGEABLE_DATA
        of_the_run = path[0] in _OF_THE_RUN or is_place
        if path in now and now[path] != value and not of_the_run and not _is_among(path, paths):
            yield f"{key_text(path)} {_shown(value)} (now {_shown(now[path])})"


def _is_among(path: KeyPath, given: Collection[KeyPath]) -> bool:
    """Whether a key is said, as a whole or in parts."""
    return any(path[: len(known)] == known or known[: len(path)] == path for known in given)


def _block(
    key: str, given: dict[str, Any], stored: dict[str, Any], folder: Path
) -> dict[str, Any]:
    if "name" in given and given["name"] != stored.get("name"):
        return given  # Another sampler, or other data: nothing stored is about these.
    if key == "data":
        stored = {name: value for name, value in stored.items() if name not in _CHANGEABLE_DATA}
    if not any(isinstance(value, dict) for value in given.values()):
        return stored | given
    return _nested(given, stored, _model(key, stored, folder))


def _nested(
    given: dict[str, Any], stored: dict[str, Any], model: type[pydantic.BaseModel] | None
) -> dict[str, Any]:
    """Blocks inside blocks key by key; a mapping that is one value takes the other's place."""
    merged = stored | given
    for key, value in given.items():
        inner = None if model is None else inner_model(model, key)
        if isinstance(value, dict) and _names_another(value, stored.get(key)):
            continue
        if inner is not None and isinstance(value, dict) and isinstance(stored.get(key), dict):
            merged[key] = _nested(value, stored[key], inner)
    return merged


def _names_another(given: Mapping[str, Any], stored: Any) -> bool:
    """Whether other data is named, about which nothing is stored."""
    name = stored.get("name") if isinstance(stored, Mapping) else None
    return "name" in given and given["name"] != name


def _model(key: str, block: Mapping[str, Any], folder: Path) -> type[pydantic.BaseModel] | None:
    if key not in PLUGINS:
        return inner_model(StudyKeys, key)
    kind: Kind = key
    try:
        return plugins.options_model(
            plugins.load(kind, str(block.get("name")), folder), SUPPLIED[kind]
        )
    except PluginError:
        return None  # Said when the whole is checked.


def _place(path: tuple[str, ...], stored: Mapping[str, Any], folder: Path) -> KeyPath | None:
    """The path of a key of ``OLD_BEHAVIOUR`` in a stored configuration; None if it has none."""
    if path[0] not in PLUGINS:
        return path
    kind, name = path[0], path[1]
    block = stored.get(kind)
    if not isinstance(block, dict):
        return None
    if block.get("name") != name and not _inherits(kind, str(block.get("name")), path, folder):
        return None
    return (kind, *path[2:])


def _inherits(kind: Kind, name: str, path: tuple[str, ...], folder: Path) -> bool:
    """Whether a class of somebody's own is one of optnas with its option."""
    if ":" not in name:
        return False
    try:
        own = plugins.load(kind, name, folder)
        if not plugins.is_imported(kind, path[1]):  # Else it would be, as a base of it.
            return False
        known = plugins.load(kind, path[1])
        options = plugins.options_model(own, SUPPLIED[kind]).model_fields
    except PluginError:
        return False
    return issubclass(own, known) and path[2] in options


def _fill(block: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set a key that is not there, in copies of the blocks that hold it."""
    *blocks, last = map(str, path)
    for name in blocks:
        if not isinstance(block.get(name), dict):
            return  # A study without data, for example.
        block[name] = dict(block[name])
        block = block[name]
    block.setdefault(last, value)


def _flat(value: Any, path: KeyPath = ()) -> dict[KeyPath, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {k: v for key in value for k, v in _flat(value[key], (*path, key)).items()}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
