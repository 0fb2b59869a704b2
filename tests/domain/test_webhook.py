"""Webhook triggers: what is asked of them, and what comes of it."""

from typing import Any

import msgspec
import pytest

from tandem.domain.errors import InvalidRequest, Refused
from tandem.domain.ids import LOCAL_TENANT, AutomationId, TenantId
from tandem.domain.webhook import (
    DataClass,
    RiskTier,
    Scheme,
    TriggerPatch,
    TriggerSpec,
    WebhookTrigger,
    new_trigger,
    normal_provider,
    patched,
)
from tandem.domain.webhook_keeping import (
    BeginSetup,
    DisableTrigger,
    ImportSecret,
    PatchTrigger,
    RevealToken,
    RotateSecret,
    TakeToken,
    TriggerCommand,
    begin_setup,
    decide_trigger,
    first_secret,
    is_setup_open,
    overlap_ms_of,
)
from tandem.domain.webhook_secret import new_secret
from tandem.domain.webhook_signature import key_of
from tandem.domain.webhook_view import callback_path, trigger_document


def trigger(
    provider: str = "generic",
    *,
    tenant: TenantId = LOCAL_TENANT,
    unsigned_allowed: bool = False,
    **fields: Any,
) -> WebhookTrigger:
    return new_trigger(
        TriggerSpec(provider=provider, **fields),
        tenant=tenant,
        automation_id=AutomationId("job"),
        trigger_id="whtr_1",
        public_path_token="whpub_1",
        now_ms=1_000,
        unsigned_allowed=unsigned_allowed,
    )


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (" GitHub.com ", "github"),
        ("gh", "github"),
        ("custom", "generic"),
        ("HTTP", "generic"),
        ("linear.app", "linear"),
        ("notion.so", "notion"),
        ("stripe.com", "stripe"),
        ("My  Own Tool!", "my-own-tool"),
        ("a_b.c-d", "a_b.c-d"),
        ("\r\nevil: header", "evil-header"),
    ],
)
def test_a_provider_has_one_name(given: str, name: str) -> None:
    assert normal_provider(given) == name


def test_a_provider_has_a_name_at_all() -> None:
    with pytest.raises(InvalidRequest, match="provider"):
        normal_provider(" !? ")


def test_a_new_trigger_has_what_was_asked_for_and_sensible_defaults() -> None:
    plain = trigger()
    assert (plain.name, plain.signature_scheme) == ("generic webhook", Scheme.HMAC_SHA256_V1)
    assert (plain.enabled, plain.default_data_class) == (True, DataClass.INTERNAL)
    full = trigger(
        "GitHub.com",
        name=" Issues ",
        provider_event_kind=" Issues.Opened ",
        signature_scheme="GITHUB_hmac_sha256",
        owning_org_unit_id=" Unit ",
        default_data_class="source_code",
        default_risk_tier="external_send",
        enabled=False,
    )
    assert (full.provider, full.name, full.provider_event_kind, full.owning_org_unit_id) == (
        "github",
        "Issues",
        "issues.opened",
        "unit",
    )
    assert full.signature_scheme is Scheme.GITHUB_HMAC_SHA256
    assert (full.default_data_class, full.default_risk_tier, full.enabled) == (
        DataClass.SOURCE_CODE,
        RiskTier.EXTERNAL_SEND,
        False,
    )


def test_the_scheme_of_a_provider_that_signs_in_one_way_is_that_one() -> None:
    asked = {"signature_scheme": "hmac_sha256_v1"}
    assert trigger("notion", **asked).signature_scheme is Scheme.NOTION_HMAC_SHA256
    assert trigger("linear", **asked).signature_scheme is Scheme.LINEAR_HMAC_SHA256
    assert trigger("github").signature_scheme is Scheme.HMAC_SHA256_V1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "x" * 201}, "name"),
        ({"signature_scheme": "md5"}, "signature_scheme"),
        ({"signature_scheme": "linear_hmac_sha256"}, "for its provider only"),
        ({"signature_scheme": "unsigned_dev_mode"}, "anybody"),
        ({"default_data_class": "secret"}, "default_data_class"),
        ({"default_risk_tier": "low"}, "default_risk_tier"),
    ],
)
def test_a_value_that_a_field_may_not_have_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        trigger(**fields)


