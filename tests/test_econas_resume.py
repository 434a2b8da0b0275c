"""EcoNAS on real images, killed and resumed."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import optnas
from optnas.study.opening import open_existing
from optnas.trials.failures import is_lost

STUDY = """
study: cells
space: cell
sampler: {name: econas, initial: 4, cycles: 1, parents: [2, 1, 1]}
pruner: {name: hierarchical, epochs: 2}
data: {name: digits, classes: [0, 1, 7]}
network: {cells: 3, channels: 4}
proxy: c0r0s0e6
"""


def proposals(file: Path) -> list[tuple[dict, float, int]]:
    trials = open_existing(str(file)).study.get_trials(deepcopy=False)
    return [(t.params, t.value, len(t.intermediate_values)) for t in trials if not is_lost(t)]


def run_and_kill(file: Path, trial: int) -> None:
    """Run in a process of its own that is killed after the third epoch of ``trial``."""
    code = f"""
        import os, signal
        from optnas.running import events, runner
        class Killer(events.Display):
            def epoch(self, progress, worker):
                if (progress.number, progress.epoch) == ({trial}, 1):
                    os.kill(os.getpid(), signal.SIGKILL)
        runner.run({str(file)!r}, display=Killer())
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert run.returncode == -signal.SIGKILL, os.strerror(run.returncode)


def test_killed_and_resumed_it_makes_the_same_proposals(tmp_path):
    files = []
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        files.append(folder / "study.yaml")
        files[-1].write_text(STUDY)
    undisturbed, killed = files
    optnas.run(undisturbed)
    run_and_kill(killed, 2)
    run_and_kill(killed, 6)
    optnas.run(killed)
    assert proposals(killed) == proposals(undisturbed)
    assert {epochs for _, _, epochs in proposals(killed)} <= {2, 4, 6}
    assert 6 in {epochs for _, _, epochs in proposals(killed)}
