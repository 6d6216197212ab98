"""The load run of `scripts/chaos`, a small one: it stays able to find what it is there to find."""

import pytest

from chaos.load import Load, run_load


@pytest.mark.timeout(120)
async def test_no_job_is_lost_when_workers_are_killed() -> None:
    figures = await run_load(Load(jobs=300, clients=4, kill_every=2.5))

    assert [] == figures["wrong"]
    assert figures["workers killed"]
