"""optuna-dashboard on a study's storage, for this machine only, with the figures of the search."""

import contextlib
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna_dashboard import save_plotly_graph_object, wsgi

from optnas.errors import UserError
from optnas.report.figures import figures, parents_of
from optnas.report.notes import Notes
from optnas.report.plotly_figures import plotly_figure
from optnas.storage.artifacts import Artifacts, open_artifacts
from optnas.storage.urls import StorageError
from optnas.study.opening import OpenStudy
from optnas.study.record import metric_of

# It has no login: never another address.
HOST = "127.0.0.1"

PAUSE = 5.0
"""Seconds between two looks at the study, at least."""
SHARE = 10
"""A pause is so many times longer than the drawing before it took, so that workers go first."""
LAST = 10.0
"""Seconds in which a drawing may end when the dashboard does."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass  # A page that is open asks every few seconds.


def serve(handle: OpenStudy, port: int, target: str) -> None:
    """Serve the dashboard until Ctrl-C or SIGTERM.

    Args:
        handle: The study whose page is named on stdout; its storage is served whole.
        port: Port on this machine.
        target: How commands name the study.

    Raises:
        UserError: If the port cannot be had.
    """
    study = handle.study
    app = only_own_host(wsgi(study._storage, _artifacts(handle)), port)
    try:
        server = make_server(HOST, port, app, _Server, _Handler)
    except OSError as error:
        raise UserError(f"port {port}: {error.strerror}; name another with --port") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    page = f"http://{HOST}:{port}/dashboard/studies/{study._study_id}"
    print(f"{page}  (Ctrl-C ends)", flush=True)
    print(
        "It has no login and answers this machine only. For others, put a web server with a login "
        f"before it, which passes requests on to {HOST}:{port} with that as their Host.",
        flush=True,
    )
    with server, contextlib.suppress(KeyboardInterrupt), kept_drawn(study, Notes(handle, target)):
        server.serve_forever()


def only_own_host(app: Callable[..., Any], port: int) -> Callable[..., Any]:
    """``app``, but not for pages from elsewhere that a browser on this machine has open.

    A page can give its own name the address of this machine, and send what it likes; the browser
    says the name as ``Host``, and where a request comes from as ``Origin``.
    """
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
    hosts |= {HOST, "localhost"} if port == 80 else set()
    origins = {f"http://{host}" for host in hosts}

    def call(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        foreign = origin is not None and origin.lower() not in origins
        site = environ.get("HTTP_SEC_FETCH_SITE", "none")
        crossing = environ.get("REQUEST_METHOD") not in ("GET", "HEAD") and site == "cross-site"
        if host.lower() in hosts and not foreign and not crossing:
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"This dashboard answers http://{HOST}:{port} only.\n".encode()]

    return call


def _artifacts(handle: OpenStudy) -> Artifacts | None:
    """Where the drawings of the trials are; without it the rest can be watched."""
    try:
        return open_artifacts(handle.config.artifacts, create=False)
    except StorageError as error:
        warnings.warn(f"The trials are shown without drawings: {error}", stacklevel=2)
        return None


class Drawing:
    """The figures of a search, in its study, where the dashboard finds them.

    Args:
        study: The study, with its sampler.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._finished: int | None = None
        self._drawn: dict[str, str] = {}

    def refresh(self) -> bool:
        """Draw again what has changed, if trials were finished since the last time.

        A figure takes the place of the one before of its kind.

        Returns:
            Whether there was something to draw.
        """
        trials = self._study.get_trials(deepcopy=False)
        finished = sum(trial.state.is_finished() for trial in trials)
        if finished == self._finished:
            return False
        plots = figures(trials, parents_of(self._study), metric=metric_of(self._study))
        for name, plot in plots.items():
            figure = plotly_figure(plot)
            drawn = figure.to_json()
            if drawn != self._drawn.get(name):
                save_plotly_graph_object(self._study, figure, graph_object_id=f"optnas-{name}")
                self._drawn[name] = drawn
        self._finished = finished
        return True


@contextlib.contextmanager
def kept_drawn(study: optuna.Study, notes: Notes | None = None) -> Iterator[None]:
    """Draw the figures of ``study`` now and whenever trials have finished, in the background.

    Args:
        study: The study.
        notes: Written at the same times; None writes none.
    """
    drawing, ended = Drawing(study), threading.Event()

    def keep() -> None:
        more = False
        while True:
            began = time.monotonic()
            try:
                more = drawing.refresh() or more
                if more and notes is not None:
                    more = notes.refresh(study.get_trials(deepcopy=False))
            except Exception as error:  # A storage may fail as it likes; the next look may not.
                warnings.warn(f"The figures were not drawn: {error}", stacklevel=1)
            if ended.wait(max(PAUSE, SHARE * (time.monotonic() - began))):
                return

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LAST)
