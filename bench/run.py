"""`make bench`: each workload several times in a fresh process; JSON lines, then a table.

python bench/run.py [--repeat N] [NAME ...]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("bare", "chain", "many", "fan", "growth")
COLUMNS = ("nodes_per_s", "ms_per_node", "cpu_ms_per_node", "commits_per_node", "bytes_per_node")


def measure(name: str, folder: str) -> dict[str, float]:
    """Run one workload in a process of its own, with its store in `folder`."""
    script = Path(__file__).with_name("workloads.py")
    done = subprocess.run(
        [sys.executable, str(script), name, folder],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(done.stdout.strip(), flush=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    medians: dict[str, dict[str, float]] = {}
    # Removed at the end only: ext4 without a journal is slow to make files for minutes after
    # thousands were removed, and one measurement would spoil the next.
    where = os.environ.get("TANDEM_BENCH_DIR")
    with tempfile.TemporaryDirectory(prefix="tandem-bench-", dir=where) as folder:
        for name in arguments.names:
            results = [
                measure(name, tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
                for _ in range(arguments.repeat)
            ]
            keys = [key for key, value in results[0].items() if isinstance(value, int | float)]
            medians[name] = {key: statistics.median(r[key] for r in results) for key in keys}
    print(f"\nmedians of {arguments.repeat}, full durability")
    print(f"{'workload':10}" + "".join(f"{column:>18}" for column in COLUMNS))
    for name, median in medians.items():
        print(f"{name:10}" + "".join(f"{median.get(column, 0):>18,.4g}" for column in COLUMNS))
        if "batch5_by_batch1" in median:
            print(f"{'':10}batch 5 / batch 1 = {median['batch5_by_batch1']}")
    if {"bare", "many"} <= medians.keys():
        share = medians["many"]["nodes_per_s"] / medians["bare"]["nodes_per_s"]
        print(f"many / bare = {share:.2f}: what is left of the statements' own speed")


if __name__ == "__main__":
    main()
