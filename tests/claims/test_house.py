"""docs/house.md is what the code says of itself."""

from __future__ import annotations

from claims.house import PAGE, made


def test_the_page_is_drawn_from_the_code():
    assert PAGE.read_text(encoding="utf-8") == made(), "run `make tables`"


def test_every_file_says_what_is_in_it():
    assert ": \n" not in made()
