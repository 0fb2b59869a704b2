"""What the record of a run and a list of runs cost; JSON, one line.

python bench/records.py FOLDER [RUNS]
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.domain.json import encode
from tandem.engine.queries import Queries
from tandem.ports.store import RunSearch
from tandem.testing.store_suite import Scene, chain, succeeded

RUN = RunId("measured")
NODES = 5
OUTPUT = encode({"text": "x" * 1_000})
COPY = """
WITH RECURSIVE many (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM many WHERE number < ?)
INSERT INTO run ({columns}) SELECT {values} FROM run, many WHERE run_id = 'measured'
"""


async def fill(store: SqliteStore, runs: int, *, output: bytes = OUTPUT) -> None:
    """Let one run come to its end, and copy its row: lists read nothing else."""
    scene = Scene(store)
    view = await scene.claimed(RUN, chain(NODES))
    await store.apply(scene.next(view))
    for number in range(NODES):
        await store.apply(scene.next(view, succeeded(number, output=output)))
    connection = store.committer.connection
    described = connection.execute("PRAGMA table_info(run)").fetchall()
    names = [str(row[1]) for row in described if row[1] != "run_no"]
    values = [
        {
            "run_id": "'copy-' || number",
            "created_at_ms": "created_at_ms + number",
            "detail": "'copy number ' || number",
        }.get(name, name)
        for name in names
    ]
    copy = COPY.format(columns=", ".join(names), values=", ".join(values))
    connection.execute("BEGIN")
    connection.execute(copy, (runs - 1,)).fetchall()
    connection.execute("COMMIT")


def spent_us(what: Callable[[], object], *, times: int) -> float:
    """Return the least of five means, in microseconds of processor time."""
    what()
    means = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            what()
        means.append((time.process_time() - began) / times * 1e6)
    return round(min(means), 1)


def main() -> None:
    """Measure and print."""
    folder, runs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    store = SqliteStore(folder / "records.db", synchronous="OFF")
    asyncio.run(fill(store, runs))
    queries = Queries(store)
    fresh = Queries(store, records_bytes_max=0, summaries_bytes_max=0)
    everyone = RunSearch(tenant=LOCAL_TENANT)

    def listed(**search: object) -> Callable[[], object]:
        asked = RunSearch(tenant=LOCAL_TENANT, **search)  # type: ignore[arg-type] # by name
        return lambda: encode(fresh.run_summaries(asked).runs)

    first_ms = store.search_runs(everyone).runs[-1].created_at_ms
    print(
        json.dumps(
            {
                "runs": runs,
                "record_bytes": len(queries.run_json(RUN, tenant=LOCAL_TENANT)),
                "record_unchanged_us": spent_us(
                    lambda: queries.run_json(RUN, tenant=LOCAL_TENANT), times=2_000
                ),
                "record_changed_us": spent_us(
                    lambda: fresh.run_json(RUN, tenant=LOCAL_TENANT), times=300
                ),
                "list_50_unchanged_us": spent_us(
                    lambda: encode(queries.run_summaries(everyone).runs), times=300
                ),
                "list_50_us": spent_us(listed(), times=100),
                "list_50_of_a_span_us": spent_us(listed(created_until_ms=first_ms), times=100),
                "list_50_by_text_us": spent_us(listed(text="copy number 9"), times=30),
                "list_nothing_found_us": spent_us(listed(text="nowhere"), times=10),
            }
        )
    )
    store.close()


if __name__ == "__main__":
    main()
