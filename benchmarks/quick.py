"""A little of every benchmark, beside what was recorded last: under three minutes on two cores.

    python benchmarks/quick.py [--record]

Every ratio is printed with the recorded one. One that fell by more than a fifth is flagged, and
the exit code is 1. `--record` writes what is measured to benchmarks/recorded.json instead, with
the hardware and the versions; ratios of other hardware say little.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import epoch
import orchestration
import startup
from _harness import Row, about, measure, record

RECORDED = Path(__file__).parent / "recorded.json"
DROP = 0.2
"""The greatest part of a ratio that may be lost."""


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
    cases = itertools.chain(
        startup.cases(quick=True),
        epoch.cases(epoch.options_of(["--quick"])),
        orchestration.cases(quick=True),
    )
    rows = measure(cases, None)
    if options.record:
        record(RECORDED, about(), rows)
        return
    if not RECORDED.exists():
        sys.exit("Nothing was recorded yet: `python benchmarks/quick.py --record` does it.")
    stored = json.loads(RECORDED.read_text())
    recorded = {name: Row(**fields) for name, fields in stored["rows"].items()}
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
