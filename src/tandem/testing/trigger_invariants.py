"""What must hold of schedules, handoffs, deliveries and keyed requests after every commit.

The instants of a schedule are computed here once more, in plain numbers: what the engine decided
must account for each of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from tandem.domain.firing import FiringOutcome
from tandem.domain.timetable import COUNTED_MAX
from tandem.domain.trigger import TriggerType
from tandem.domain.webhook import DeliveryStatus
from tandem.domain.webhook_delivery import DELIVERY_PREFIX

CRON = "*/2 * * * * *"
"""The only cron expression of simulated worlds: every even second."""
_CRON_MS = 2_000

Row = dict[str, Any]


class Find(Protocol):
    """Asks the store."""

    def __call__(self, sql: str, *values: object) -> list[Row]:
        """Return the rows."""
        ...


class TriggerInvariants:
    """Follows what starts runs by itself. `may_be_gone` says that somebody deletes a run."""

    def __init__(
        self,
        find: Find,
        *,
        may_be_gone: Callable[[str], bool],
        must: Callable[[bool, str], None],
    ) -> None:
        self._find = find
        self._may_be_gone = may_be_gone
        self._must = must
        self._automations: dict[int, Row] = {}
        self._firings: dict[tuple[int, str], Row] = {}
        self._open: set[int] = set()
        self._keys: defaultdict[str, set[str]] = defaultdict(set)
        self._answers: dict[str, str] = {}

    def check(self, runs: Sequence[Row]) -> None:
        """Check everything about triggers against these runs, which are all there are."""
        by_id = {run["run_id"]: run for run in runs}
        started: dict[str, dict[str, Row]] = {
            kind: {run["run_id"]: run for run in runs if run["trigger_type"] == kind}
            for kind in (TriggerType.SCHEDULED, TriggerType.WATCH_CONDITION, TriggerType.WEBHOOK)
        }
        self._check_schedules(runs, started[TriggerType.SCHEDULED])
        self._check_handoffs(by_id, started[TriggerType.WATCH_CONDITION])
        self._check_deliveries(by_id, started[TriggerType.WEBHOOK])
        self._check_keys(by_id)
        self._open = {run["run_no"] for run in runs if run["finished_at_ms"] is None}

    # Schedules

    def _check_schedules(self, runs: Sequence[Row], started: Mapping[str, Row]) -> None:
        new: defaultdict[int, list[Row]] = defaultdict(list)
        found = self._find("SELECT * FROM firing WHERE trigger_type = ?", TriggerType.SCHEDULED)
        for firing in found:
            key = (firing["automation_no"], firing["occurrence"])
            known = self._firings.setdefault(key, firing)
            self._must(known == firing, f"the firing {known} was decided again: {firing}")
            if known is firing:
                new[firing["automation_no"]].append(firing)
        made = Counter(f["run_id"] for f in found if f["outcome"] == FiringOutcome.CREATED)
        for run_id, count in made.items():
            there = run_id in started or self._may_be_gone(run_id)
            self._must(count == 1 and there, f"run {run_id} has {count} firings; there: {there}")
        for run_id in started:
            self._must(made[run_id] == 1, f"run {run_id} was started by no firing")
        by_no = {run["run_no"]: run for run in runs}
        for row in self._find("SELECT * FROM automation"):
            self._check_schedule(row, new[row["automation_no"]])
            self._check_waker(row, by_no)
            self._check_alone(row, new[row["automation_no"]], by_no)
            self._automations[row["automation_no"]] = row

    def _check_schedule(self, row: Row, new: Sequence[Row]) -> None:
        what = f"the schedule of {row['automation_id']} ({row['schedule']})"
        until_ms, next_ms = row["fired_until_ms"], row["next_fire_at_ms"]
        if next_ms is not None and until_ms is not None:
            following = _first_after(row, until_ms)
            self._must(next_ms == following, f"{what} goes on at {next_ms}, not {following}")
        before = self._automations.get(row["automation_no"])
        if before is None or before["last_change_id"] != row["last_change_id"]:
            return  # it was saved, paused or resumed: it may begin anew
        since_ms = before["fired_until_ms"]
        if since_ms == until_ms:
            self._must(not new, f"{what} stands at {until_ms}, but: {new}")
        elif since_ms is not None:
            fell = _count(row, since_ms, until_ms)
            told = sum(1 + firing["missed"] for firing in new)
            self._must(
                told == min(fell, COUNTED_MAX) or self._comes_again(row, since_ms, new),
                f"{what}: {fell} instants fell due from {since_ms} to {until_ms}, told are {new}",
            )
            outside = [f for f in new if not since_ms < f["due_at_ms"] <= until_ms]
            self._must(not outside, f"{what} decided {outside} from {since_ms} to {until_ms}")

    def _comes_again(self, row: Row, since_ms: int, new: Sequence[Row]) -> bool:
        """Say whether the watermark has passed instants that were decided before.

        A restored automation begins at the clock of now, which may have been set back.
        """
        number, until_ms = row["automation_no"], row["fired_until_ms"]
        return any(
            number == firing["automation_no"]
            and since_ms < firing["due_at_ms"] <= until_ms
            and firing not in new
            for firing in self._firings.values()
        )

    def _check_waker(self, row: Row, by_no: Mapping[int, Row]) -> None:
        """A firing that is put off waits for a run that can still end."""
        if row["deferred_by"] is None:
            return
        holder = by_no.get(row["deferred_by"])
        lives = holder is not None and holder["finished_at_ms"] is None
        self._must(lives, f"{row['automation_id']} waits for the end of {holder}, which is over")

    def _check_alone(self, row: Row, new: Sequence[Row], by_no: Mapping[int, Row]) -> None:
        """Nothing is fired while a run of the automation has not ended."""
        if not any(firing["run_id"] for firing in new):
            return
        for run_no in self._open & by_no.keys():
            run = by_no[run_no]
            is_its = run["automation_id"] == row["automation_id"] and run["automation_version"]
            self._must(
                not is_its or run["finished_at_ms"] is not None,
                f"{new} although run {run['run_id']} has not ended",
            )

    # Handoffs

    def _check_handoffs(self, by_id: Mapping[str, Row], started: Mapping[str, Row]) -> None:
        taken = self._find("SELECT * FROM consumed_handoff")
        made = Counter(row["run_id"] for row in taken)
        for row in taken:
            run = by_id.get(row["run_id"])
            if run is None:
                self._must(self._may_be_gone(row["run_id"]), f"{row} has no run")
            else:
                same = run["consumed_handoff_id"] == row["handoff_id"]
                self._must(same, f"run {run['run_id']} is of {run['consumed_handoff_id']}: {row}")
        for run_id in started:
            self._must(made[run_id] == 1, f"run {run_id} has {made[run_id]} handoffs")

    # Deliveries

    def _check_deliveries(self, by_id: Mapping[str, Row], started: Mapping[str, Row]) -> None:
        found = self._find("SELECT delivery_id, status, run_id, delivery FROM webhook_delivery")
        made = Counter(row["run_id"] for row in found if row["status"] == DeliveryStatus.ACCEPTED)
        bodies: Counter[str] = Counter()
        for row in found:
            told = msgspec.json.decode(row["delivery"])
            if row["status"] in (DeliveryStatus.ACCEPTED, DeliveryStatus.RECEIVED):
                bodies[told["body_digest"]] += 1
            own = f"automation-v2-run-{row['delivery_id'].removeprefix(DELIVERY_PREFIX)}"
            if row["status"] == DeliveryStatus.ACCEPTED:
                there = row["run_id"] in by_id or self._may_be_gone(row["run_id"])
                self._must(there, f"delivery {row['delivery_id']} has no run")
            else:
                self._must(own not in by_id, f"{row} has a run of its own")
        for run_id in started:
            self._must(made[run_id] == 1, f"run {run_id} has {made[run_id]} deliveries")
        twice = {body: count for body, count in bodies.items() if count > 1}
        self._must(not twice, f"the same bodies are taken again: {twice}")

    # Keys

    def expect_key(self, key: str, run_id: str) -> None:
        """Say that a request with this key asks for a run, which would have this id."""
        self._keys[key].add(run_id)

    def answered(self, key: str, run_id: str) -> None:
        """Say which run a request with this key was told."""
        before = self._answers.setdefault(key, run_id)
        self._must(before == run_id, f"key {key} was told {before}, and then {run_id}")
        self._must(run_id in self._keys[key], f"key {key} was told {run_id} of another request")

    def _check_keys(self, by_id: Mapping[str, Row]) -> None:
        for key, run_ids in self._keys.items():
            there = run_ids & by_id.keys()
            self._must(len(there) <= 1, f"key {key} has the runs {sorted(there)}")


def _first_after(row: Row, moment_ms: int) -> int:
    """Return the first instant of a schedule after its watermark."""
    schedule = msgspec.json.decode(row["schedule"])
    if schedule["type"] == "interval":
        return moment_ms + int(schedule["interval_seconds"]) * 1_000
    return (moment_ms // _CRON_MS + 1) * _CRON_MS


def _count(row: Row, after_ms: int, until_ms: int) -> int:
    """Return how many instants of a schedule are after a moment and not after another one."""
    schedule = msgspec.json.decode(row["schedule"])
    if schedule["type"] == "interval":
        return (until_ms - after_ms) // (int(schedule["interval_seconds"]) * 1_000)
    return until_ms // _CRON_MS - after_ms // _CRON_MS
