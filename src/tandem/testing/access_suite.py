"""The promises of `ports.access`, and of keys of requests, as tests that every store must pass.

Used as `StoreSuite` is; the fixture is the same.
"""

import asyncio

import msgspec
import pytest

from tandem.domain.assertion import AssertionUse, ReplayMode
from tandem.domain.audit import AuditEntry, AuditEvent, problems_of
from tandem.domain.caller import ActorKind, Scope
from tandem.domain.command import Cancel, DecideGate
from tandem.domain.creation import NewRun
from tandem.domain.errors import NotFound, NothingToDo, Refused, StoreUnavailable
from tandem.domain.ids import LOCAL_TENANT, NodeId, RunId, TenantId, TokenId
from tandem.domain.lifecycle import RunState
from tandem.domain.request_key import ALREADY_DONE, KEPT_MS, KEY_REUSED, RequestKey, request_key
from tandem.domain.run import Run
from tandem.domain.token import Token, new_token
from tandem.ports.store import RunFilter
from tandem.testing.store_suite import (
    GATE,
    NOW_MS,
    OTHER_TENANT,
    CommitFault,
    OpenStore,
    Scene,
    chain,
    plan_of,
)

ANYBODY = 100


def token(number: int, *, tenant: TenantId = LOCAL_TENANT) -> Token:
    """Return a token that differs from all of other numbers."""
    made, _ = new_token(
        token_id=TokenId(f"{number:012x}"),
        secret=number.to_bytes(32),
        tenant=tenant,
        name=f"token {number}",
        scopes={Scope.OPERATOR, Scope.APPROVER},
        actor_id="ada",
        kind=ActorKind.AGENT,
        created_by="root",
        expires_in_ms=60_000,
        now_ms=NOW_MS,
    )
    return made


def use(content: bytes, *, name: str = "a-1", expires_at_ms: int = NOW_MS + 1_000) -> AssertionUse:
    """Return an assertion that came."""
    return AssertionUse(
        issuer="panel", assertion_id=name, digest=content, expires_at_ms=expires_at_ms
    )


def key(name: str = "k-1", *, request: object = None) -> RequestKey:
    """Return the key of a request."""
    found = request_key("run_now:job", name, request)
    assert found is not None
    return found


async def create(
    scene: Scene,
    run_id: str,
    asked: RequestKey,
    *,
    tenant: TenantId = LOCAL_TENANT,
    now_ms: int = NOW_MS,
) -> Run:
    """Create a run with a key."""
    plan, document = plan_of(chain(1))
    new = NewRun(
        run_id=RunId(run_id),
        tenant=tenant,
        change_id=scene.change_id(),
        plan=plan,
        document=document,
        inputs={},
        workspace="",
        key=asked,
    )
    return await scene.store.create_run(new, now_ms=now_ms)


def run_ids(scene: Scene, *, tenant: TenantId = LOCAL_TENANT) -> list[str]:
    """Return the ids of all runs of a tenant, newest first."""
    return [run.run_id for run in scene.store.list_runs(RunFilter(tenant=tenant, limit=ANYBODY))]


