"""The report, opened in a real browser."""

import io
import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from made_up import made_up_study
from playwright.sync_api import sync_playwright
from pypdf import PdfReader

from vicinal.reports.redraw import redraw

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium here (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def opened(request, browser, finished_study):
    """Return the report on a phone, the console messages, and the requested addresses."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=request.param)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((finished_study / "report.html").as_uri())
    yield page, said, asked
    page.close()


def test_the_console_is_empty_and_no_request_leaves_the_page(opened, finished_study):
    _, said, asked = opened
    assert said == []
    # data: addresses are images inside the page itself.
    assert [url for url in asked if not url.startswith("data:")] == [
        (finished_study / "report.html").as_uri()
    ]


def test_every_figure_is_visible_and_has_a_text_alternative(opened):
    page, _, _ = opened
    figures = page.locator("figure > svg")
    assert figures.count() == 15
    for k in range(figures.count()):
        figure = figures.nth(k)
        box = figure.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 80
        assert figure.is_visible()
        named = figure.get_attribute("aria-labelledby")
        assert len(page.locator(f"#{named}").text_content()) > 40


def test_nothing_scrolls_sideways_on_a_phone(opened):
    page, _, _ = opened
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_ids_are_unique(opened):
    page, _, _ = opened
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(names) == len(set(names)) > 0


def test_text_has_enough_contrast(opened):
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3), in the page and in its figures."""
    page, _, _ = opened
    colors = page.evaluate(
        """() => {
          const css = e => getComputedStyle(e);
          const words = [...document.querySelectorAll('p, td span, th, h1, h2, dt, svg text')];
          return [css(document.body).backgroundColor,
                  ...new Set(words.map(e => e.closest('svg') ? css(e).fill : css(e).color))];
        }"""
    )
    paper, *words = [luminance(color) for color in colors]
    assert words
    for word in words:
        assert (max(paper, word) + 0.05) / (min(paper, word) + 0.05) >= 4.5


def luminance(color):
    channels = [int(c) / 255 for c in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_answer_comes_first_and_the_table_is_whole(opened):
    page, _, _ = opened
    answer = page.locator("p.answer")
    assert answer.bounding_box()["y"] < 200
    table, others, _, classes, splits, *_ = page.locator("table").all()
    assert table.locator("tbody tr").count() == 2 + 6
    assert table.locator("td").count() == 6 * 7
    assert others.locator("tbody tr").count() == 2 + 6 + 2
    assert splits.locator("td").all_inner_texts()[::4] == ["1,257", "540"]
    assert classes.locator("tbody tr").count() == 10


@pytest.mark.parametrize("width", [390, 1280])
def test_published_rows_fit_the_page(browser, study_with_rows, width):
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto((study_with_rows[0] / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    table = page.locator("table.published")
    assert table.locator("tbody tr").count() == 3
    assert table.locator("td").all_inner_texts()[4:6] == ["2", "94.47"]
    for k in range(table.locator("td span").count()):
        box = table.locator("td span").nth(k).bounding_box()
        assert 0 < box["x"] < box["x"] + box["width"] <= width
    if width == 390:  # names in front of the cells stay in one line, beside whatever is long
        names = page.evaluate(
            """() => {
              const beside = document.createElement('b');
              document.querySelector('.published td:last-child').append(beside);
              beside.textContent = 'source';
              beside.style.fontWeight = 'normal';
              return [...document.querySelectorAll('.published td:last-child')].map(
                e => [parseFloat(getComputedStyle(e, '::before').width), beside.offsetWidth]);
            }"""
        )
        assert all(drawn >= whole - 1 for drawn, whole in names)
    page.close()


def test_hostile_names_are_shown_and_run_nothing(browser, hostile_study):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((hostile_study[0] / "report.html").as_uri())
    assert "<script>alert(1)</script>" in page.locator("p.answer").inner_text()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.url]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.fixture(scope="module")
def many_arms(tmp_path_factory):
    """Return the page of a study with ten arms, of which one failed, under two conditions."""
    folder = tmp_path_factory.mktemp("many") / "study"
    failed = [f"arm3-true-labels-seed{k}" for k in range(3)]
    made_up_study(folder, arms=10, corrupted_labels=(0.0, 0.4), failed=failed, gain=0.1)
    redraw([folder])
    return (folder / "report.html").as_uri()


def arms_of(page):
    """Return the visible rows of the main table: the heads of its groups, and its arms."""
    rows = page.locator("table").first.locator("tbody tr:visible th")
    return [text for text in rows.all_inner_texts() if text]


def test_a_click_on_a_head_sorts_each_group_up_then_down_then_as_before(browser, many_arms):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(many_arms)
    before = arms_of(page)
    assert before[:3] == ["true labels", "ERM", "mixup 1"]
    head = page.get_by_role("columnheader", name="test accuracy, %").first
    button = head.get_by_role("button")
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    for group in page.locator("table").first.locator("tbody").all():
        cells = group.locator("td:nth-child(2)").all_inner_texts()
        values = [float(cell.split()[0]) for cell in cells if cell != "—"]
        assert values == sorted(values)
        assert len(values) >= 9
        assert "—" not in cells[:-1]  # what has no value comes last
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    first = page.locator("table").first.locator("tbody").nth(1).locator("td:nth-child(2)")
    values = [float(cell.split()[0]) for cell in first.all_inner_texts()]
    assert values == sorted(values, reverse=True)
    button.press("Enter")
    assert head.get_attribute("aria-sort") is None
    assert arms_of(page) == before
    page.close()


def test_the_filter_leaves_the_rows_with_all_its_words_and_counts_them(browser, many_arms):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(many_arms)
    field = page.get_by_label("Filter arms")
    field.fill("Mixup 3")
    assert arms_of(page) == ["true labels", "mixup 3", "40% corrupted", "mixup 3"]
    assert page.get_by_role("status").inner_text() == "2 of 20 rows"
    field.fill("mixup 3 40%")
    assert arms_of(page) == ["40% corrupted", "mixup 3"]
    field.fill("nothing like that")
    assert arms_of(page) == []
    field.fill("")
    assert len(arms_of(page)) == 22
    assert page.get_by_role("status").inner_text() == ""
    page.close()


def test_without_javascript_the_tables_are_whole_and_have_no_controls(browser, many_arms):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(many_arms)
    assert page.locator("button, input").count() == 0
    assert len(arms_of(page)) == 22
    assert page.locator("table").first.locator("thead th").first.inner_text() == "arm"
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_axe_finds_nothing_serious(browser, many_arms, finished_study, width, scheme):
    for url in (many_arms, (finished_study / "report.html").as_uri()):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
        )
        page.goto(url)
        found = Axe().run(page).response["violations"]
        serious = [
            (one["id"], one["nodes"][0]["html"][:200])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
        page.close()


def test_the_head_of_a_table_sorts_on_a_phone_too(browser, many_arms):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(many_arms)
    page.get_by_role("button", name="verdict").first.click()
    assert page.locator("th[aria-sort=ascending]").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_the_controls_are_not_printed(browser, many_arms):
    page = browser.new_page()
    page.goto(many_arms)
    page.emulate_media(media="print")
    assert not page.locator(".filter").is_visible()
    assert page.get_by_role("button", name="arm").first.is_visible()
    page.close()


def test_the_page_forbids_scripts_and_requests_even_where_one_slipped_through(
    browser, hostile_study, tmp_path
):
    slipped = "<script>document.title = 'ran'</script><img src='https://example.org/a.png'>"
    text = (hostile_study[0] / "report.html").read_text("utf-8")
    copy = tmp_path / "slipped.html"
    copy.write_text(text.replace("<main>", f"<main>{slipped}"), "utf-8")
    page = browser.new_page()
    asked = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: asked.append(request.failure))
    page.goto(copy.as_uri())
    assert page.title() != "ran"
    assert [one for one in asked if not one.startswith("data:")] == [copy.as_uri(), "csp"]
    page.close()


def test_it_prints_on_white_paper(browser, finished_study):
    page = browser.new_page(color_scheme="dark")
    page.goto((finished_study / "report.html").as_uri())
    page.emulate_media(media="print")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert len(page.pdf(format="A4")) > 10_000
    page.close()


def test_a_printed_table_repeats_its_header_on_each_page(browser, tmp_path):
    made_up_study(tmp_path, arms=8, examples=60, metrics=("accuracy", "nll"))
    redraw([tmp_path])
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    printed = PdfReader(io.BytesIO(page.pdf(width="21cm", height="9cm"))).pages
    page.close()
    texts = [one.extract_text() for one in printed]
    rows = [text for text in texts if re.search(r"^mixup \d .*\[", text, re.MULTILINE)]
    assert len(rows) == 4  # two tables, each on two pages
    assert all(re.search("^arm ", text, re.MULTILINE) for text in rows)
