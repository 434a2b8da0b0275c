"""Keys of a study file that a command says otherwise: ``--set train.lr=0.1``."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from optnas.config.checks import BLOCKS
from optnas.config.messages import StudyFileError
from optnas.config.yaml import KeyPath, YamlError, parse


@dataclasses.dataclass(frozen=True)
class Override:
    """A key that is said otherwise.

    Args:
        path: The key.
        value: What it is to be.
        text: How it was written: ``train.lr=0.1``.
    """

    path: tuple[str, ...]
    value: Any
    text: str


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """What ``--set`` was given.

    Args:
        texts: ``KEY=VALUE`` or ``KEY.KEY=VALUE`` each, the value as in a study file.

    Raises:
        StudyFileError: If one is not of this form.
    """
    return [_parsed(text) for text in texts]


def overridden(data: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """What a study file says, with some keys said otherwise; a later one wins.

    Raises:
        StudyFileError: If a key is within something that has no keys.
    """
    changed = dict(data)
    for override in overrides:
        block = changed
        for depth, key in enumerate(override.path[:-1]):
            inner = block.get(key)
            if depth == 0 and key in BLOCKS and isinstance(inner, str):
                inner = {"name": inner}  # A name alone stands for a block with that name.
            if inner is not None and not isinstance(inner, Mapping):
                raise StudyFileError(
                    f"--set {override.text}: {'.'.join(override.path[: depth + 1])} is "
                    f"{inner!r} in the file, which has no keys"
                )
            block[key] = dict(inner or {})
            block = block[key]
        block[override.path[-1]] = override.value
    return changed


def places(overrides: Sequence[Override], lines: Collection[KeyPath]) -> dict[KeyPath, str]:
    """Where each key was said, for messages; ``lines`` are the keys of the file."""
    said: dict[KeyPath, str] = {}
    for override in overrides:
        blocks = [override.path[:depth] for depth in range(1, len(override.path))]
        new = [block for block in blocks if block not in lines]
        said |= dict.fromkeys([*new, override.path], f"--set {override.text}")
    return said


def _parsed(text: str) -> Override:
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise StudyFileError(f"--set {text}: expected KEY=VALUE, as in --set train.lr=0.1")
    try:
        document = parse(f"value: {value}")
    except YamlError as error:
        raise StudyFileError(f"--set {text}: {error}") from None
    return Override(path, document.data["value"], text)
