"""The pages of the manual as tests read them: their blocks of code, and tutorials that are run."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from optnas import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]*)\")?\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)
RUN_BELOW = "<!-- run below -->\n"
"""Before a block whose lines all come again on the page."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        language: As the page says; empty for what a terminal shows.
        title: The file that it is; empty if it is none.
        text: Its lines.
        comes_again: Whether its lines all come again on the page.
    """

    language: str
    title: str
    text: str
    comes_again: bool = False


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The blocks of a page, or those of a language."""
    text = page.read_text()
    found = [
        Block(
            match["language"],
            match["title"] or "",
            textwrap.dedent(match["text"]),
            text[: match.start()].endswith(RUN_BELOW),
        )
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if language in (None, block.language)]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text())


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a block for a shell, as words; what a shell does with them is left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("srun "), comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        end = next((i for i, word in enumerate(words) if re.match(r"[|&;<>]", word)), len(words))
        if words[:end]:
            yield words[:end]


def run_page(
    page: Path, folder: Path, capsys: pytest.CaptureFixture[str], places: Mapping[str, str]
) -> None:
    """Do in a folder what a tutorial says, from the top to the bottom.

    Blocks with a title become files; commands are run, those of optnas in this process, unless a
    shell does more with them; and what a page shows of an answer must be in it.

    Args:
        page: The page.
        folder: An empty folder, which must be the current one.
        capsys: What hears the commands.
        places: What the page says, by what takes its place: a server's URL.
    """
    said = ""
    for block in blocks(page):
        text = block.text
        for place, own in places.items():
            text = text.replace(place, own)
        if block.title:
            (folder / block.title).write_text(text)
        elif block.language == "sh" and not block.comes_again:
            said = "".join(_done(line, folder, capsys) for line in _lines(text))
        elif block.language == "text":
            missing = [line for line in text.splitlines() if line not in said]
            assert not missing, said
    again = {
        line for block in blocks(page, "sh") if block.comes_again for line in _lines(block.text)
    }
    others = [b.text for b in blocks(page, "sh") if not b.comes_again]
    assert again <= {line for text in others for line in _lines(text)}


def _lines(text: str) -> list[str]:
    """Commands, one after the other; those that go together in the shell stay together."""
    if "&\n" in text:
        return [text]
    return text.replace("\\\n", " ").splitlines()


def _done(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    words = shlex.split(line, comments=True)
    if words[0] != "optnas" or list(commands(line)) != [words]:
        return _in_a_shell(line, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code in (0, None), f"{line}\n{out}{err}"
    return out + err


def _in_a_shell(text: str, folder: Path) -> str:
    own = folder / ".bin"
    if not own.exists():
        own.mkdir()
        for name, code in (
            ("python", '"$@"'),
            ("optnas", '-c "from optnas.cli import main; main()" "$@"'),
        ):
            (own / name).write_text(f"#!/bin/sh\nexec {sys.executable} {code}\n")
            (own / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-c", text],
        cwd=folder,
        env=os.environ | {"PATH": f"{own}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
