"""The picture of the rooms in the documentation is that of the code."""

import runpy
from pathlib import Path

ROOMS = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "rooms.py"))


def test_the_picture_shows_the_rooms_as_they_are():
    assert ROOMS["PICTURE"].read_text() == ROOMS["draw"](), "run `python docs/rooms.py`"


def test_arrows_point_down():
    rooms = ROOMS["graph"]()
    floors = ROOMS["floors"](rooms)  # raises where rooms stand in a circle
    assert all(floors[name] > floors[other] for name in rooms for other in rooms[name])
