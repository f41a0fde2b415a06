"""The site in a browser, opened from its files: on a phone and on a desk, light and dark, without the network."""

from __future__ import annotations

import pytest
from playwright.sync_api import TimeoutError as TooLate

WIDTHS = {"phone": 390, "desk": 1280}

pytestmark = pytest.mark.slow


@pytest.fixture
def view(browser, request):
    """A window, and what its pages complained of or asked of the network."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme=getattr(request, "param", "light")
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{page.url}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))

    def failed(asked):
        if asked.failure != "net::ERR_ABORTED":  # so it is called when the next page is opened meanwhile
            complaints.append(f"{page.url}: no {asked.url}")

    page.on("requestfailed", failed)
    local = ("file:", "data:", "blob:", "about:")
    page.on(
        "request", lambda asked: asked.url.startswith(local) or complaints.append(f"{page.url} asks for {asked.url}")
    )
    yield page, complaints
    context.close()


def test_no_page_scrolls_sideways_complains_or_asks_the_network(view, site):
    page, complaints = view
    too_wide, count = [], 0
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html":
            continue
        page.goto(path.as_uri())
        for device, width in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 800})
            try:  # a page that has just been another width takes a moment
                page.wait_for_function("document.scrollingElement.scrollWidth <= innerWidth", timeout=5_000)
            except TooLate:
                too_wide.append(f"{path.relative_to(site)} scrolls on a {device}")
            # what sticks out of the article without a frame of its own that scrolls is cut off
            outside = page.evaluate(CUT_OFF, width)
            too_wide += [f"{path.relative_to(site)} on a {device}: {what} is cut off" for what in outside]
        count += 1
    assert count > 40
    assert too_wide == []
    assert complaints == []


CUT_OFF = """width => [...document.querySelectorAll('article *')].filter(element => {
    if (!element.checkVisibility() || element.getBoundingClientRect().right <= width + 1) return false
    for (let frame = element.parentElement; frame; frame = frame.parentElement) {
        const overflow = getComputedStyle(frame).overflowX
        if (overflow === 'auto' || overflow === 'scroll') return frame.getBoundingClientRect().right > width + 1
    }
    return true
}).map(element => element.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("uri", ["index.html", "tutorials/sgd.html", "reference/safestep.html"])
def test_navigation_is_there(view, site, uri):
    page, _ = view
    page.goto((site / uri).as_uri())
    assert page.locator(".md-tabs a", has_text="Tutorials").is_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    entry = page.locator(".md-nav--primary label", has_text="Tutorials").first
    page.locator("header label[for=__drawer]").click()
    entry.wait_for(state="visible")
    entry.scroll_into_view_if_needed()
    assert 0 <= entry.bounding_box()["x"] < 390


@pytest.mark.parametrize("view", ["light", "dark"], indirect=True)
def test_colours_follow_the_system(view, site, request):
    page, _ = view
    page.goto((site / "index.html").as_uri())
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, background.removeprefix("rgb(").removesuffix(")").split(",")))
    assert (bright > 600) == (request.node.callspec.params["view"] == "light")


def test_search_finds_a_page_without_a_server(view, site):
    page, complaints = view
    page.goto((site / "index.html").as_uri())
    page.locator(".md-search__input").click()
    page.locator(".md-search__input").press_sequentially("KLRadius")
    result = page.locator(".md-search-result__link[href*='reference/safestep.radius.html']").first
    result.wait_for(state="visible", timeout=60_000)
    assert complaints == []


def test_pictures_are_seen_and_formulas_drawn(view, site):
    page, _ = view
    page.goto((site / "tutorials/sgd.html").as_uri())
    assert page.evaluate("[...document.querySelectorAll('article img')].every(image => image.naturalWidth > 0)")
    formula = page.locator(".formula math").first
    assert formula.bounding_box()["height"] > 15
