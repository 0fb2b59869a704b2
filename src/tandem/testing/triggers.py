"""What starts runs by itself in a simulated world: schedules, handoffs, deliveries, keyed requests.

Each step is what one person, body or sender does once; some of it fails, and nobody cares. What
must come of it is judged from what is on disk, and once more at the end of the world.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from tandem.domain.automation import canonical_document
from tandem.domain.automation_keeping import (
    AutomationCommand,
    PauseAutomation,
    ResumeAutomation,
)
from tandem.domain.creation import NewRun
from tandem.domain.errors import EngineError
from tandem.domain.handoff import Handoff, file_name, read_handoff, write_handoff
from tandem.domain.ids import LOCAL_TENANT, AutomationId
from tandem.domain.json import digest
from tandem.domain.request_key import request_key
from tandem.domain.webhook import TriggerSpec
from tandem.domain.webhook_signature import Incoming, signature_of
from tandem.engine.automations import Automations
from tandem.engine.engine import Engine
from tandem.engine.webhooks import Reception, Webhooks
from tandem.ports.clock import Clock
from tandem.ports.ids import Ids
from tandem.testing.artifacts import MemoryFiles
from tandem.testing.builders import Story, automation, gate_node, python_node
from tandem.testing.executor import Script
from tandem.testing.faults import EngineDied
from tandem.testing.invariants import Invariants, Violation
from tandem.testing.trigger_invariants import CRON

if TYPE_CHECKING:
    from tandem.testing.simulation import EngineProcess, World

SCHEDULED: Final = AutomationId("scheduled")
WATCHING: Final = AutomationId("watching")
HOOKED: Final = AutomationId("hooked")
KEYED: Final = AutomationId("keyed")
STORED: Final = (SCHEDULED, WATCHING, HOOKED)
KINDS: Final = ("schedule", "handoff", "delivery", "keyed")
STEPS: Final = (*KINDS, "edit", "pause", "resume", "copy")
WORKSPACE: Final = "/workspace"
APPROVED: Final = "shared/handoffs/approved"
ARCHIVED: Final = "shared/handoffs/archived"
LATE_MS: Final = 10_000
"""So late nothing is fired or taken in a calm world in which somebody could do it."""
CALM_FIRINGS_MS: Final = 3_000
"""So long a schedule goes on in a calm world."""
TIMINGS: Final[Sequence[dict[str, Any]]] = (
    {"type": "interval", "interval_seconds": 1},
    {"type": "interval", "interval_seconds": 2},
    {"type": "cron", "cron_expression": CRON},
)
POLICIES: Final[Sequence[dict[str, Any]]] = (
    {"type": "skip"},
    {"type": "run_once"},
    {"type": "catch_up", "max_runs": 3},
)


class PlainVault:
    """A vault that hides nothing."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def draw(self, size_bytes: int) -> bytes:
        """See `Vault.draw`."""
        return self._random.randbytes(size_bytes)

    def seal(self, secret: str, *, context: str) -> bytes:
        """See `Vault.seal`."""
        return f"{context}\n{secret}".encode()

    def unseal(self, sealed: bytes, *, context: str) -> str:
        """See `Vault.unseal`."""
        return sealed.decode().removeprefix(f"{context}\n")


