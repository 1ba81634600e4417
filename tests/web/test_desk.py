"""One at a time, in order, with an end to the line; and whoever leaves frees their place."""

import asyncio
import json
import threading
import time

import httpx
import pytest

from harald.web.answers import Refused
from harald.web.desk import Desk, Left, Place
from tests.web import users
from tests.web.server import AUTH, form, running, studio


def test_jobs_run_one_at_a_time_in_the_order_of_arrival():
    running_now, most, order = 0, 0, []

    def work(number: int):
        def run(place: Place) -> dict:
            nonlocal running_now, most
            running_now += 1
            most = max(most, running_now)
            time.sleep(0.01)
            order.append(number)
            running_now -= 1
            return {"number": number}

        return run

    async def visit(desk: Desk, number: int) -> tuple[list[dict], dict]:
        place = desk.enter()
        states = [state async for state in place.serve(work(number))]
        outcome = await place.outcome()
        place.leave()
        return states, outcome

    async def all_of_them() -> list:
        desk = Desk(10)
        visits = await asyncio.gather(*(visit(desk, number) for number in range(6)))
        assert not desk.inside and not desk.line
        return visits

    visits = asyncio.run(all_of_them())
    assert most == 1 and order == list(range(6))
    assert [outcome for _, outcome in visits] == [{"number": number} for number in range(6)]
    assert visits[5][0][0] == {"waiting": 5, "of": 6}


def test_line_has_an_end_and_a_place_that_is_left_is_free_again():
    desk = Desk(2)
    first, _ = desk.enter(), desk.enter()
    with pytest.raises(Refused, match="Busy: 2 visitors") as refused:
        desk.enter()
    assert refused.value.status == 503
    first.leave()
    first.leave()  # twice is once
    desk.enter()
    with pytest.raises(Refused):
        desk.enter()


def test_work_of_a_visitor_who_left_stops_at_its_next_step_and_waiting_work_never_begins():
    begun, stopped, ran = threading.Event(), threading.Event(), []

    def long(place: Place) -> dict:
        begun.set()
        try:
            while True:
                place.step(0.5)
                time.sleep(0.005)
        except Left:
            stopped.set()
            raise

    async def scene() -> dict:
        desk = Desk(3)
        leaving, waiting, staying = desk.enter(), desk.enter(), desk.enter()
        await anext(leaving.serve(long))
        await asyncio.to_thread(begun.wait, 5)
        await anext(waiting.serve(lambda place: ran.append(1) or {}))
        states = staying.serve(lambda place: {"done": True})
        assert await anext(states) == {"waiting": 2, "of": 3}
        waiting.leave()
        leaving.leave()
        async for _ in states:
            pass
        return await staying.outcome()

    assert asyncio.run(scene()) == {"done": True}
    assert stopped.is_set() and not ran


def test_closed_page_frees_its_place_while_it_is_being_served():
    """The first visitor's drawing would take thousands of steps; the second is served as soon as the first is gone."""
    made = studio(steps=5000, places=2)
    with running(made) as address, httpx.Client(base_url=address, headers=AUTH, timeout=60) as client:
        order = form(prompt="a park")
        with client.stream("POST", "/api/draw", files=order) as first:
            states = first.iter_lines()
            while json.loads(next(states)).get("progress", 0) == 0:
                pass
            with client.stream("POST", "/api/draw", files=order) as second:
                waiting = second.iter_lines()
                assert json.loads(next(waiting)) == {"waiting": 1, "of": 2}
                assert client.post("/api/draw", files=order).status_code == 503
                first.close()
                assert any(json.loads(line).get("progress", 0) > 0 for line in waiting)
        for _ in range(100):  # the server sees the closed connections at its next line
            if client.post("/api/inspect", files=[("x", b"x")]).status_code != 503:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the places were not given back")


def test_of_fifty_at_once_each_is_served_or_told_to_come_again():
    seen, places = users.measure(50, seed=1, places=12)
    assert not seen.problems and seen.crashed == 0
    assert seen.answered + seen.busy == 50 and seen.answered >= places == 12
    assert seen.waited == seen.told > 0 and 1 < seen.longest <= 12


def test_crash_among_the_visitors_is_counted():
    seen = users.Crowd()
    seen.note(0, 500, '{"error": "Something went wrong"}')
    seen.note(
        1, 200, '{"waiting": 1}\n{"error": "Something went wrong"}'.replace('"waiting": 1', '"waiting": 1, "of": 1')
    )
    seen.note(2, 503, "")
    seen.note(3, 503, '{"error": "Busy: 12 visitors. Try again in a moment."}')
    made = users.rows(seen, users=4, places=1)
    assert (seen.crashed, seen.busy, seen.waited - seen.told) == (3, 1, 1) and not any(row["met"] for row in made)
