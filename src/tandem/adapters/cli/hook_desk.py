"""What `tandem webhooks` asks, of the store here or of a server; triggers are told as documents."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from tandem.adapters.cli.session import person
from tandem.adapters.cli.wire import part
from tandem.domain.automation_keeping import present
from tandem.domain.ids import LOCAL_TENANT, AutomationId
from tandem.domain.webhook import TriggerPatch, TriggerSpec
from tandem.domain.webhook_delivery import delivery_document
from tandem.domain.webhook_view import callback_path, trigger_document
from tandem.ports.webhooks import DeliveryFilter

if TYPE_CHECKING:
    from tandem.adapters.cli.tools import OpenEngine, Server
    from tandem.engine.webhooks import Made, Webhooks

Document = Mapping[str, Any]


class HookDesk(Protocol):
    """The webhook triggers of one tenant. What is made is told with its secret, once."""

    async def create(self, automation_id: str, given: Mapping[str, Any]) -> Document:
        """Make a trigger; return `trigger`, `new_secret` and `setup_callback_path`."""
        ...

    async def list(self, automation_id: str) -> Sequence[Document]:
        """Return the triggers of an automation, newest first."""
        ...

    async def get(self, automation_id: str, trigger_id: str) -> Document:
        """Return a trigger."""
        ...

    async def rotate(self, automation_id: str, trigger_id: str, *, overlap_s: int) -> Document:
        """Give a trigger another secret; returns as `create`."""
        ...

    async def enable(self, automation_id: str, trigger_id: str, *, enabled: bool) -> Document:
        """Take deliveries again, or none any more; return the trigger."""
        ...

    async def delete(self, automation_id: str, trigger_id: str) -> None:
        """Delete a trigger."""
        ...

    async def deliveries(
        self, automation_id: str, trigger_id: str, *, limit: int
    ) -> Sequence[Document]:
        """Return what came at a trigger, newest first; a server tells 100 at most."""
        ...

    async def redeliver(self, automation_id: str, trigger_id: str, delivery_id: str) -> Document:
        """Send a delivery through again; return the new one."""
        ...


class LocalHooks:
    """See `HookDesk`. Without a person to ask, the one at this machine acts."""

    def __init__(self, parts: "OpenEngine") -> None:
        self._store = parts.store
        self._hooks: Webhooks = parts.webhooks

    async def create(self, automation_id: str, given: Mapping[str, Any]) -> Document:
        """See `HookDesk.create`."""
        spec = TriggerSpec(**given)
        made = await self._hooks.create(
            AutomationId(automation_id), spec, tenant=LOCAL_TENANT, by=person()
        )
        return _made(made)

    async def list(self, automation_id: str) -> Sequence[Document]:
        """See `HookDesk.list`."""
        named = AutomationId(automation_id)
        present(self._store.find_automation(named, tenant=LOCAL_TENANT), named)
        found = self._hooks.list(named, tenant=LOCAL_TENANT)
        return [trigger_document(trigger) for trigger in found]

    async def get(self, automation_id: str, trigger_id: str) -> Document:
        """See `HookDesk.get`."""
        named = AutomationId(automation_id), trigger_id
        return trigger_document(self._hooks.get(*named, tenant=LOCAL_TENANT))

    async def rotate(self, automation_id: str, trigger_id: str, *, overlap_s: int) -> Document:
        """See `HookDesk.rotate`."""
        from tandem.domain.webhook_keeping import overlap_ms_of

        made = await self._hooks.rotate(
            AutomationId(automation_id),
            trigger_id,
            tenant=LOCAL_TENANT,
            by=person(),
            overlap_ms=overlap_ms_of(overlap_s),
        )
        return _made(made)

    async def enable(self, automation_id: str, trigger_id: str, *, enabled: bool) -> Document:
        """See `HookDesk.enable`."""
        changed = await self._hooks.patch(
            AutomationId(automation_id),
            trigger_id,
            TriggerPatch(enabled=enabled),
            tenant=LOCAL_TENANT,
            by=person(),
        )
        return trigger_document(changed)

    async def delete(self, automation_id: str, trigger_id: str) -> None:
        """See `HookDesk.delete`."""
        named = AutomationId(automation_id), trigger_id
        await self._hooks.delete(*named, tenant=LOCAL_TENANT, by=person())

    async def deliveries(
        self, automation_id: str, trigger_id: str, *, limit: int
    ) -> Sequence[Document]:
        """See `HookDesk.deliveries`."""
        self._hooks.get(AutomationId(automation_id), trigger_id, tenant=LOCAL_TENANT)
        chosen = DeliveryFilter(tenant=LOCAL_TENANT, trigger_id=trigger_id, limit=limit)
        return [delivery_document(each) for each in self._store.list_deliveries(chosen)]

    async def redeliver(self, automation_id: str, trigger_id: str, delivery_id: str) -> Document:
        """See `HookDesk.redeliver`."""
        again = await self._hooks.redeliver(
            AutomationId(automation_id), trigger_id, delivery_id, tenant=LOCAL_TENANT
        )
        return delivery_document(again)


class RemoteHooks:
    """See `HookDesk`; by the HTTP interface of a server."""

    def __init__(self, server: "Server") -> None:
        self._server = server

    async def create(self, automation_id: str, given: Mapping[str, Any]) -> Document:
        """See `HookDesk.create`."""
        return _told(await self._ask("POST", automation_id, body=given))

    async def list(self, automation_id: str) -> Sequence[Document]:
        """See `HookDesk.list`."""
        found: list[Document] = part(await self._ask("GET", automation_id), "triggers")
        return found

    async def get(self, automation_id: str, trigger_id: str) -> Document:
        """See `HookDesk.get`."""
        return _of(await self._ask("GET", automation_id, trigger_id), "trigger")

    async def rotate(self, automation_id: str, trigger_id: str, *, overlap_s: int) -> Document:
        """See `HookDesk.rotate`."""
        body = {"overlap_seconds": overlap_s}
        return _told(await self._ask("POST", automation_id, trigger_id, "rotate-secret", body=body))

    async def enable(self, automation_id: str, trigger_id: str, *, enabled: bool) -> Document:
        """See `HookDesk.enable`."""
        body = {"enabled": enabled}
        return _of(await self._ask("PATCH", automation_id, trigger_id, body=body), "trigger")

    async def delete(self, automation_id: str, trigger_id: str) -> None:
        """See `HookDesk.delete`."""
        await self._ask("DELETE", automation_id, trigger_id)

    async def deliveries(
        self, automation_id: str, trigger_id: str, *, limit: int
    ) -> Sequence[Document]:
        """See `HookDesk.deliveries`."""
        path = _path(automation_id, trigger_id, "deliveries")
        answer = await self._server.ask("GET", path, query={"limit": limit})
        found: list[Document] = part(answer, "deliveries")
        return found

    async def redeliver(self, automation_id: str, trigger_id: str, delivery_id: str) -> Document:
        """See `HookDesk.redeliver`."""
        steps = automation_id, trigger_id, "deliveries", delivery_id, "redeliver"
        return _of(await self._ask("POST", *steps), "delivery")

    async def _ask(self, method: str, *steps: str, body: Mapping[str, Any] | None = None) -> Any:
        return await self._server.ask(method, _path(*steps), body=body)


def _path(automation_id: str, *steps: str) -> str:
    rest = "".join(f"/{quote(step, safe='')}" for step in steps)
    return f"/automations/v2/{quote(automation_id, safe='')}/webhook-triggers{rest}"


def _of(answer: Any, name: str) -> Document:
    found: Document = part(answer, name)
    return found


def _told(answer: Any) -> Document:
    return {
        "trigger": part(answer, "trigger"),
        "new_secret": answer.get("new_secret"),
        "setup_callback_path": answer.get("setup_callback_path"),
    }


def _made(made: "Made") -> Document:
    setup = callback_path(made.trigger, nonce=made.nonce) if made.nonce else None
    return {
        "trigger": trigger_document(made.trigger),
        "new_secret": made.secret or None,
        "setup_callback_path": setup,
    }
