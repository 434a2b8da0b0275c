"""Files that are written whole or not at all."""

import contextlib
import os
import uuid
from pathlib import Path

from optnas.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        UserError: If it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):  # What stops a writer stops this, too.
            partial.unlink(missing_ok=True)
