"""Whose a run is: the context of the contract and the text of the store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.domain.ids import LOCAL_TENANT, TenantId
from tandem.domain.tenant import TenantContext, TenantSource, context_json, context_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def explicit(*parts: str) -> TenantContext:
    return TenantContext(
        org_id=parts[0],
        workspace_id=parts[1],
        deployment_id=parts[2] if len(parts) > 2 else None,
        source=TenantSource.EXPLICIT,
    )


def test_nobody_is_named_for_the_local_tenant() -> None:
    assert context_json(LOCAL_TENANT, actor_id="ann") == {
        "org_id": "local",
        "workspace_id": "local",
        "source": "local_implicit",
    }
    assert context_of(LOCAL_TENANT).tenant == LOCAL_TENANT


def test_an_explicit_tenant_names_who_acts() -> None:
    found = context_json(explicit("a/b", "c%").tenant, actor_id="ann")
    assert found == {
        "org_id": "a/b",
        "workspace_id": "c%",
        "actor_id": "ann",
        "source": "explicit",
    }


def test_local_is_the_same_tenant_whoever_says_it() -> None:
    assert explicit("local", "local").tenant == LOCAL_TENANT
    assert explicit("local", "local", "d").tenant != LOCAL_TENANT


def test_a_text_of_one_part_is_an_organization() -> None:
    assert context_of(TenantId("another")) == explicit("another", "")


@given(parts=st.lists(TEXT, min_size=2, max_size=3))
def test_every_context_comes_back_and_no_two_share_a_text(parts: list[str]) -> None:
    context = explicit(*parts)
    if context.tenant != LOCAL_TENANT:
        assert context_of(context.tenant) == context


@pytest.mark.parametrize("parts", [("a", "b"), ("a", "b", ""), ("a", "b", "c"), ("a/b", "c")])
def test_the_text_is_readable(parts: tuple[str, ...]) -> None:
    assert explicit(*parts).tenant == "/".join(part.replace("/", "%2F") for part in parts)
