"""The rows of a table as a search space: networks that are known by their number alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from optnas.spaces.base import Architecture, ParamValue
from optnas.spaces.choices import Choices, ChoiceSpace


@dataclasses.dataclass(frozen=True)
class Row(Architecture):
    """A network of a table; ``str()`` gives its number.

    Args:
        row: The row of the table, from 0.

    Raises:
        ValueError: If the row is negative.
    """

    row: int

    def __post_init__(self) -> None:
        if self.row < 0:
            raise ValueError(f"`row` must be greater than or equal to 0: {self.row}.")

    def __str__(self) -> str:
        return str(self.row)


class RowSpace(ChoiceSpace[Row]):
    """The networks of a table, in no relation to one another.

    A trial's one parameter is ``row``.

    Args:
        rows: Number of networks.

    Raises:
        ValueError: If there is none.
    """

    architecture_class: ClassVar[type[Row]] = Row

    def __init__(self, rows: int) -> None:
        if rows < 1:
            raise ValueError(f"`rows` must be greater than or equal to 1: {rows}.")
        self.rows = rows
        self.choices: dict[str, Choices] = {"row": range(rows)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rows={self.rows})"

    def to_params(self, architecture: Row) -> dict[str, ParamValue]:
        return {"row": architecture.row}

    def _build(self, params: Mapping[str, Any]) -> Row:
        return Row(int(params["row"]))
