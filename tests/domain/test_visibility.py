"""Who may see an automation in hosted modes, and who may change it."""

from typing import Any

import pytest

from tandem.domain.visibility import (
    Assertor,
    ResourceAccess,
    Visibility,
    access_document,
    read_access,
)

ADA = Assertor(person="ada")
BOB = Assertor(person="bob", org_units=frozenset({"sales", "web"}))

PRIVATE = ResourceAccess(owner="ada")
GROUP = ResourceAccess(owner="ada", visibility=Visibility.GROUP, audience=frozenset({"web"}))
ORG = ResourceAccess(owner="ada", visibility=Visibility.ORG, audience=frozenset({"nobody"}))


def test_the_owner_sees_and_changes_what_is_theirs() -> None:
    for access in (PRIVATE, GROUP, ORG):
        assert access.may_see(ADA)
        assert access.may_change(ADA)


@pytest.mark.parametrize(
    ("access", "sees"),
    [(PRIVATE, False), (GROUP, True), (ORG, True)],
    ids=["private", "group", "org"],
)
def test_others_see_what_is_shared_and_change_nothing(access: ResourceAccess, sees: bool) -> None:
    assert access.may_see(BOB) is sees
    assert not access.may_change(BOB)


def test_a_group_is_its_members_alone() -> None:
    assert not GROUP.may_see(Assertor(person="eva", org_units=frozenset({"sales"})))
    assert not PRIVATE.may_see(Assertor(person="eva", org_units=frozenset({"web"})))


@pytest.mark.parametrize(
    "role",
    [
        *("owner", "admin", "hosted:owner", "hosted:admin"),
        *("enterprise:admin", "workspace:admin", "organization:admin"),
    ],
)
def test_these_roles_see_and_change_everything(role: str) -> None:
    eva = Assertor(person="eva", roles=frozenset({role, "viewer"}))
    assert PRIVATE.may_see(eva)
    assert PRIVATE.may_change(eva)


@pytest.mark.parametrize(
    "capability", ["hosted.owner", "hosted.admin", "automation.write", "automation.share"]
)
def test_these_capabilities_see_and_change_everything(capability: str) -> None:
    assert PRIVATE.may_change(Assertor(person="eva", capabilities=frozenset({capability})))


def test_the_name_of_a_capability_is_no_role_and_other_names_are_nothing() -> None:
    eva = Assertor(
        person="eva",
        roles=frozenset({"automation.write", "editor", "hosted.admin"}),
        capabilities=frozenset({"admin", "automation.run", "hosted:admin"}),
    )
    assert not PRIVATE.may_see(eva)


def test_nobody_is_the_owner_of_what_has_none() -> None:
    assert not ResourceAccess().may_see(Assertor(person=""))


@pytest.mark.parametrize("metadata", [None, "text", {}, {"resource_access": None}, {"other": 1}])
def test_metadata_that_say_nothing_leave_it_to_the_scopes(metadata: Any) -> None:
    assert read_access(metadata) is None


@pytest.mark.parametrize(
    "said",
    [
        "org",
        {},
        {"visibility": "everybody"},
        {"visibility": 1, "owner_principal": "bob", "audience_principals": "web"},
        {"owner_principal": {"id": 7}, "audience_principals": [1, None]},
    ],
)
def test_what_cannot_be_understood_opens_nothing(said: Any) -> None:
    access = read_access({"resource_access": said})
    assert access == ResourceAccess()


def test_what_is_written_is_read_again() -> None:
    document = access_document(
        owner="ada", visibility=Visibility.GROUP, audience=["web", "web", "ops"], by="bob"
    )
    assert document == {
        "owner_principal": {"kind": "human_user", "id": "ada"},
        "visibility": "group",
        "audience_principals": ["web", "ops"],
        "updated_by": "bob",
    }
    assert read_access({"resource_access": document}) == ResourceAccess(
        owner="ada", visibility=Visibility.GROUP, audience=frozenset({"web", "ops"})
    )
