"""Requests made of the OpenAPI schema, right and wrong ones: none may end in an error of the service.

VSR_SCHEMA_EXAMPLES=120 makes more than 2,000 requests.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, given, settings

EXAMPLES = int(os.environ.get("VSR_SCHEMA_EXAMPLES", "4"))


@schemathesis.serializer("application/offset+octet-stream")
def _as_bytes(context: Any, value: Any) -> bytes:
    """Send a part of an upload as it is."""
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def web_schema(listen: Callable[..., tuple[Any, int]]) -> Any:
    """The schema of a service that listens."""
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{listen()[1]}/openapi.json")


def test_no_request_is_an_error_of_the_service(web_schema: Any) -> None:
    asked: Counter[str] = Counter()
    for operation in (result.ok() for result in web_schema.get_all_operations()):

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            label = case.operation.label
            asked[label] += 1
            answer = case.call(timeout=120)
            assert answer.status_code < 500, f"{label}: {answer.status_code} {answer.text}"
            if answer.status_code >= 400 and case.method != "HEAD":
                assert answer.headers["content-type"][0].startswith("application/json"), label

        check()
        print(operation.label, asked[operation.label], flush=True)
    assert len(asked) > 15
    print(f"{asked.total()} requests of {len(asked)} operations")
