"""What a study file or a Python mapping holds, as JSON's values, before its keys are looked at."""

import os.path
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optnas.config.messages import Source, StudyFileError, found
from optnas.config.yaml import MAX_DEPTH, KeyPath

#: A study file is a page of text; what is longer is another file.
MAX_BYTES = 1 << 16


def read_text(path: Path) -> str:
    """What is in a study file.

    Raises:
        StudyFileError: If there is no such file, or it is no text of a page or two.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise StudyFileError(f"{path}: expected a file, but this is a folder or a device")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        twin = path.with_suffix(".yml" if path.suffix == ".yaml" else ".yaml")
        hint = (
            f"did you mean {twin}?" if twin.exists() else "`optnas init` writes one to start from"
        )
        raise StudyFileError(f"{path}: no such file; {hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyFileError(f"{path}: cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise StudyFileError(f"{path}: larger than 64 KiB, so not a study file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StudyFileError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None


def json_values(value: Any, path: KeyPath, source: Source) -> Any:
    """Python's values as JSON's: tuples as lists and paths as strings.

    Args:
        value: The value.
        path: Its key.
        source: Where it was written.

    Raises:
        StudyFileError: If JSON has no such value.
    """
    if len(path) > MAX_DEPTH:
        raise source.error(path[:3], f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise source.error(path, f"every key must be a string {found(wrong[0])}")
        return {key: json_values(value[key], (*path, key), source) for key in value}
    if isinstance(value, (list, tuple)):
        return [json_values(item, (*path, i), source) for i, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise source.error(path, f"expected text without lone surrogates {found(value)}")
    if value is None or isinstance(value, (str, int, float)):
        return value
    text = f"expected a string, a number, a bool, None, a list or a mapping {found(value)}"
    raise source.error(path, text)
