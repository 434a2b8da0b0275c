"""What can be named, in a line each: read from the sources, it is what importing would say."""

import subprocess
import sys

import pytest

from optnas.extensions import describing
from optnas.report import text


def test_the_lines_are_those_of_what_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    read = text.known_fields()
    assert all(all(lines.values()) for lines in read.values())
    monkeypatch.setattr(text, "described", lambda *_: None)
    assert text.known_fields() == read


def test_what_a_source_does_not_say_is_none_of_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describing.described("optnas.data", "nothing") is None

    class Entry:
        module, attr = "optnas.report.text", "SHOWN"

    monkeypatch.setattr(describing, "entry_points", lambda **_: [Entry])
    assert describing.described("optnas.data", "anything") is None
    Entry.module = "optnas.no.such"
    assert describing.described("optnas.data", "anything") is None
    Entry.module, Entry.attr = "optnas.report.text", "known_text"
    assert describing.described("optnas.data", "anything") == "The same, as tables."


def test_listing_imports_neither_torch_nor_scipy() -> None:
    code = (
        "import sys; from optnas.report.text import known_fields, known_text\n"
        "known_text(known_fields())\n"
        "print(sorted({'torch', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
