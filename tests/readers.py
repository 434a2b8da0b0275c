"""What tests read of pages and of databases."""

from html.parser import HTMLParser
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from optnas.storage.opening import open_storage


class Reader(HTMLParser):
    """The tags of a page with their attributes, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every such tag."""
        return [attrs for name, attrs in self.tags if name == tag]

    def counts(self) -> dict[str, int]:
        """How often each tag comes."""
        names = [name for name, _ in self.tags]
        return {name: names.count(name) for name in names}


def studies(journal: Path) -> dict[str, list[FrozenTrial]]:
    """The trials of every study of a journal, by name."""
    storage = open_storage(f"journal:///{journal}", create=False)
    names = optuna.get_all_study_names(storage)
    return {n: optuna.load_study(study_name=n, storage=storage).trials for n in names}
