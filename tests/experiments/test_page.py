"""The page: whole, self-contained, true to the rows, honest about gaps, and readable in a real browser."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
from html.parser import HTMLParser

import pytest

from experiments.made_up import run_directory
from safestep.errors import RunDirectoryError
from safestep.experiments.report.figures import draw
from safestep.experiments.report.page import write_page

VOID = {"meta", "link", "img", "br", "circle", "line", "path"}


class Page(HTMLParser):
    """What a browser sees in the text: tags that close, attributes, words."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words, self.tables = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"td", "th"}:
            self.tables[-1][-1][-1] += data
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run directory of several seeds, drawn and written once."""
    directory = run_directory(tmp_path_factory.mktemp("runs") / "digits-sgd", seeds=(0, 1, 2))
    draw(directory)
    write_page(directory)
    return directory


def read(directory):
    return Page((directory / "report.html").read_text(encoding="utf-8"))


def page_of(path, **changes):
    return Page(write_page(run_directory(path, **changes)).read_text(encoding="utf-8"))


def test_the_page_is_report_html_and_nothing_half_written_is_left(tmp_path):
    assert write_page(run_directory(tmp_path)) == tmp_path / "report.html"
    assert {file.name for file in tmp_path.iterdir()} == {"report.html", "results.json", "records.jsonl"}


def test_every_tag_closes_and_the_structure_is_that_of_a_document(whole):
    page = read(whole)
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert page.all("title")[0] == {}
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    pointed = {attributes[key] for _, attributes in page.elements for key in ("aria-labelledby",) if key in attributes}
    assert pointed <= set(ids)
    assert all(attributes.get("scope") in {"col", "row"} for attributes in page.all("th"))


def test_the_page_asks_for_nothing_from_anywhere(whole):
    page = read(whole)
    for tag, attributes in page.elements:
        for key in ("src", "href", "data", "action", "poster", "srcset", "xlink:href"):
            if key in attributes and not (tag == "a" and key == "href"):
                assert attributes[key].startswith(("data:", "#")), (tag, key)
    assert page.all("script") == []
    style = re.search(r"<style>(.*?)</style>", (whole / "report.html").read_text(encoding="utf-8"), re.DOTALL).group(1)
    assert "@import" not in style
    assert "url(" not in style
    links = [attributes["href"] for attributes in page.all("a")]
    assert links == ["#idea", "https://arxiv.org/abs/2603.13552", "https://github.com/piyush314/ghosts-of-softmax"]


def test_every_picture_is_inside_and_described(whole):
    images = read(whole).all("img")
    assert len(images) == 5
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(len(image["alt"]) > 40 for image in images)
    assert {"capped 5.0", "pin"} <= set(images[0]["alt"].split(", "))


def test_the_rows_are_on_the_page_as_they_are(tmp_path):
    page = page_of(tmp_path)
    (table,) = page.tables
    assert table[0] == [
        "run", "diverged", "accuracy", "effective lr", "capped steps", "peak r", "mean r", "radius ρ",
    ]  # fmt: skip
    assert [row[0] for row in table[1:]] == ["fixed 0.5", "fixed 5.0", "capped 0.5", "capped 5.0", "pin"]
    assert table[2] == ["fixed 5.0", "yes", "0.100", "5.00", "0.000", "1.85e+30", "inf", "0.200"]
    assert table[3] == ["capped 0.5", "no", "0.991", "0.150", "1.000", "1.00", "0.900", "0.200"]


def test_over_seeds_the_summary_comes_first_and_every_row_is_there(whole):
    summary, rows = read(whole).tables
    assert [row[0] for row in summary[1:]] == ["fixed 0.5", "fixed 5.0", "capped 0.5", "capped 5.0", "pin"]
    assert summary[0][1:4] == ["diverged", "accuracy: mean", "effective lr: median"]
    assert summary[3][1:] == ["0", "0.985", "0.150", "1.000", "1.00", "3", "0.001", "0.985"]
    assert [row[1] for row in summary[1:]] == ["0", "3", "0", "0", "0"]
    assert [(row[0], row[1]) for row in rows[1:4]] == [("fixed 0.5", "0"), ("fixed 0.5", "1"), ("fixed 0.5", "2")]
    assert len(rows) == 1 + 5 * 3


def test_the_page_explains_itself(whole):
    text = read(whole).text
    for word in (
        "training step",
        "diverges",
        "spread",
        "radius",
        "step ratio",
        "capped",
        "pin",
        "epoch",
        "policy",
        "seed",
    ):
        assert word in text, word
    for formula in ("ρ = π / max Δ", "r = ‖p‖ / ρ", "s = min(1, target / r)", "s = target / r"):
        assert formula in text, formula


def test_the_command_does_the_same_again(tmp_path):
    page = page_of(tmp_path, seeds=(0, 1))
    assert "safestep run digits-sgd --seeds 0,1 --set epochs=6" in page.text
    results = json.loads((tmp_path / "results.json").read_text())
    results["settings"] |= {"lrs": [0.1, 1.0], "nesterov": True, "device": "a b"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = Page(write_page(tmp_path).read_text(encoding="utf-8")).text
    assert "This command makes the same runs (add --out and a directory of your choice):" in text
    command = re.search(r"safestep run .*? Settings", text).group().removesuffix(" Settings")
    assert shlex.split(command)[5:] == [
        "--set", "epochs=6", "--set", "lrs=0.1,1.0", "--set", "device=a b", "--set", "nesterov=true",
    ]  # fmt: skip


def test_settings_and_environment_are_told(whole):
    text = read(whole).text
    for words in ("batch_size 128", "lrs 0.5,5.0", "torch 2.6.0", "9.8.7", "04 March 2026, 05:06 UTC", "took 0:00:12"):
        assert words in text, words


def test_a_whole_run_is_not_called_incomplete(whole):
    assert "incomplete" not in read(whole).text


def test_an_interrupted_run_says_so_at_the_top(tmp_path):
    directory = run_directory(tmp_path, finished=None)
    results = json.loads((directory / "results.json").read_text())
    results["rows"] = results["rows"][:2]
    (directory / "results.json").write_text(json.dumps(results))
    records = directory / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-40])
    text = Page(write_page(directory).read_text(encoding="utf-8")).text
    top = text[: text.index("What this is about")]
    assert "This page is incomplete." in top
    assert "This run is not finished: rows so far: 2. The command below, with --out and this directory," in top
    assert "Begun but not ended, so without a row: capped 0.5, seed 7; capped 5.0, seed 7; pin, seed 7." in top
    assert "and left out: 1 (line 30: cut short" in top


def test_rows_that_are_missing_are_named(tmp_path):
    directory = run_directory(tmp_path, seeds=(0, 1))
    results = json.loads((directory / "results.json").read_text())
    results["rows"] = [row for row in results["rows"] if (row["label"], row["seed"]) != ("pin", 1)]
    (directory / "results.json").write_text(json.dumps(results))
    assert "Rows are missing: pin, seed 1." in Page(write_page(directory).read_text(encoding="utf-8")).text


def keep_records(directory, wanted):
    """Leave only some of the records of a run directory; return the text of its page."""
    path = directory / "records.jsonl"
    lines = [line for line in path.read_text().splitlines(keepends=True) if wanted(json.loads(line))]
    path.write_text("".join(lines))
    return Page(write_page(directory).read_text(encoding="utf-8")).text


def test_runs_whose_records_are_lost_are_named(tmp_path):
    text = keep_records(run_directory(tmp_path, seeds=(0, 1)), lambda r: r["label"] != "pin" and r["seed"] == 0)
    lost = "capped 0.5, seed 1; capped 5.0, seed 1; fixed 0.5, seed 1; fixed 5.0, seed 1; pin, seed 0; and 1 more"
    assert f"No records are kept of: {lost}. Their curves are missing." in text
    assert "Rows are missing" not in text


def test_records_that_are_lost_are_counted(tmp_path):
    text = keep_records(run_directory(tmp_path), lambda r: r["label"] != "pin" or r["epoch"] < 3)
    assert "Records are lost: 4 of 30. Curves have gaps." in text
    assert "No records are kept" not in text


def test_without_records_it_is_said(tmp_path):
    text = keep_records(run_directory(tmp_path), lambda _: False)
    assert "No records are kept of: capped 0.5, seed 7; capped 5.0, seed 7; fixed 0.5, seed 7;" in text
    assert "Records are lost: 30 of 30." in text


def test_a_seed_or_a_run_that_is_lost_entirely_is_missed(tmp_path):
    directory = run_directory(tmp_path, seeds=(0, 1))
    results = json.loads((directory / "results.json").read_text())
    results["rows"] = [row for row in results["rows"] if row["seed"] == 0 and row["label"] != "pin"]
    (directory / "results.json").write_text(json.dumps(results))
    text = keep_records(directory, lambda r: r["seed"] == 0 and r["label"] != "pin")
    assert "Rows are missing: capped 0.5, seed 1; capped 5.0, seed 1; fixed 0.5, seed 1; fixed 5.0, seed 1; " in text
    assert "; pin, seed 0; and 1 more." in text


def test_files_that_are_not_figures_of_a_run_are_not_looked_at(tmp_path):
    directory = run_directory(tmp_path)
    draw(directory)
    (directory / "figures" / "zzz.png").write_bytes(b"not a picture")
    write_page(directory)
    assert [figure["id"] for figure in read(directory).all("figure")] == [
        "test_accuracy", "training_loss", "effective_lr", "largest_ratio",
    ]  # fmt: skip
    draw(directory)
    assert (directory / "figures" / "zzz.png").read_bytes() == b"not a picture"


def test_a_run_without_any_row_still_has_a_page(tmp_path):
    directory = run_directory(tmp_path, rows=[], summary=[], finished=None, started=None, environment={}, seeds=(3,))
    (directory / "records.jsonl").unlink()
    page = Page(write_page(directory).read_text(encoding="utf-8"))
    assert page.tables == []
    assert "No run has ended yet" in page.text
    assert "safestep run digits-sgd --seeds 3" in page.text


def test_texts_of_the_records_cannot_become_markup(tmp_path):
    evil = "<script>alert('x')</script>&\""
    page = page_of(tmp_path, settings={"target": 1.0, "note": evil}, environment={evil: evil}, version=evil)
    assert page.all("script") == []
    assert page.text.count(evil) >= 4
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    page = page_of(tmp_path, rows=[row | {"label": f"{evil} {i}"} for i, row in enumerate(rows)])
    assert page.all("script") == []
    assert page.tables[0][1][0] == f"{evil} 0"


def test_an_experiment_of_another_version_is_told_from_its_rows_alone(tmp_path):
    rows = [{"label": "slow", "seed": 1, "steps": 12, "end": "inf", "diverged": False}]
    page = page_of(tmp_path, experiment="future-thing", rows=rows, summary=[], settings={"speed": 2})
    assert page.tables == [[["label", "steps", "end", "diverged"], ["slow", "12", "inf", "no"]]]
    assert "safestep run future-thing --seeds 7 --set speed=2" in page.text
    assert "This safestep knows no experiment future-thing: its own figures are not drawn." in page.text
    assert "What this is about" not in page.text


def test_no_run_is_an_error_that_says_what_was_expected(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"no run in .*expected results\.json"):
        write_page(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path):
    directory = run_directory(tmp_path)
    directory.chmod(0o500)
    try:
        with pytest.raises(RunDirectoryError, match=r"cannot write to .*report\.html"):
            write_page(directory)
    finally:
        directory.chmod(0o700)


def test_a_page_that_cannot_be_replaced_is_a_clear_error(tmp_path):
    directory = run_directory(tmp_path)
    (directory / "report.html").mkdir()
    with pytest.raises(RunDirectoryError, match=r"cannot write to .*report\.html.*safestep report"):
        write_page(directory)


@pytest.fixture(params=[390, 1280], ids=["phone", "desktop"])
def view(request, browser, whole):
    """The page in a browser window of a phone or a desk, and what it complained of or asked for."""
    context = browser.new_context(viewport={"width": request.param, "height": 740})
    view = context.new_page()
    complaints, requests = [], []
    view.on("console", lambda message: complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.on("request", lambda asked: requests.append(asked.url))
    view.goto((whole / "report.html").as_uri())
    view.wait_for_load_state("networkidle")
    yield view, complaints, requests
    context.close()


def test_in_a_browser_nothing_is_complained_of_and_nothing_is_fetched(view):
    _, complaints, requests = view
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == requests[:1]
    assert requests[0].startswith("file:")


def test_in_a_browser_every_picture_is_seen(view):
    page, _, _ = view
    images = page.locator("img").all()
    assert len(images) == 5
    width = page.viewport_size["width"]
    for image in images:
        image.scroll_into_view_if_needed()
        assert image.is_visible()
        assert image.evaluate("image => image.complete && image.naturalWidth") >= 720
        box = image.bounding_box()
        assert min(300, width) <= box["width"] <= width
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_in_a_browser_the_page_does_not_scroll_sideways_and_text_is_large_enough(view):
    page, _, _ = view
    width = page.viewport_size["width"]
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    sizes = page.evaluate(
        "[...document.querySelectorAll('body, p, li, td, th, dd, figcaption, pre')]"
        ".map(element => parseFloat(getComputedStyle(element).fontSize))"
    )
    assert min(sizes) >= 14


def test_in_a_browser_a_wide_table_scrolls_in_its_own_frame(view):
    page, _, _ = view
    frame = page.locator(".scroll").first
    inner, outer = frame.evaluate("frame => [frame.scrollWidth, frame.clientWidth]")
    assert outer <= page.viewport_size["width"]
    assert (inner > outer) == (page.viewport_size["width"] == 390)


def test_in_a_browser_labels_of_the_pictures_are_large_enough_on_a_phone(browser, whole):
    from safestep.plots.style import LABEL_SIZE, TEXT_SIZE, WIDTH

    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto((whole / "report.html").as_uri())
    shown = page.locator("img").first.bounding_box()["width"]
    page.close()
    assert min(LABEL_SIZE, TEXT_SIZE) * shown / (WIDTH * 72) >= 10.5
