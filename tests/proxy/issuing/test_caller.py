import asyncio

from proxy.issuing.caller import Caller, Watched, stirred_within


async def test_who_watches_is_stirred_by_each_change_and_not_afterwards() -> None:
    watched, stirred = Watched(), asyncio.Event()
    with watched.watched_by(stirred):
        watched.stir()
        await stirred_within(stirred, 60.0)
        assert not stirred.is_set()
        watched.stir()
        assert stirred.is_set()
    stirred.clear()
    watched.stir()
    assert not stirred.is_set()


async def test_another_entitlement_stirs_and_the_same_does_not() -> None:
    caller, stirred = Caller(1, "coder", ("spiffe://a/b",)), asyncio.Event()
    with caller.watched_by(stirred):
        caller.entitle("coder", ("spiffe://a/b",))
        assert not stirred.is_set()
        caller.entitle("", ())
        assert stirred.is_set()
    assert (caller.app, caller.ids) == ("", ())


async def test_a_wait_ends_without_a_change_too() -> None:
    stirred = asyncio.Event()
    await stirred_within(stirred, 0.0)
    assert not stirred.is_set()
