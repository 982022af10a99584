"""CPU of a request of the `http` kind in terms of its client's in a bare loop, both at their least, in turns."""

from __future__ import annotations

import pytest

import check_gates

LIMIT = 1.6
"""Measured: 1.25 to 1.35."""


@pytest.mark.gates
@pytest.mark.skipif(not check_gates.can_run_worker(), reason="the rig needs Linux, httptools, orjson, uvloop")
def test_http_costs_little_more_than_its_client_in_a_bare_loop() -> None:
    import uvloop

    from bench_http import beside_its_client
    from rig import rig

    async def measured() -> dict[str, float]:
        async with rig() as here:
            return await beside_its_client(f"{here.stub_url}/api/health", 500, 9, "kind", "bare")

    found = uvloop.run(measured())
    assert found["kind"] <= LIMIT * found["bare"], found
