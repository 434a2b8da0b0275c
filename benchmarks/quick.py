"""A little of every benchmark, beside what was recorded last: under three minutes on two cores.

    python benchmarks/quick.py [--record]

Every ratio is printed with the recorded one. One that fell by more than a fifth, and still does
when it is measured again, is flagged, and the exit code is 1. `--record` measures everything three
times and writes the least ratios to benchmarks/recorded.json instead, with the hardware and the
versions: from one minute to the next a machine's memory makes the plain loop up to 1.7 times as
slow. Ratios of other hardware say little.
"""

import argparse
import itertools
import json
import sys
from operator import attrgetter
from pathlib import Path

import epoch
import orchestration
import startup
from _harness import Cases, Row, about, measure, record

RECORDED = Path(__file__).parent / "recorded.json"
DROP = 0.2
"""The greatest part of a ratio that may be lost."""
RATIO = attrgetter("ratio")
PASSES = 3
"""How often everything is measured for the record."""


def cases() -> Cases:
    """A little of every benchmark."""
    return itertools.chain(
        startup.cases(quick=True),
        epoch.cases(epoch.options_of(["--quick"])),
        orchestration.cases(quick=True),
    )


def dropped(rows: dict[str, Row], recorded: dict[str, Row]) -> list[str]:
    """Names of the comparisons whose ratio fell by more than `DROP`, in time and in work."""
    fallen = []
    for name, row in rows.items():
        before = recorded.get(name)
        if before is None:
            continue
        # Other programs on the machine disturb times; processor times tell a drop from them.
        pairs = [(row.ratio, before.ratio)]
        if row.work is not None and before.work is not None:
            pairs.append((row.work, before.work))
        if all(now < (1 - DROP) * then for now, then in pairs):
            fallen.append(name)
    return fallen


def main() -> None:
    """Measure, and compare with the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="Record what is measured.")
    options = parser.parse_args()
    if options.record:
        passes = [measure(cases(), None) for _ in range(PASSES)]
        least = {name: min((each[name] for each in passes), key=RATIO) for name in passes[0]}
        record(RECORDED, about(), least)
        return
    if not RECORDED.exists():
        sys.exit("Nothing was recorded yet: `python benchmarks/quick.py --record` does it.")
    rows = measure(cases(), None)
    stored = json.loads(RECORDED.read_text())
    recorded = {name: Row(**fields) for name, fields in stored["rows"].items()}
    if fallen := dropped(rows, recorded):
        print("\nOnce more:\n")
        repeated = measure((case for case in cases() if case[0] in fallen), None)
        rows.update({name: max(rows[name], repeated[name], key=RATIO) for name in fallen})
        fallen = dropped(rows, recorded)
    print("\nRecorded on " + ", ".join(f"{k} {v}" for k, v in stored["about"].items()))
    print("\n| | now | recorded | |\n|---|---|---|---|")
    for name, row in rows.items():
        before = f"{recorded[name].ratio:.2f}" if name in recorded else "-"
        print(f"| {name} | {row.ratio:.2f} | {before} | {'DROPPED' if name in fallen else ''} |")
    if fallen:
        sys.exit(f"{len(fallen)} of {len(rows)} ratios fell by more than {DROP:.0%}.")


if __name__ == "__main__":
    main()
