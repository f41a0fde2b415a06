"""Animations of traces: how many pictures, whole files or none, pages that ask for nothing."""

from __future__ import annotations

import re

import matplotlib as mpl
import pytest
import torch
from PIL import Image

from safestep.plots import animate_trace, animation

TRACE = torch.tensor([[-5.0 * 0.98**k, -2.0 * 0.96**k] for k in range(301)])


def bowl(x):
    return x[..., 0] ** 2 + 2 * x[..., 1] ** 2


def pictures(path):
    """Return how long each picture of a GIF stands, in milliseconds."""
    with Image.open(path) as image:
        stands = []
        for place in range(image.n_frames):
            image.seek(place)
            stands.append(image.info["duration"])
        return stands


@pytest.fixture
def small(ax):
    ax.figure.set_size_inches(1.5, 1.2)
    return ax


def test_a_gif_has_the_number_of_pictures_asked_for_and_rests_at_its_end(small, tmp_path):
    path = tmp_path / "descent.gif"
    assert animate_trace(bowl, {"sgd": TRACE}, path, frames=7, seconds=2.8, minimum=(0, 0), ax=small) is small
    stands = pictures(path)
    assert len(stands) == 7
    assert stands[:-1] == [400] * 6
    assert stands[-1] > 1000
    assert [found.name for found in tmp_path.iterdir()] == ["descent.gif"]


def test_a_long_trace_has_so_many_pictures_and_a_short_one_as_many_as_points(small, tmp_path, monkeypatch):
    assert animation._MOST <= 100
    monkeypatch.setattr(animation, "_MOST", 12)
    animate_trace(bowl, {"sgd": TRACE}, tmp_path / "long.gif", ax=small)
    assert len(pictures(tmp_path / "long.gif")) == 12
    small.clear()
    animate_trace(bowl, {"sgd": TRACE[:4], "other": -TRACE[:2]}, tmp_path / "short.gif", ax=small)
    assert len(pictures(tmp_path / "short.gif")) == 4


def test_the_axes_hold_the_last_picture(small, tmp_path):
    animate_trace(bowl, {"sgd": TRACE[:30]}, tmp_path / "descent.gif", frames=2, ax=small)
    assert any(len(line.get_xdata()) == 30 for line in small.lines)
    assert any(text.get_text() == "step 29" for text in small.texts)


def test_a_page_holds_its_pictures_and_asks_for_nothing(small, tmp_path):
    path = tmp_path / "descent.html"
    animate_trace(bowl, {"<b>": TRACE, "other": TRACE}, path, frames=5, ax=small)
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert len(re.findall(r"frames\[\d+\] = .data:image/png;base64,", page)) == 5
    bare = re.sub(r"data:image/png;base64,[^\"']*", "", page)
    assert not re.search(r"https?:|<link|@import|\ssrc=|url\(", bare)
    assert "<b>" not in bare
    for sign in set(re.findall(r'class="fa (fa-[\w-]+)', bare)):
        assert f".{sign}::before" in bare  # every button has its sign without the font
    assert [found.name for found in tmp_path.iterdir()] == ["descent.html"]


def test_a_page_drops_no_picture_at_matplotlibs_limit(small, tmp_path):
    with mpl.rc_context({"animation.embed_limit": 1e-4}):
        animate_trace(bowl, {"sgd": TRACE}, tmp_path / "descent.html", frames=3, ax=small)
    assert (tmp_path / "descent.html").read_text().count("data:image/png") == 3


@pytest.mark.parametrize("name", ["descent.mp4", "descent", "descent.png"])
def test_another_suffix_is_an_error_that_says_what_is_possible(small, tmp_path, name):
    with pytest.raises(ValueError, match=r"can be saved as \.gif, or as \.html"):
        animate_trace(bowl, {"sgd": TRACE}, tmp_path / name, ax=small)
    assert not small.lines
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["descent.gif", "descent.html"])
def test_a_save_that_fails_leaves_what_was_there(small, tmp_path, name, monkeypatch):
    path = tmp_path / name
    path.write_text("before")
    drawn = []

    def fail(*args, **options):
        drawn.append(args)
        if len(drawn) > 2:
            raise OSError("disk full")
        return savefig(*args, **options)

    savefig = small.figure.savefig
    monkeypatch.setattr(small.figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        animate_trace(bowl, {"sgd": TRACE}, path, frames=9, ax=small)
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_a_missing_directory_and_impossible_numbers_are_named(small, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no directory .*nowhere"):
        animate_trace(bowl, {"sgd": TRACE}, tmp_path / "nowhere" / "descent.gif", ax=small)
    for options in ({"frames": 0}, {"seconds": 0.0}, {"seconds": float("nan")}):
        with pytest.raises(ValueError, match=r"at least 1 frame, and 0\.1 to 3600 seconds"):
            animate_trace(bowl, {"sgd": TRACE}, tmp_path / "descent.gif", ax=small, **options)


@pytest.mark.parametrize(
    "traces", [{}, {"sgd": TRACE[:1]}, {"lost": torch.full((3, 2), torch.nan)}, {"sgd": 1e30 * TRACE[:3]}]
)
def test_little_to_show_is_a_short_animation(small, tmp_path, traces):
    animate_trace(bowl, traces, tmp_path / "descent.gif", minimum=(0, 0), ax=small)
    assert len(pictures(tmp_path / "descent.gif")) <= 3


def test_settings_of_the_user_do_not_tear_the_pictures_apart(small, tmp_path):
    with mpl.rc_context({"savefig.bbox": "tight", "savefig.transparent": True}):
        animate_trace(bowl, {"sgd": TRACE}, tmp_path / "descent.gif", frames=3, ax=small)
    assert len(pictures(tmp_path / "descent.gif")) == 3


def test_the_case_of_a_suffix_does_not_matter(small, tmp_path):
    for name in ("descent.GIF", "descent.HTML"):
        animate_trace(bowl, {"sgd": TRACE}, tmp_path / name, frames=2, ax=small)
        small.clear()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["descent.GIF", "descent.HTML"]


@pytest.mark.parametrize("seconds", [0.0, 1e-9, float("inf"), float("nan")])
def test_a_time_that_no_animation_can_take_is_refused(small, tmp_path, seconds):
    with pytest.raises(ValueError, match=r"0\.1 to 3600 seconds"):
        animate_trace(bowl, {"sgd": TRACE}, tmp_path / "descent.gif", seconds=seconds, ax=small)
