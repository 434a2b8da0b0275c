"""The line about what is ahead that every run begins with."""

from optnas.config import plugins
from optnas.config.contract import Objective, objective_class
from optnas.forecast.ahead import look_ahead
from optnas.forecast.dry_run import busyness, search_seconds
from optnas.forecast.pace import observed_pace
from optnas.forecast.rehearsing import rehearse_briefly
from optnas.forecast.text import start_line
from optnas.study.opening import OpenStudy
from optnas.trials.failures import one_line


def said_at_start(handle: OpenStudy, objective: Objective) -> str:
    """What a search may take, in a line; empty where nothing is ahead.

    The first networks are tried for a moment, unless trials say how long they take.

    Args:
        handle: The study.
        objective: What trains its trials.
    """
    if handle.is_finished:
        return ""
    config = handle.config
    try:
        ahead = look_ahead(handle)
        if not objective_class(
            plugins.load("objective", config.objective.name, config.folder)
        ).trains:
            return start_line(ahead, None)
        pace, busy = observed_pace(handle), 1.0
        if pace is None:
            pace, busy = rehearse_briefly(handle, objective, ahead), busyness()
        seconds = None if pace is None else search_seconds(handle, ahead, pace, busy)
        return start_line(ahead, seconds)
    except Exception as error:  # Whatever it is, the search is none the worse for it.
        return f"ahead: nobody knows ({one_line(error)})"
