"""What a provider's refusal is told as: its own words in whatever shape, without secrets, with the remedy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.http.faults import SignalOutage, SignalRefused
from orchestrator.http.refusal import Asker, Secret, refusal

ASKER = Asker("watttime", "CAISO_NORTH", "WATTTIME_PASSWORD")


def told(document: Any, status: int = 400) -> str:
    return str(refusal(status, json.dumps(document).encode(), ASKER))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"error": "NO", "message": "because"}, "(400: NO; because)"),
        ({"error": "NO", "msg": "because", "docs": "https://example.org"}, "(400: NO; because)"),
        ({"error": {"code": "400 Bad Request", "message": "because"}}, "(400: because)"),
        (
            {"detail": [{"loc": ["query", "region"], "msg": "is missing", "type": "t"}]},
            "(400: query.region: is missing)",
        ),
        ({"detail": "because"}, "(400: because)"),
        (
            {
                "title": "Wrong",
                "status": 400,
                "detail": "because",
                "errors": {"location": ["is missing"]},
                "traceId": "0",
            },
            "(400: Wrong; because; is missing)",
        ),
        ({"error": "because", "message": "because"}, "(400: because)"),
        ({"error": 5, "message": None}, "(400)"),
        ("because", "(400: because)"),
        ({}, "(400)"),
    ],
)
def test_the_providers_words_are_found_in_any_shape(document: Any, words: str) -> None:
    assert words in told(document)


def test_an_error_without_end_is_cut(document: Any = None) -> None:
    for _ in range(300):
        document = {"errors": [document]}
    assert told(document).count("\n") == 0
    assert len(told({"error": "long " * 500})) < 400


def test_what_a_server_cannot_do_is_refused_and_no_outage() -> None:
    assert isinstance(refusal(501, b"", ASKER), SignalRefused)
    assert isinstance(refusal(500, b"", ASKER), SignalOutage)


def test_words_that_repeat_a_secret_hide_it() -> None:
    fault = refusal(401, b'{"detail": [{"msg": "token abc-1 is unknown"}]}', ASKER, [Secret.bearer("abc-1")])
    assert "token *** is unknown" in str(fault)
