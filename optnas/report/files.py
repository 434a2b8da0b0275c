"""The files of a report: the page, and the table of trials beside it."""

from pathlib import Path
from typing import Literal

from optnas.errors import UserError
from optnas.pages.frame import write_page
from optnas.pages.markdown import markdown
from optnas.report.costs import NetworkCosts
from optnas.report.page import report, report_page
from optnas.report.trials import BEGIN, trials_csv
from optnas.storage.files import write_whole
from optnas.study.folders import page_path
from optnas.study.opening import OpenStudy

Format = Literal["html", "md"]


def write_report(
    handle: OpenStudy,
    target: str,
    costs: NetworkCosts,
    output: Path | None = None,
    form: Format | None = None,
) -> tuple[Path, Path]:
    """Write a study's page, and its trials as a CSV file of the same name beside it.

    Args:
        handle: The study.
        target: How commands name it.
        costs: What the page shows beyond what the trials say.
        output: The page; None puts it beside the storage.
        form: Its form; None takes Markdown for a name that ends with ``.md``, else HTML.

    Returns:
        The page, and the table.

    Raises:
        UserError: If there is nothing to report yet, or a file cannot be written, or is one of
            somebody else.
    """
    if form is None:
        form = "md" if output is not None and output.suffix.lower() == ".md" else "html"
    path = output or page_path(handle, f".{form}")
    table = path.with_name(f"{path.name.removesuffix(path.suffix)}.csv")
    _check_own(table)
    if form == "md":
        page = markdown(report(handle, target, costs))
    else:
        page = report_page(handle, target, costs)
    rows = trials_csv(handle, costs)
    write_page(path, page)
    write_whole(table, rows.encode("utf-8", errors="backslashreplace"))
    return path, table


def _check_own(table: Path) -> None:
    """Refuse to write over a file that no report wrote."""
    try:
        with table.open("rb") as file:
            begin = file.read(len(BEGIN))
    except OSError:
        return  # None is there, or writing will say what is wrong.
    if begin and begin != BEGIN.encode():
        raise UserError(
            f"{table} is no table of trials, and is where this report's would go: name another "
            "page with --output, or move it"
        )
