"""Study files with anything in them: a configuration, or one message that says what is wrong."""

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optnas.config.file import StudyFile, load_study_file
from optnas.config.messages import StudyFileError

EXAMPLES = int(os.environ.get("MUTATIONS", "100"))
"""Files of each kind; `make stress` asks for more."""
STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.yaml"))
KEYS = sorted({*StudyFile.model_fields, "name", "epochs", "sizes"})
# fmt: off
TEXTS = (
    "digits", "../..", "/etc/passwd", "s3://b", "sqlite:///", "os:system", "a:b:c", "\0", "1e5",
    "2026-11-22", "cuda:99", "best:0", "c4r4s0e60", "c0r0s0e0", "~nobody/x", "all", "none",
)
PIECES = (
    b":", b"- ", b"{", b"}", b"[", b"]", b"\t", b"\n", b"\0", b"\xff", b"&a ", b"*a", b"<<: *a\n",
    b"? ", b"|", b"---\n", b"'", b'"', b"0o9", b".nan", b"2020-13-45", b"\xef\xbb\xbf", b"%YAML 9",
    b"!!python/object/apply:os.system [id]", b"!!binary x", b"!!set {a}", b"!!int x", b"[" * 3000,
)
# fmt: on
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(TEXTS)
    | st.text(max_size=9)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(SCALARS, inner), max_leaves=5
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a document."""
    inner: Any = enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, dict):
        inner = value.items()
    return [path, *(deeper for key, v in inner for deeper in places(v, (*path, key)))]


@st.composite
def changed_documents(draw: st.DrawFn) -> bytes:
    """A study with up to three values changed, taken away or added."""
    document = yaml.safe_load(draw(st.sampled_from(STUDIES)).read_bytes())
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(document)[1:] or [("study",)]))
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        change = draw(st.sampled_from(("change", "add", "remove")))
        if change == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(KEYS))] = draw(VALUES)
        elif change == "remove" and len(document) > 1:
            holder.pop(path[-1], None) if isinstance(holder, dict) else holder.pop()
        else:
            holder[path[-1]] = draw(VALUES)
    try:
        return yaml.safe_dump(document, allow_unicode=True).encode()
    except UnicodeEncodeError:  # Lone surrogates.
        return repr(document).encode(errors="replace")


@st.composite
def changed_bytes(draw: st.DrawFn) -> bytes:
    """A study with pieces cut out of its text and others put in."""
    text = draw(st.sampled_from(STUDIES)).read_bytes()
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        stop = start + draw(st.sampled_from((0, 1, 3, 20)))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.binary(max_size=3)) + text[stop:]
    return text


@pytest.mark.parametrize(
    "mutated", [changed_documents(), changed_bytes()], ids=["values", "bytes"]
)
def test_whatever_is_in_a_study_file_one_message_says_it(mutated, tmp_path):
    path = tmp_path / "study.yaml"

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(mutated)
    def check(text: bytes) -> None:
        path.write_bytes(text)
        with contextlib.suppress(StudyFileError), warnings.catch_warnings(action="ignore"):
            load_study_file(path)

    check()
    assert list(tmp_path.iterdir()) == [path]