def test_an_unsigned_trigger_needs_the_switch() -> None:
    unsigned = trigger(signature_scheme="unsigned_dev_mode", unsigned_allowed=True)
    assert unsigned.signature_scheme is Scheme.UNSIGNED_DEV_MODE


def test_a_patch_changes_what_it_names_and_clears_what_may_be_empty() -> None:
    before = trigger("gitlab", provider_event_kind="push", default_risk_tier="external_send")
    same = patched(before, TriggerPatch(), now_ms=2_000, unsigned_allowed=False)
    assert same == msgspec.structs.replace(before, updated_at_ms=2_000)
    after = patched(
        before,
        TriggerPatch(
            name="x",
            provider="github.com",
            provider_event_kind=None,
            signature_scheme="github_hmac_sha256",
            default_data_class="public",
            default_risk_tier=None,
            enabled=False,
        ),
        now_ms=2_000,
        unsigned_allowed=False,
    )
    assert (after.name, after.provider, after.provider_event_kind) == ("x", "github", None)
    assert after.signature_scheme is Scheme.GITHUB_HMAC_SHA256
    assert (after.default_data_class, after.default_risk_tier) == (DataClass.PUBLIC, None)
    assert not after.enabled
    cleared = TriggerPatch(default_data_class=None, enabled=None)
    back = patched(after, cleared, now_ms=3_000, unsigned_allowed=False)
    assert (back.default_data_class, back.enabled) == (DataClass.INTERNAL, False)


@pytest.mark.parametrize(
    "patch",
    [TriggerPatch(name=" "), TriggerPatch(name=None), TriggerPatch(provider=None)],
)
def test_a_patch_cannot_take_away_what_has_to_be_there(patch: TriggerPatch) -> None:
    with pytest.raises(InvalidRequest):
        patched(trigger(), patch, now_ms=2_000, unsigned_allowed=False)


@pytest.mark.parametrize(("before", "after"), [("generic", "linear"), ("notion", "generic")])
def test_a_patch_does_not_change_where_the_secret_comes_from(before: str, after: str) -> None:
    patch = TriggerPatch(provider=after, signature_scheme="hmac_sha256_v1")
    with pytest.raises(InvalidRequest, match="another trigger"):
        patched(trigger(before), patch, now_ms=2_000, unsigned_allowed=False)


def test_disabling_again_changes_nothing() -> None:
    off = decide_trigger(trigger(), DisableTrigger(), now_ms=2_000).trigger
    assert (off.enabled, off.updated_at_ms) == (False, 2_000)
    assert decide_trigger(off, DisableTrigger(), now_ms=3_000).trigger == off
    on = decide_trigger(off, PatchTrigger(TriggerPatch(enabled=True)), now_ms=4_000).trigger
    assert on.enabled


def test_rotation_ends_the_former_secret_at_once_unless_an_overlap_is_asked_for() -> None:
    first = first_secret(trigger(), b"one", now_ms=1_000)
    assert (first.trigger.secret_version, first.trigger.secret_rotated_at_ms) == (1, None)
    rotated = decide_trigger(first.trigger, RotateSecret(b"two", by="ann"), now_ms=2_000)
    assert rotated.secret is not None
    assert (rotated.secret.version, rotated.former_until_ms) == (2, None)
    told = rotated.trigger
    assert (told.secret_version, told.secret_rotated_at_ms, told.secret_rotated_by) == (
        2,
        2_000,
        "ann",
    )
    assert told.secret_created_at_ms == 1_000
    both = decide_trigger(told, RotateSecret(b"three", overlap_ms=5_000), now_ms=3_000)
    assert (both.former_until_ms, both.trigger.secret_rotated_by) == (8_000, None)


def test_an_overlap_is_bounded() -> None:
    assert overlap_ms_of(60) == 60_000
    for wrong in (-1, 604_801):
        with pytest.raises(InvalidRequest):
            overlap_ms_of(wrong)