class AccessSuite:
    """What a store promises about tokens, assertions, keys of requests and the audit."""

    # Tokens

    async def test_token_comes_back_as_it_was_written(
        self, scene: Scene, open_store: OpenStore
    ) -> None:
        await scene.store.add_token(token(1))

        assert open_store().find_token(token(1).token_id) == token(1)
        assert scene.store.find_token(TokenId("another")) is None

    async def test_token_id_is_taken_only_once(self, scene: Scene) -> None:
        await scene.store.add_token(token(1))
        again = msgspec.structs.replace(token(2), token_id=token(1).token_id)

        with pytest.raises(Refused):
            await scene.store.add_token(again)

        assert scene.store.find_token(token(1).token_id) == token(1)

    async def test_tokens_are_listed_by_id_in_pages_and_by_tenant(self, scene: Scene) -> None:
        for number in (3, 1, 2):
            tenant = OTHER_TENANT if number == 2 else LOCAL_TENANT
            await scene.store.add_token(token(number, tenant=tenant))

        everybody = scene.store.list_tokens(tenant=None, after_id="", limit=2)
        rest = scene.store.list_tokens(tenant=None, after_id=everybody[-1].token_id, limit=2)
        own = scene.store.list_tokens(tenant=LOCAL_TENANT, after_id="", limit=10)

        assert [t.name for t in (*everybody, *rest)] == ["token 1", "token 2", "token 3"]
        assert [t.name for t in own] == ["token 1", "token 3"]

    async def test_token_is_revoked_once_and_for_all_who_share_the_store(
        self, scene: Scene, open_store: OpenStore
    ) -> None:
        await scene.store.add_token(token(1))
        name = token(1).token_id

        revoked = await scene.store.revoke_token(name, tenant=None, by="eve", now_ms=NOW_MS + 5)

        assert (revoked.revoked_at_ms, revoked.revoked_by) == (NOW_MS + 5, "eve")
        assert open_store().find_token(name) == revoked
        with pytest.raises(NothingToDo):
            await scene.store.revoke_token(name, tenant=None, by="bob", now_ms=NOW_MS + 6)
        assert scene.store.find_token(name) == revoked

    async def test_token_of_another_tenant_is_not_found(self, scene: Scene) -> None:
        await scene.store.add_token(token(1, tenant=OTHER_TENANT))

        for name in (token(1).token_id, TokenId("nothing")):
            with pytest.raises(NotFound):
                await scene.store.revoke_token(name, tenant=LOCAL_TENANT, by="", now_ms=NOW_MS)

    async def test_last_use_never_goes_back(self, scene: Scene) -> None:
        await scene.store.add_token(token(1))
        for now_ms in (NOW_MS + 9, NOW_MS + 3):
            await scene.store.note_token_use(token(1).token_id, now_ms=now_ms)

        found = scene.store.find_token(token(1).token_id)
        assert found is not None
        assert found.last_used_at_ms == NOW_MS + 9

    # Assertions

    async def test_bound_assertion_may_come_again_as_it_was(self, scene: Scene) -> None:
        for _ in range(2):
            await scene.store.use_assertion(use(b"one"), mode=ReplayMode.BOUND, now_ms=NOW_MS)
        with pytest.raises(Refused, match="another one"):
            await scene.store.use_assertion(use(b"two"), mode=ReplayMode.BOUND, now_ms=NOW_MS)

    async def test_one_shot_assertion_counts_once_also_at_the_same_moment(
        self, open_store: OpenStore
    ) -> None:
        stores = [open_store(), open_store()]
        results = await asyncio.gather(
            *(
                store.use_assertion(use(b"one"), mode=ReplayMode.ONE_SHOT, now_ms=NOW_MS)
                for store in stores
            ),
            return_exceptions=True,
        )
        assert sorted(type(result).__name__ for result in results) == ["NoneType", "Refused"]

    async def test_id_of_an_assertion_that_is_over_is_free(self, scene: Scene) -> None:
        await scene.store.use_assertion(use(b"one"), mode=ReplayMode.BOUND, now_ms=NOW_MS)
        late = NOW_MS + 1_001
        await scene.store.use_assertion(
            use(b"two", expires_at_ms=late + 1), mode=ReplayMode.BOUND, now_ms=late
        )

    # Audit

    async def test_audit_is_one_chain_of_tokens_and_denials(self, scene: Scene) -> None:
        await scene.store.add_token(token(1, tenant=OTHER_TENANT))
        await scene.store.revoke_token(token(1).token_id, tenant=None, by="eve", now_ms=NOW_MS)
        entry = AuditEntry(
            event=AuditEvent.TENANT_CONTEXT_DENIED,
            tenant=LOCAL_TENANT,
            recorded_at_ms=NOW_MS,
            peer="10.0.0.1",
            detail={"why": "it has expired"},
        )
        written = await scene.store.add_audit(entry)

        records = scene.store.list_audit(tenant=None, after_no=0, limit=10)

        assert records[-1] == written
        assert written.entry == entry
        assert [record.entry.event for record in records] == [
            AuditEvent.TOKEN_CREATED,
            AuditEvent.TOKEN_REVOKED,
            AuditEvent.TENANT_CONTEXT_DENIED,
        ]
        assert problems_of(records) == []
        assert token(1).digest.hex() not in str(records)
        assert scene.store.list_audit(tenant=LOCAL_TENANT, after_no=0, limit=10) == [written]
        assert scene.store.list_audit(tenant=None, after_no=2, limit=10) == [written]

    async def test_audit_of_two_processes_stays_one_chain(self, open_store: OpenStore) -> None:
        stores = [open_store(), open_store()]
        for number in range(1, 11):
            await stores[number % 2].add_token(token(number))
        records = stores[0].list_audit(tenant=None, after_no=0, limit=ANYBODY)
        assert len(records) == 10
        assert problems_of(records) == []

    async def test_token_without_its_record_cannot_be(self, open_store: OpenStore) -> None:
        fault = CommitFault()
        store = open_store(fault)
        fault.arm("before")
        with pytest.raises(StoreUnavailable):
            await store.add_token(token(1))
        assert store.find_token(token(1).token_id) is None
        assert store.list_audit(tenant=None, after_no=0, limit=10) == []
        fault.arm("after")
        await store.add_token(token(1))
        assert len(store.list_audit(tenant=None, after_no=0, limit=10)) == 1

    # Keys of requests

    async def test_same_request_again_returns_the_run_that_it_created(self, scene: Scene) -> None:
        first = await create(scene, "r1", key())
        again = await create(scene, "r2", key())

        assert (first.run_id, again.run_id) == ("r1", "r1")
        assert again.run_no == first.run_no
        assert run_ids(scene) == ["r1"]

    async def test_same_request_at_the_same_moment_creates_one_run(
        self, open_store: OpenStore
    ) -> None:
        scenes = [Scene(open_store(), name=f"s{number}") for number in range(2)]
        runs = await asyncio.gather(
            *(
                create(scene, f"r{number}-{place}", key())
                for place, scene in enumerate(scenes)
                for number in range(5)
            )
        )
        assert len({run.run_id for run in runs}) == 1
        assert len(run_ids(scenes[0])) == 1

    async def test_key_of_another_request_creates_nothing(self, scene: Scene) -> None:
        await create(scene, "r1", key(request={"a": 1}))
        with pytest.raises(Refused) as refused:
            await create(scene, "r2", key(request={"a": 2}))
        assert refused.value.code == KEY_REUSED
        assert run_ids(scene) == ["r1"]

    async def test_keys_of_tenants_never_meet(self, scene: Scene) -> None:
        await create(scene, "r1", key())
        other = await create(scene, "r2", key(request="else"), tenant=OTHER_TENANT)
        assert other.run_id == "r2"

    async def test_run_and_key_are_one_write(self, open_store: OpenStore) -> None:
        fault = CommitFault()
        scene = Scene(open_store(fault))
        fault.arm("before")
        with pytest.raises(StoreUnavailable):
            await create(scene, "r1", key())
        assert run_ids(scene) == []
        fault.arm("after")
        second = await create(scene, "r2", key())
        assert second.run_id == "r2"
        assert (await create(scene, "r3", key())).run_id == "r2"

    async def test_repetition_in_the_batch_of_a_failed_commit_is_no_success(
        self, open_store: OpenStore
    ) -> None:
        fault = CommitFault()
        scene = Scene(open_store(fault))
        fault.arm("before")
        results = await asyncio.gather(
            create(scene, "r1", key()), create(scene, "r2", key()), return_exceptions=True
        )
        assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
        assert run_ids(scene) == []

    async def test_refused_creation_leaves_its_key_free(self, scene: Scene) -> None:
        await create(scene, "r1", key("k-1"))
        with pytest.raises(StoreUnavailable):
            await create(scene, "r1", key("k-2"))
        assert (await create(scene, "r2", key("k-2"))).run_id == "r2"

    async def test_key_of_a_deleted_run_says_that_the_run_is_gone(self, scene: Scene) -> None:
        run = await create(scene, "r1", key())
        await scene.execute(run.run_id, Cancel(reason="x"))
        await scene.store.delete_run(run.run_id, tenant=LOCAL_TENANT)
        with pytest.raises(NotFound):
            await create(scene, "r2", key())

    async def test_fork_with_the_same_key_is_made_once(self, scene: Scene) -> None:
        await create(scene, "r1", key("source"))

        async def fork(name: str, *, request: object = None) -> RunId:
            made = await scene.store.fork(
                RunId("r1"),
                NodeId("n0"),
                tenant=LOCAL_TENANT,
                fork=RunId(name),
                inputs={},
                asks_again=False,
                owner=None,
                reason="",
                change_id=scene.change_id(),
                now_ms=NOW_MS,
                key=key(request=request),
            )
            return made.run_id

        assert [await fork("f1"), await fork("f2")] == ["f1", "f1"]
        with pytest.raises(Refused) as refused:
            await fork("f3", request="else")
        assert refused.value.code == KEY_REUSED
        forks = scene.store.list_forks(RunId("r1"), tenant=LOCAL_TENANT, limit=9)
        assert [run.run_id for run in forks] == ["f1"]

    async def test_key_is_forgotten_after_a_day(self, scene: Scene) -> None:
        await create(scene, "r1", key())
        await scene.store.use_assertion(use(b"one"), mode=ReplayMode.BOUND, now_ms=NOW_MS)
        assert await scene.store.forget_access(now_ms=NOW_MS, limit=10) == 0

        late = NOW_MS + KEPT_MS + 1
        assert (await create(scene, "r2", key(request="new"), now_ms=late)).run_id == "r2"
        await create(scene, "r3", key("k-2"))
        assert await scene.store.forget_access(now_ms=late, limit=10) == 2
        assert await scene.store.forget_access(now_ms=late, limit=10) == 0
        assert (await create(scene, "r4", key(request="new"), now_ms=late)).run_id == "r2"

    async def test_decision_with_the_same_key_counts_once(self, scene: Scene) -> None:
        view = await scene.claimed("r1", GATE)
        await scene.store.apply(scene.next(view))
        approve = DecideGate(decision="approve", decided_by="eve")

        await scene.execute("r1", approve, key=key())
        with pytest.raises(NothingToDo) as done:
            await scene.execute("r1", approve, key=key())
        with pytest.raises(Refused) as reused:
            await scene.execute("r1", approve, key=key(request="else"))

        assert (done.value.code, done.value.details) == (ALREADY_DONE, {"runID": "r1"})
        assert reused.value.code == KEY_REUSED
        assert scene.get("r1").status is RunState.QUEUED

    async def test_refused_decision_leaves_its_key_free(self, scene: Scene) -> None:
        view = await scene.claimed("r1", GATE)
        await scene.store.apply(scene.next(view))

        denied = await scene.execute(
            "r1", DecideGate(decision="approve", transition_id="another"), key=key()
        )
        assert denied.denial is not None
        with pytest.raises(Refused):
            await scene.execute("r1", DecideGate(decision="nonsense"), key=key())

        await scene.execute("r1", DecideGate(decision="approve"), key=key(request="right"))
        assert scene.get("r1").status is RunState.QUEUED
