"""The index misses nobody: whoever a change does not touch would be judged as before."""

from __future__ import annotations

import trio
from hypothesis import given, settings, strategies as st

from tests.connections._watch import FOR_EVER, Watch, flows, toggles
from trio_routes.connections import Verdict
from trio_routes.connections._judge import judge


@settings(deadline=None)
@given(
    st.sampled_from([4, 6]),
    st.lists(st.integers(0, 19), max_size=4),
    st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=3), max_size=8),
    st.booleans(),
)
def test_whoever_a_change_does_not_touch_would_be_judged_as_before(
    family: int, beginning: list[int], batches: list[list[int]], ignore_linkdown: bool
) -> None:
    async def main() -> None:
        watch = Watch(family)
        network = watch.network
        network.ignore_linkdown = ignore_linkdown
        network.put_rule(100)
        network.put_rule(99)
        steps = toggles(watch.site)
        for number in beginning:
            steps[number]()
        network.take()
        connections = [watch.register(flow, policy=FOR_EVER) for flow in flows(watch.site)]
        for batch in batches:
            for number in batch:
                steps[number]()
            watch.registry.court.touch(network.take())
            for connection in connections:
                verdict = connection.verdict  # judges those that were touched, and nobody else
                record = connection.record
                finding = judge(connection.flow, record.known, network, onlink=record.onlink)
                assert (finding.resolution, finding.hops) == (record.now, record.hops)
                assert finding.verdict is verdict or verdict is Verdict.REROUTED

    trio.run(main)