class Triggers:
    """The triggers of one world, and everybody who uses them."""

    def __init__(self, world: "World", random: Random) -> None:
        self._world = world
        self._random = random
        self._vault = PlainVault(Random(random.random()))
        self._stories: dict[str, Story] = {}
        self._saved: dict[AutomationId, Story] = {}
        self._hook: tuple[str, str] | None = None
        """The address of the trigger, and its secret."""
        self._handed_over: set[tuple[str, int]] = set()
        """What was put before the automation that watches, and told so."""
        self._edits = 0
        self._calm_since_ms = 0
        self._on_time_ms = 0
        self._is_ended = False

    @property
    def _invariants(self) -> Invariants:
        return self._world.invariants

    def created(self, new: NewRun) -> None:
        """A run is about to be created by a trigger; its bodies do what its automation's do."""
        story = self._stories[new.plan.digest]
        self._world.stories[new.run_id] = story
        for name, script in story.scripts.items():
            self._world.scripts[new.run_id, name] = script

    async def live(self) -> None:
        """Use some of the triggers for as long as things go wrong."""
        kinds = self._random.sample(KINDS, self._random.choice((1, 2, 2, 4)))
        others = ("edit", "pause", "resume", "copy")
        for kind in kinds:
            await self.step(kind, self._random)
        for _ in range(self._random.choice((2, 5, 9))):
            await self._world.clock.sleep(self._random.choice((0, 5, 60, 400, 1_500)))
            await self.step(self._random.choice((*kinds, *kinds, *others)), self._random)

    async def step(self, kind: str, random: Random) -> None:
        """Let somebody do one thing, through any engine that answers."""
        living = self._world.living()
        if not living:
            return
        self._invariants.follows_triggers = True
        process = random.choice(living)
        steps: dict[str, Callable[[EngineProcess, Random], Awaitable[None]]] = {
            "schedule": partial(self._save, SCHEDULED),
            "edit": self._edit,
            "pause": partial(self._hold, pauses=True),
            "resume": partial(self._hold, pauses=False),
            "handoff": self._hand_over,
            "copy": self._copy,
            "delivery": self._deliver,
            "keyed": self._ask_with_key,
        }
        await steps[kind](process, random)

    # What is stored

    async def _save(
        self, automation_id: AutomationId, process: "EngineProcess", random: Random
    ) -> None:
        """Save an automation, or another version of it."""
        schedule: dict[str, Any] = {"type": "manual"}
        if automation_id == SCHEDULED and not self._is_ended:
            schedule = random.choice(TIMINGS) | {"misfire_policy": random.choice(POLICIES)}
        await self._put(process, automation_id, self._draw_story(automation_id, schedule, random))

    def _draw_story(
        self, automation_id: AutomationId, schedule: dict[str, Any], random: Random
    ) -> Story:
        self._edits += 1
        nodes = [python_node("n0"), python_node("n1", "n0")]
        if random.random() < 0.2:
            nodes[1] = gate_node("n1", "n0")
        made = automation(
            *nodes[: random.choice((1, 2, 2))],
            automation_id=automation_id,
            description=f"edit {self._edits}",
            schedule=schedule,
            workspace_root=WORKSPACE,
            watch_conditions=[{"kind": "handoff_available"}] if automation_id == WATCHING else [],
        )
        scripts = {
            node.node_id: Script(duration_ms=random.choice((0, 5, 60, 900)))
            for node in made.nodes
            if node.action is not None
        }
        return Story(automation=made, scripts=scripts, workspace=WORKSPACE)

    async def _put(
        self, process: "EngineProcess", automation_id: AutomationId, story: Story
    ) -> bool:
        self._stories[digest(canonical_document(story.automation))] = story
        with suppress(EngineDied, EngineError):
            await self._ask(process, lambda e: Automations(e).save(story.automation, by="user"))
            self._saved[automation_id] = story
            return True
        return False

    async def _edit(self, process: "EngineProcess", random: Random) -> None:
        """Save another version with the same timing, or another one."""
        known = [name for name in STORED if name in self._saved]
        if not known:
            return
        name = random.choice(known)
        if random.random() < 0.5:
            await self._save(name, process, random)
            return
        schedule = self._saved[name].automation.schedule.model_dump(mode="json")
        await self._put(process, name, self._draw_story(name, schedule, random))

    async def _hold(self, process: "EngineProcess", random: Random, *, pauses: bool) -> None:
        command = PauseAutomation(by="user") if pauses else ResumeAutomation(by="user")
        name = random.choice(STORED)
        with suppress(EngineDied, EngineError):
            await self._ask(process, partial(_execute, name=name, command=command))

    async def _ensure(
        self, automation_id: AutomationId, process: "EngineProcess", random: Random
    ) -> bool:
        if automation_id not in self._saved:
            await self._save(automation_id, process, random)
        return automation_id in self._saved

    async def _ask(self, process: "EngineProcess", question: Callable[[Engine], Any]) -> Any:
        return await self._world.ask(process, question)

    # Handoffs

    async def _hand_over(self, process: "EngineProcess", random: Random) -> None:
        """Hand something over; an id is used again for something newer once it was taken."""
        if not await self._ensure(WATCHING, process, random):
            return
        name = f"handoff-{random.randrange(3)}"
        waits = any(made.handoff_id == name for made in self._approved())
        made = self._handoff(name, 1 if waits else random.choice((1, 1, 2)))
        if waits and made not in self._approved():
            return
        with suppress(EngineDied, EngineError):

            async def deposit(engine: Engine) -> str:
                return engine.handoffs.deposit(made)

            await self._ask(process, deposit)
            self._handed_over.add((made.handoff_id, made.created_at_ms))

    def _handoff(self, name: str, batch: int) -> Handoff:
        return Handoff(
            handoff_id=name,
            source_automation_id="source",
            source_run_id="run",
            source_node_id="node",
            target_automation_id=WATCHING,
            artifact_type="report",
            created_at_ms=batch,
        )

    async def _copy(self, _process: "EngineProcess", random: Random) -> None:
        """Somebody puts a file of an old handoff back, by its name or another one."""
        made = self._handoff(f"handoff-{random.randrange(3)}", 1)
        if made.handoff_id not in {row["handoff_id"] for row in self._consumed()}:
            return
        name = random.choice((file_name(made.handoff_id), "a copy.json"))
        if (WORKSPACE, f"{APPROVED}/{name}") not in self._world.files:
            files = MemoryFiles(self._world.files, self._world.clock)
            files.put_file(WORKSPACE, f"{APPROVED}/{name}", write_handoff(made))

    def _consumed(self) -> list[dict[str, Any]]:
        return self._invariants.find("SELECT * FROM consumed_handoff")

    def _approved(self) -> list[Handoff]:
        return self._handoffs_in(APPROVED)

    def _handoffs_in(self, folder: str) -> list[Handoff]:
        return [
            read_handoff(content)
            for (_, path), (content, _) in self._world.files.items()
            if path.startswith(f"{folder}/")
        ]

    # Deliveries

    async def _deliver(self, process: "EngineProcess", random: Random) -> None:
        """Deliver something: new, the same again, or one of two that claim to be the same."""
        if not await self._ensure(HOOKED, process, random):
            return
        headers = {"x-event-id": f"event-{random.randrange(3)}"} if random.random() < 0.8 else {}
        body = b'{"number": %d}' % random.randrange(3)
        with suppress(EngineDied, EngineError):
            if self._hook is None:
                made = await self._ask(
                    process,
                    lambda e: self._webhooks(e).create(
                        HOOKED, TriggerSpec(provider="generic"), tenant=LOCAL_TENANT
                    ),
                )
                self._hook = made.trigger.public_path_token, made.secret
            address, secret = self._hook

            async def send(engine: Engine) -> Any:
                signature = signature_of(secret, self._world.clock.now_ms(), body)
                signed = headers | {"x-tandem-webhook-signature": signature}
                hooks = self._webhooks(engine)
                incoming = Incoming(headers=signed, body=body)
                return await hooks.receive(hooks.find_by_token(address), incoming)

            told = await self._ask(process, send)
            if told.reception is not Reception.ACCEPTED:
                raise Violation(f"a delivery of a believed sender was {told.reception}")
            if not self._invariants.find(
                "SELECT 1 FROM webhook_delivery WHERE delivery_id = ?", told.delivery.delivery_id
            ):
                raise Violation(f"delivery {told.delivery} was acknowledged and is lost")

    def _webhooks(self, engine: Engine) -> Webhooks:
        clock: Clock = self._world.clock
        ids: Ids = self._world.ids
        return Webhooks(engine, self._vault, clock=clock, ids=ids)

    # Keyed requests

    async def _ask_with_key(self, process: "EngineProcess", random: Random) -> None:
        """Ask for a run with a key, once or twice at once; the keys are few."""
        name = f"key-{random.randrange(3)}"
        key = request_key("run_now:keyed", name, {})
        story = self._draw_story(KEYED, {"type": "manual"}, random)
        known = self._stories.setdefault(name, story)
        self._stories[digest(canonical_document(known.automation))] = known

        async def start(engine: Engine) -> None:
            run = await engine.start(known.automation, workspace=WORKSPACE, key=key)
            self._invariants.triggers.answered(name, run.run_id)

        for _ in range(random.choice((1, 2))):
            with suppress(EngineDied, EngineError):
                await self._ask(random.choice(self._world.living() or [process]), start)

    # The end

    async def settle(self) -> bool:
        """Let what is under way become what it leads to; return whether nothing is left.

        Raises:
            Violation: something could go on, and does not.
        """
        living = self._world.living()
        if not living:
            return False
        now_ms = self._world.clock.ticks_ms()
        self._calm_since_ms = self._calm_since_ms or now_ms
        for row in self._invariants.find("SELECT * FROM automation WHERE status = 'paused'"):
            command = ResumeAutomation(by="user")
            with suppress(EngineDied, EngineError):
                await self._ask(
                    living[0],
                    partial(_execute, name=AutomationId(row["automation_id"]), command=command),
                )
        if SCHEDULED in self._saved and not self._is_ended:
            await self._end_schedule(living[0], now_ms)
        return not self.left()

    async def _end_schedule(self, process: "EngineProcess", now_ms: int) -> None:
        """Let the schedule go on for a while, and then end it."""
        late = self._invariants.find(
            "SELECT * FROM automation WHERE deferred_by IS NULL AND next_fire_at_ms < ?",
            self._world.clock.now_ms() - LATE_MS,
        )
        self._on_time_ms = self._on_time_ms if late else now_ms
        if now_ms - max(self._on_time_ms, self._calm_since_ms) > LATE_MS:
            raise Violation(f"nobody fires {late}")
        if now_ms - self._calm_since_ms > CALM_FIRINGS_MS and not late:
            story = self._draw_story(SCHEDULED, {"type": "manual"}, Random(0))
            self._is_ended = await self._put(process, SCHEDULED, story)

    def left(self) -> str:
        """Return what is still to become something."""
        if SCHEDULED in self._saved and not self._is_ended:
            return "a schedule"
        if self._invariants.find("SELECT 1 FROM webhook_delivery WHERE status = 'received'"):
            return "a delivery"
        if self._approved():
            return "a handoff"
        if any(row["archived_at_ms"] is None for row in self._consumed()):
            return "a file of a handoff"
        return ""

    def check_end(self) -> None:
        """Check what came of everything once nothing goes on any more.

        Raises:
            Violation: something was lost.
        """
        archived = {
            (made.handoff_id, made.created_at_ms): made.consumed_by_run_id
            for made in self._handoffs_in(ARCHIVED)
        }
        taken = {
            (row["handoff_id"], row["handed_over_at_ms"]): row["run_id"] for row in self._consumed()
        }
        if lost := self._handed_over - taken.keys():
            raise Violation(f"handed over and never taken: {lost}")
        if archived != taken:
            raise Violation(f"archived are {archived}, taken were {taken}")


async def _execute(engine: Engine, *, name: AutomationId, command: AutomationCommand) -> None:
    await engine.execute_on_automation(name, command)