def test_a_secret_of_the_provider_is_imported_and_not_rotated_here() -> None:
    linear = trigger("linear")
    with pytest.raises(InvalidRequest) as refused:
        decide_trigger(linear, RotateSecret(b"x"), now_ms=2_000)
    assert refused.value.code == "AUTOMATION_WEBHOOK_ROTATE_UNSUPPORTED"
    taken = decide_trigger(linear, ImportSecret(b"x"), now_ms=2_000)
    assert (taken.trigger.secret_version, taken.trigger.verification_status) == (1, "verified")
    again = decide_trigger(taken.trigger, ImportSecret(b"y"), now_ms=3_000)
    assert again.trigger.secret_version == 2
    for other in (trigger(), trigger("notion")):
        with pytest.raises(InvalidRequest, match="from elsewhere"):
            decide_trigger(other, ImportSecret(b"x"), now_ms=2_000)


def test_a_verification_token_comes_once_under_a_fresh_nonce_and_is_shown_once() -> None:
    waiting = begin_setup(trigger("notion"), "sha256:n", now_ms=1_000).trigger
    assert (waiting.verification_status, waiting.setup_expires_at_ms) == ("pending", 901_000)
    assert is_setup_open(waiting, "sha256:n", now_ms=900_999)
    assert not is_setup_open(waiting, "sha256:n", now_ms=901_000)
    assert not is_setup_open(waiting, "sha256:m", now_ms=2_000)
    assert not is_setup_open(trigger("notion"), "", now_ms=2_000)
    with pytest.raises(Refused, match="not valid"):
        decide_trigger(waiting, TakeToken("sha256:m", b"t"), now_ms=2_000)
    with pytest.raises(Refused) as early:
        decide_trigger(waiting, RevealToken(), now_ms=2_000)
    assert early.value.code == "AUTOMATION_WEBHOOK_TOKEN_UNAVAILABLE"
    taken = decide_trigger(waiting, TakeToken("sha256:n", b"t"), now_ms=2_000).trigger
    assert (taken.verification_status, taken.setup_digest) == ("verified", "")
    shown = decide_trigger(taken, RevealToken(), now_ms=3_000).trigger
    with pytest.raises(Refused):
        decide_trigger(shown, RevealToken(), now_ms=4_000)
    reset = decide_trigger(shown, BeginSetup("sha256:o"), now_ms=5_000)
    assert (reset.forgets_secrets, reset.trigger.is_token_revealed) == (True, False)


@pytest.mark.parametrize(
    "command", [BeginSetup("sha256:n"), TakeToken("sha256:n", b"t"), RevealToken()]
)
def test_verification_tokens_are_for_their_provider_only(command: TriggerCommand) -> None:
    with pytest.raises(InvalidRequest, match="notion"):
        decide_trigger(trigger(), command, now_ms=2_000)


def test_a_new_secret_is_random_enough_and_of_the_form_that_its_scheme_wants() -> None:
    def draw(size: int) -> bytes:
        return bytes(range(size))

    plain = new_secret(Scheme.HMAC_SHA256_V1, draw)
    assert plain.startswith("whsec_")
    assert len(plain) == 6 + 96
    standard = new_secret(Scheme.STANDARD_WEBHOOKS_V1, draw)
    assert key_of(standard) == draw(32)


def test_a_trigger_is_shown_in_both_spellings_and_without_secrets() -> None:
    shown = trigger_document(trigger("github"), base_url="https://x.test")
    assert shown["trigger_id"] == shown["triggerID"] == "whtr_1"
    assert (
        shown["callback_url"]
        == shown["callbackUrl"]
        == ("https://x.test/webhooks/automations/whpub_1")
    )
    assert shown["tenant_label"] == "local / local"
    assert shown["secret_status"]["secretVersion"] == 0
    assert shown["provider_metadata"]["event_id_headers"][0] == "x-github-delivery"
    assert "setup_digest" not in shown
    assert trigger_document(trigger())["callback_url"] == "/webhooks/automations/whpub_1"
    assert callback_path(trigger(), nonce="n") == "/webhooks/automations/whpub_1/n"
    other = trigger(tenant=TenantId("acme/blue/1"), default_risk_tier="external_send")
    told = trigger_document(other)
    assert (told["tenant_label"], told["default_risk_tier"]) == ("acme / blue", "external_send")


def test_how_much_is_read_depends_on_the_provider() -> None:
    assert (trigger().body_bytes_max, trigger("github").body_bytes_max) == (262_144, 524_288)
