"""Identifiers that are made of others."""

from tandem.domain.ids import NodeId, RunId, attempt_id, idempotency_key

RUN, NODE = RunId("run-1"), NodeId("mail")


def test_attempts_differ_and_share_their_idempotency_key() -> None:
    assert attempt_id(RUN, NODE, 1) == "run-1/mail/1"
    assert attempt_id(RUN, NODE, 2) != attempt_id(RUN, NODE, 1)
    assert idempotency_key(RUN, NODE) == "run-1/mail"
