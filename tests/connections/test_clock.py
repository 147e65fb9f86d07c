"""The clock: waits, deadlines, and what is decided at them. No time passes: it is passed in."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_routes.connections import Policy, Standing, Verdict, VerdictClass
from trio_routes.connections._clock import (
    BOUND_SECONDS,
    Decision,
    Mode,
    Stand,
    asking,
    at_deadline,
    good,
    left,
    on_verdict,
    woken,
)

DEFAULT = Policy()
CLOSING = [verdict for verdict in Verdict if verdict.cls in (VerdictClass.CERTAIN, VerdictClass.UNCERTAIN)]
KEEPING = [verdict for verdict in Verdict if verdict.keeps]


def step(
    stand: Stand, verdict: Verdict, t: float, *, slow: bool = False, moved: bool = False, policy: Policy = DEFAULT
) -> Stand:
    return on_verdict(stand, verdict, t, wait=policy.wait(verdict, slow=slow), slow=slow, moved=moved)


@pytest.mark.parametrize(
    ("verdict", "seconds"),
    [
        (Verdict.NO_ROUTE, 1.0),
        (Verdict.REJECTED, 1.0),
        (Verdict.SOURCE_GONE, 1.0),
        (Verdict.PEER_MOVED, 1.0),
        (Verdict.CARRIER_LOST, 6.0),
        (Verdict.EGRESS_CHANGED, 1.0),
        (Verdict.GATEWAY_CHANGED, 1.0),
        (Verdict.GATEWAY_FAILED, math.inf),
    ],
)
def test_each_verdict_has_its_wait_by_default(verdict: Verdict, seconds: float) -> None:
    stand = step(good(), verdict, 100.0)
    assert (stand.standing, stand.verdict, stand.since) == (Standing.SUSPECT, verdict, 100.0)
    assert stand.deadline == 100.0 + seconds


@pytest.mark.parametrize("verdict", [v for v in CLOSING if v is not Verdict.CARRIER_LOST])
def test_a_slow_cause_makes_every_wait_six_seconds(verdict: Verdict) -> None:
    assert step(good(), verdict, 0.0, slow=True).deadline == 6.0


def test_the_wait_for_carrier_is_the_policys_own_number() -> None:
    assert step(good(), Verdict.CARRIER_LOST, 0.0, slow=True, policy=Policy(carrier_lost=0.5)).deadline == 0.5


def test_a_silent_gateway_has_no_deadline_whatever_the_cause() -> None:
    assert step(good(), Verdict.GATEWAY_FAILED, 0.0, slow=True).deadline == math.inf


def test_a_certain_verdict_after_another_keeps_the_earlier_deadline() -> None:
    """R9."""
    stand = step(good(), Verdict.NO_ROUTE, 0.0)
    assert step(stand, Verdict.SOURCE_GONE, 0.9).deadline == 1.0


def test_row_95_a_verdict_of_another_class_has_its_own_wait() -> None:
    """R9."""
    stand = step(good(), Verdict.NO_ROUTE, 0.0)
    assert step(stand, Verdict.GATEWAY_CHANGED, 0.9).deadline == 1.9


def test_row_3_a_link_cause_that_shows_later_lengthens_the_wait_and_is_not_taken_back() -> None:
    stand = step(good(), Verdict.SOURCE_GONE, 0.0)
    stand = step(stand, Verdict.SOURCE_GONE, 0.2, slow=True)
    assert stand.deadline == 6.0
    # The link is back, the address not yet: DHCP needs its seconds.
    assert step(stand, Verdict.SOURCE_GONE, 3.0).deadline == 6.0


def test_flapping_between_classes_ends_after_thirty_seconds() -> None:
    """R9."""
    stand, t = good(), 0.0
    while t < 60:
        stand = step(stand, (Verdict.NO_ROUTE, Verdict.EGRESS_CHANGED)[int(t / 0.5) % 2], t)
        if stand.deadline <= t:
            break
        t += 0.5
    assert t == BOUND_SECONDS


def test_a_policys_own_longer_wait_is_not_cut_by_the_bound() -> None:
    assert step(good(), Verdict.CARRIER_LOST, 0.0, policy=Policy.patient()).deadline == 60.0


def test_an_hour_with_a_silent_gateway_does_not_make_the_next_short_gap_a_loss() -> None:
    stand = step(good(), Verdict.GATEWAY_FAILED, 0.0)
    stand = step(stand, Verdict.NO_ROUTE, 3600.0)
    assert stand.deadline == 3601.0
    assert stand.since == 0.0


def test_a_wait_for_ever_is_kept_when_a_shorter_one_was_running() -> None:
    policy = Policy(source_gone=math.inf)
    stand = step(good(), Verdict.NO_ROUTE, 0.0, policy=policy)
    assert step(stand, Verdict.SOURCE_GONE, 0.5, policy=policy).deadline == math.inf


@pytest.mark.parametrize("verdict", KEEPING)
def test_a_verdict_that_keeps_makes_good_at_once(verdict: Verdict) -> None:
    stand = step(step(good(), Verdict.NO_ROUTE, 0.0), verdict, 0.5)
    assert stand == good(verdict)
    assert (stand.since, stand.deadline) == (None, math.inf)


def test_a_verdict_that_the_policy_ignores_makes_good() -> None:
    policy = Policy(carrier_lost=None)
    stand = step(step(good(), Verdict.NO_ROUTE, 0.0), Verdict.CARRIER_LOST, 0.5, policy=policy)
    assert stand == good(Verdict.CARRIER_LOST)


def test_what_was_left_or_is_being_asked_about_stays_so_while_nothing_changes() -> None:
    settled = step(good(), Verdict.EGRESS_CHANGED, 0.0)
    for stand in (left(settled, 1.0), asking(settled, 11.0)):
        assert step(stand, Verdict.EGRESS_CHANGED, 5.0) is stand
        moved = step(stand, Verdict.EGRESS_CHANGED, 5.0, moved=True)
        assert (moved.mode, moved.deadline) == (Mode.SETTLING, 6.0)
        other = step(stand, Verdict.NO_ROUTE, 5.0)
        assert (other.mode, other.deadline) == (Mode.SETTLING, 6.0)


def test_what_was_left_for_an_hour_gets_its_full_wait_for_something_new() -> None:
    stand = left(step(good(), Verdict.EGRESS_CHANGED, 0.0), 1.0)
    assert step(stand, Verdict.NO_ROUTE, 3600.0).deadline == 3601.0


def test_waking_gives_a_suspect_connection_ten_seconds_and_leaves_the_others() -> None:
    stand = woken(step(good(), Verdict.NO_ROUTE, 0.0), 500.0)
    assert (stand.since, stand.deadline) == (500.0, 510.0)
    later = step(good(), Verdict.NO_ROUTE, 490.0, policy=Policy.patient())
    assert woken(later, 500.0).deadline == 520.0, "never sooner than before"
    assert woken(good(), 500.0) is good()
    hint = step(good(), Verdict.GATEWAY_FAILED, 0.0)
    assert woken(hint, 500.0) is hint


# ---- deciding ------------------------------------------------------------------------------------------------


def decide(
    verdict: Verdict,
    *,
    doubtful: bool = False,
    can_ask: bool = False,
    close_unasked: bool = False,
    mode: Mode | None = None,
) -> Decision:
    stand = step(good(), verdict, 0.0)
    if mode is not None:
        stand = attrs.evolve(stand, mode=mode)
    return at_deadline(stand, doubtful=doubtful, can_ask=can_ask, close_unasked=close_unasked)


@pytest.mark.parametrize("verdict", CLOSING)
def test_certain_verdicts_close_and_uncertain_ones_are_asked_about(verdict: Verdict) -> None:
    certain = verdict.cls is VerdictClass.CERTAIN
    assert decide(verdict, can_ask=True) is (Decision.CLOSE if certain else Decision.ASK)


def test_a_certain_verdict_in_doubt_is_asked_about() -> None:
    assert decide(Verdict.NO_ROUTE, doubtful=True, can_ask=True) is Decision.ASK
    assert decide(Verdict.NO_ROUTE, doubtful=True, close_unasked=True) is Decision.CLOSE


def test_where_nobody_can_be_asked_the_likelihood_decides() -> None:
    assert decide(Verdict.EGRESS_CHANGED) is Decision.LEAVE
    assert decide(Verdict.EGRESS_CHANGED, close_unasked=True) is Decision.CLOSE


def test_silence_closes() -> None:
    assert decide(Verdict.EGRESS_CHANGED, can_ask=True, mode=Mode.ASKING) is Decision.CLOSE


# ---- properties ----------------------------------------------------------------------------------------------

steps = st.lists(st.tuples(st.sampled_from(list(Verdict)), st.booleans(), st.floats(0.0, 5.0)), max_size=30)


@given(steps)
def test_a_suspect_connection_is_never_due_later_than_the_bound_after_it_began_to_wait(
    history: list[tuple[Verdict, bool, float]],
) -> None:
    stand, t = good(), 0.0
    for verdict, slow, pause in history:
        t += pause
        stand = step(stand, verdict, t, slow=slow)
        assert stand.suspect == (stand.since is not None)
        if stand.verdict in CLOSING:
            assert stand.started <= t
            assert stand.deadline <= stand.started + BOUND_SECONDS
        else:
            assert stand.deadline == math.inf


@given(st.sampled_from(CLOSING), st.sampled_from(CLOSING), st.floats(0.0, 0.99), st.booleans())
def test_saying_the_same_again_changes_nothing(first: Verdict, second: Verdict, pause: float, slow: bool) -> None:
    stand = step(step(good(), first, 0.0), second, pause, slow=slow)
    assert step(stand, second, pause + 0.001, slow=slow) == stand


# ---- policies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", CLOSING)
@pytest.mark.parametrize("slow", [False, True])
def test_the_immediate_policy_waits_for_nothing(verdict: Verdict, slow: bool) -> None:
    assert Policy.immediate().wait(verdict, slow=slow) == 0
    assert not Policy.immediate().ask_kernel
    assert Policy.immediate().gateway_failed == math.inf


def test_the_patient_policy_waits_half_a_minute_and_a_minute_for_links() -> None:
    patient = Policy.patient()
    assert {patient.wait(verdict, slow=False) for verdict in CLOSING if verdict is not Verdict.CARRIER_LOST} == {30.0}
    assert patient.wait(Verdict.CARRIER_LOST, slow=True) == 60.0
    assert patient.wait(Verdict.NO_ROUTE, slow=True) == 60.0
    assert patient.wait(Verdict.GATEWAY_FAILED, slow=True) == math.inf


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
def test_a_policy_refuses_what_is_no_span_of_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="no_route"):
        Policy(no_route=seconds)
    with pytest.raises(ValueError, match="link_cause"):
        Policy(link_cause=seconds)


def test_a_link_cause_cannot_make_everything_wait_for_ever() -> None:
    with pytest.raises(ValueError, match="link_cause"):
        Policy(link_cause=math.inf)
