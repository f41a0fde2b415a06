"""Every study's page as a reader sees it: the answer first, on a phone too, and legible in the dark."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from safestep.experiments import NAMES, find
from safestep.experiments.report.figures import draw, shown
from safestep.experiments.report.page import write_page
from safestep.experiments.runner.rundir import RunDirectory, read_results
from safestep.experiments.runner.session import Session

SETTINGS = {
    "digits-sgd": ["epochs=2", "width=8", "lrs=0.5,50"],
    "digits-momentum": ["epochs=2", "width=8", "lrs=0.5,50"],
    "digits-adam": ["epochs=2", "width=8", "lrs=0.5,50"],
    "noise-floor": ["runs=50", "samples=4", "batches=1,4", "rates=0.1,0.55", "most_steps=40", "unstable_steps=20"],
    "noisy-descent": ["runs=50", "steps=10", "long_steps=20"],
    "drift-map": ["side=5", "steps=20"],
    "drift-throttle": ["runs=B,C", "laws=secant", "samples=40", "warmup_steps=5", "drift_steps=60"],
    "drift-optimizers": ["warm_up=5", "steps=20", "optimizers=sgd"],
    "limits": ["steps=2", "tasks=digits-mlp", "optimizers=sgd", "statistics=curvature", "rates=1,100"],
    "rates": ["steps=10", "methods=clip,safestep", "rates=1,100"],
    "no-rate": ["steps=10", "methods=safestep-pin,prodigy"],
    "spikes": ["steps=10", "methods=safestep", "disturbances=rate-x100-1,shuffled-labels"],
    "phase-transition": ["architectures=linear,digits-mlp", "checkpoints=2", "points=5"],
    "random-directions": ["architectures=linear,digits-mlp", "checkpoints=2", "points=5", "directions=2"],
    "temperature": ["checkpoints=2", "points=5"],
    "rate-spikes": ["architectures=transformer,mlp-layernorm", "methods=plain,clip,softmax-cap", "steps=12"],
    "resnet": ["steps=24", "rates=0.1,4", "pins=1", "width=2"],
    "bottlenecks": ["steps=4", "samples=16"],
    "ghosts": ["architectures=linear", "checkpoints=0,2", "samples=16"],
    "activations": ["architectures=tanh,relu", "checkpoints=2", "points=5"],
    "policy-optimisation": ["updates=1", "factors=100", "limits=none,KL limit"],
    "protection": ["steps=4", "workloads=digits-sgd", "methods=exact,probe", "disturbances=none"],
}
"""Of each study the least that has every column."""
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
FIRST_PICTURE = {390: 450, 1280: 400}
"""Pixels above the first picture, at most: well inside the first screen, under a title of three lines."""
_TEXTS = "p, li, td, th, dt, dd, a, b, code, figcaption, summary, h1, h2, h3, footer"
_LOOKS = """elements => elements.filter(element => element.textContent.trim()).map(element => {
    const looks = [];
    for (let at = element; at; at = at.parentElement) looks.push(getComputedStyle(at).backgroundColor);
    return [element.textContent.trim().slice(0, 40), getComputedStyle(element).color, looks];
})"""


@pytest.fixture(scope="module", params=NAMES)
def page(request, tmp_path_factory):
    """The page of a real run of each study, as small as can be."""
    name, path = request.param, tmp_path_factory.mktemp("runs") / request.param
    experiment = find(name)
    with RunDirectory(path) as directory:
        settings = experiment.settings.parse(SETTINGS[name], quick=True)
        list(Session(directory, experiment, settings, [7]).run(jobs=1))
    draw(path)
    return write_page(path)


@pytest.fixture(scope="module")
def opened(browser, page):
    """Return what shows the page in a window, as it opens; each kind of window is opened once, which takes longest."""
    contexts, views = [], {}

    def open_page(viewport, scheme="light"):
        key = viewport["width"], scheme
        if key not in views:
            contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme))
            views[key] = contexts[-1].new_page()
            views[key].goto(page.as_uri())
            views[key].evaluate("document.querySelectorAll('details').forEach(one => one.asOpened = one.open)")
        views[key].evaluate("document.querySelectorAll('details').forEach(one => one.open = one.asOpened)")
        views[key].evaluate("scrollTo(0, 0)")
        return views[key]

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_first_picture_is_on_the_first_screen_whole_under_what_came_out(opened, viewport):
    view = opened(viewport)
    picture = view.locator("figure").first
    box = picture.locator("img").bounding_box()
    assert box["y"] <= FIRST_PICTURE[viewport["width"]]
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= viewport["width"]
    heading = view.locator("h2").first
    assert heading.inner_text() == "What came out"
    gap = picture.bounding_box()["y"] - heading.bounding_box()["y"] - heading.bounding_box()["height"]
    assert 0 <= gap <= 20  # nothing is between them


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_page_is_as_wide_as_the_window_folded_or_not(opened, viewport):
    view = opened(viewport)
    for _ in range(2):
        assert view.evaluate("document.scrollingElement.scrollWidth") <= viewport["width"]
        view.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")


def test_up_to_three_findings_are_told_and_stand_before_the_table(opened, page):
    findings = opened(PHONE).locator(".findings li").all_inner_texts()
    assert 1 <= len(findings) <= 3
    assert all(re.search(r"\d|never", sentence) and sentence.endswith(".") for sentence in findings)
    text = page.read_text(encoding="utf-8")
    assert text.index('class="findings"') < text.index("<table")


def test_theory_folds_below_what_came_out_and_the_link_leads_there(opened):
    view = opened(PHONE)
    assert view.locator("section:has(#idea) details").count() == 1
    assert not view.locator("section:has(#idea) details .words").is_visible()
    about = view.locator("#idea").bounding_box()["y"]
    assert all(table.bounding_box()["y"] < about for table in view.locator("table:visible").all())
    view.locator('a[href="#idea"]').click()
    assert -1 < view.locator("#idea").bounding_box()["y"] < PHONE["height"]  # a browser scrolls by whole pixels


def test_on_a_phone_the_columns_that_tell_the_story_need_no_scrolling(opened, page):
    view, experiment = opened(PHONE), find(read_results(page.parent)["experiment"])
    table = view.locator("table").first
    headings = table.locator("thead th")
    assert headings.count() > 4
    seen = [
        heading.inner_text()
        for heading in headings.all()
        if heading.bounding_box()["x"] + heading.bounding_box()["width"] <= PHONE["width"]
    ]
    assert len(seen) >= 4
    assert seen == headings.all_inner_texts()[: len(seen)]
    if experiment.name.startswith("digits"):
        assert seen[:4] == ["run", "diverged", "accuracy", "effective lr"]


def test_numbers_have_the_digits_that_matter(page):
    text = page.read_text(encoding="utf-8")
    cells = re.findall(r"<td>([^<]*)</td>", text) + re.findall(r"<li>(.*?)</li>", text)
    numbers = [one for cell in cells for one in re.findall(r"\d+\.\d+", cell)]
    assert numbers
    # beyond the point, four digits that count
    assert [one for one in numbers if len(one.split(".")[1].lstrip("0")) > 4] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(opened, scheme):
    view = opened(DESK, scheme)
    view.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    looks = view.locator(_TEXTS).evaluate_all(_LOOKS)
    assert len(looks) > 50
    weak = {(text, round(ratio, 2)) for text, colour, behind in looks if (ratio := contrast(colour, behind)) < 4.5}
    assert weak == set()
    page_colour = luminance(rgb(view.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))[:3])
    assert page_colour > 0.9 if scheme == "light" else page_colour < 0.05


def test_in_the_dark_figures_lie_on_a_light_card_as_they_were_drawn_on(opened, tmp_path):
    view = opened(DESK, "dark")
    view.locator("figure img").first.screenshot(path=tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    ground = tuple(colours[counts.argmax()] / 255)
    assert luminance(ground) > 0.6
    ink = min(map(luminance, (tuple(colour / 255) for colour in colours)))
    assert (luminance(ground) + 0.05) / (ink + 0.05) >= 7


def test_the_first_picture_is_the_first_that_the_study_names(page):
    drawn = [name for name in shown(read_results(page.parent)) if (page.parent / "figures" / f"{name}.png").is_file()]
    assert re.findall(r'<figure id="(\w+)"', page.read_text(encoding="utf-8")) == drawn


def contrast(colour, behind):
    """The ratio of WCAG 2.2: of a text's luminance and of that of the nearest opaque background."""
    text, ground = rgb(colour), next((one for one in map(rgb, behind) if one[3] == 1), None)
    assert ground is not None, "nothing opaque behind"
    assert text[3] == 1
    light, dark = sorted((luminance(text[:3]), luminance(ground[:3])), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def rgb(colour):
    numbers = [float(number) for number in re.findall(r"[\d.]+", colour)]
    red, green, blue, alpha = numbers if len(numbers) == 4 else [*numbers, 1.0]
    return red / 255, green / 255, blue / 255, alpha


def luminance(colour):
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_is_that_of_the_standard():
    assert contrast("rgb(0, 0, 0)", ["rgba(0, 0, 0, 0)", "rgb(255, 255, 255)"]) == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", ["rgb(255, 255, 255)"]) == pytest.approx(4.48, abs=0.005)
