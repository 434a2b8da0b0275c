"""What the methods of a study answer, as programs, terminals and notebooks see it."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from markupsafe import escape

from optnas.drawing.attach import best_picture
from optnas.drawing.shapes import svg
from optnas.report.text import best_text
from optnas.running.runner import Outcome
from optnas.storage.urls import hide_password
from optnas.study.opening import OpenStudy

SENTENCES = {
    "finished": "The search is finished.",
    "budget": "The budget is used up.",
    "interrupted": "Interrupted; nothing is lost.",
    "terminated": "Terminated; nothing is lost.",
}


def command_target(handle: OpenStudy) -> str:
    """How commands name a study, from wherever they are given; without its password."""
    return shlex.join([hide_password(handle.config.storage), handle.study.study_name])


class Answer(dict[str, Any]):
    """Fields, shown as the text that a command prints of them."""

    def __init__(self, fields: Mapping[str, Any], text: str) -> None:
        super().__init__(fields)
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text)}</pre>"


@dataclasses.dataclass(frozen=True)
class ShownOutcome(Outcome):
    """How a run ended; a notebook shows the network found, drawn, and how to go on."""

    def __repr__(self) -> str:
        return f"{SENTENCES[self.ending]}\n{best_text(self.opened, command_target(self.opened))}"

    def _repr_html_(self) -> str:
        picture = best_picture(self.opened)
        drawing = "" if picture is None else svg(picture)
        return f"<pre>{escape(repr(self))}</pre>{drawing}"
