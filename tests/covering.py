"""The share of lines and branches that the tests run through, for `pytest --coverage-floor N`.

SlipCover measures it, in every process of pytest-xdist: a tracer would double the processor time
of the tests on Python 3.11. What a test starts as a process of its own is not measured.
"""

import json
from typing import Any

import pytest
import slipcover

SOURCE = ["optnas", "samplers", "objectives"]


class Covering:
    """What one process of a test run has measured, and in the first process what all have.

    Args:
        config: pytest's.
        floor: In per cent. The run fails below it.
    """

    def __init__(self, config: pytest.Config, floor: float) -> None:
        self.output = getattr(config, "workeroutput", None)  # Of a worker of pytest-xdist.
        self.floor = floor
        # The first process counts the modules that no test imports.
        self.measured = slipcover.Slipcover(
            branch=True, source=None if self.output is not None else SOURCE
        )
        self.of_workers: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        matcher = slipcover.FileMatcher(sources=SOURCE)
        self.importing = slipcover.ImportManager(self.measured, matcher)
        self.importing.__enter__()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker has measured; one that crashed has left nothing."""
        if sent := getattr(node, "workeroutput", {}).get("coverage"):
            self.of_workers.append(json.loads(sent))

    # After pytest-xdist has ended its workers.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Add up, and fail a run that has passed but for its coverage."""
        self.importing.__exit__()
        coverage = self.measured.get_coverage()
        if self.output is not None:
            self.output["coverage"] = json.dumps(coverage)
            return
        for other in self.of_workers:
            slipcover.merge_coverage(coverage, other)
        self.summary = coverage["summary"]
        if exitstatus == pytest.ExitCode.OK and self.summary["percent_covered"] < self.floor:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the figure, and what is missing to the floor."""
        if not self.summary:
            return
        lines, branches = (self._share(kind) for kind in ("lines", "branches"))
        total = self.summary["percent_covered"]
        text = f"Coverage: {total:.2f} % (lines {lines:.2f} %, branches {branches:.2f} %)"
        low = total < self.floor
        comparison = "below" if low else "above"
        terminalreporter.write_line(
            f"{text}, {comparison} the floor of {self.floor:g} %", red=low, green=not low
        )

    def _share(self, kind: str) -> float:
        covered, missing = self.summary[f"covered_{kind}"], self.summary[f"missing_{kind}"]
        return 100 * covered / ((covered + missing) or 1)
