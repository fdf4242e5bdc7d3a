import pytest
import timm
import torch
from browser_page import all_of, errors, requested, text_of
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from rga_timm.data import create_dataset
from rga_timm.data.datasets.pedestrians import draw
from rga_timm.evaluation import Compute, ModelRecord, Protocol
from rga_timm.report_page import PageOptions, evaluate_side, write_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page, its report, and the page of two models."""
    folder = tmp_path_factory.mktemp("page")
    root = draw(
        folder / "market1501",
        train_ids=1, train_images=2, test_ids=12, gallery_images=3, distractors=5, junk=2,
        progress=False,
    )  # fmt: skip
    model = timm.create_model("test_rga_resnet.pedestrians", pretrained=True)
    protocol = Protocol((64, 32), "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    splits = create_dataset("market1501", root)
    torch.manual_seed(0)
    models = {"net": model, "untrained": timm.create_model("test_rga_resnet")}
    sides = [
        evaluate_side(one, splits, protocol, ModelRecord(name), compute=Compute(num_workers=0))
        for name, one in models.items()
    ]
    options = PageOptions(queries=12, top=5)
    path, both = folder / "page.html", folder / "both.html"
    write_page(path, splits, sides[:1], options=options, progress=False)
    write_page(both, splits, sides, options=options, progress=False)
    return path, sides[0].report, both


@pytest.fixture
def page(window, written):
    window.get(written[0].as_uri())
    yield window
    assert errors(window) == []


def press(page, keys):
    page.find_element(By.TAG_NAME, "body").send_keys(keys)


def test_page_is_readable_without_scrolling_sideways(page, written):
    report = written[1]
    assert f"{100 * report.metrics['mAP']:.1f}" in text_of(page, ".metrics")
    width, window = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= window
    assert len(all_of(page, ".plots svg")) == 2
    assert all(svg.size["width"] > 200 for svg in all_of(page, ".plots svg"))


def test_nothing_is_fetched_from_outside(page):
    press(page, "2")
    all_of(page, "button.card")[0].click()
    asked = requested(page)
    assert asked
    assert all(url.startswith(("file://", "data:")) for url in asked)


def test_query_that_is_clicked_is_opened_with_its_results(page):
    button = all_of(page, "#queries button")[3]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert button.get_attribute("aria-current") == "true"
    whose = button.text.splitlines()[0]
    assert whose in text_of(page, "#list h2")
    cards = all_of(page, "#list .results > .card")
    assert len(cards) == 6  # the query, and five
    person = whose.split(",")[0]
    for card in cards[1:]:
        is_right = "right" in card.get_attribute("class").split()
        assert (f"{person}," in card.text) == is_right
        assert ("✓ right" in card.text) == is_right
    images = all_of(page, "#list .picture img")
    assert all(image.get_property("naturalWidth") > 0 for image in images)


def test_attention_of_a_stage_is_laid_over_every_picture(page):
    assert all_of(page, "#list canvas") == []
    third = all_of(page, ".stages button")[3]
    third.click()
    canvases = all_of(page, "#list canvas")
    assert len(canvases) == 6
    assert all_of(page, ".stages button")[3].get_attribute("aria-pressed") == "true"
    colours = page.execute_script(
        "const c = arguments[0]; const d = c.getContext('2d').getImageData(0, 0, c.width, c.height)"
        ".data; return new Set(Array.from(d).map(String)).size",
        canvases[0],
    )
    assert colours > 5
    image, canvas = all_of(page, "#list .picture img")[0], canvases[0]
    assert canvas.rect == image.rect
    press(page, "0")
    assert all_of(page, "#list canvas") == []


def test_query_and_result_stand_side_by_side_at_each_stage(page):
    card = all_of(page, "button.card")[1]
    distance = card.text.splitlines()[-1]
    card.click()
    dialog = page.find_element(By.ID, "pair")
    assert dialog.is_displayed()
    assert f"Rank 2, distance {distance}" in dialog.text
    assert len(dialog.find_elements(By.TAG_NAME, "img")) == 10
    assert len(dialog.find_elements(By.TAG_NAME, "canvas")) == 8
    dialog.find_element(By.TAG_NAME, "button").send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()


def test_filters_leave_what_fits(page):
    Select(page.find_element(By.ID, "group")).select_by_value("worst")
    entries = all_of(page, "#queries button")
    assert len(entries) == 4
    assert all("worst" in entry.text for entry in entries)
    assert text_of(page, "#count") == "4 of 12 shown"

    Select(page.find_element(By.ID, "group")).select_by_value("")
    person = all_of(page, "#queries button")[0].text.split(",")[0].removeprefix("person ")
    page.find_element(By.ID, "person").send_keys(person)
    entries = all_of(page, "#queries button")
    assert 1 <= len(entries) < 12
    assert all(entry.text.startswith(f"person {person},") for entry in entries)

    page.find_element(By.ID, "person").send_keys("99999")
    assert all_of(page, "#queries button") == []
    assert "No query that is shown fits" in text_of(page, "#list")


def test_keys_go_from_query_to_query(page):
    headings = [text_of(page, "#list h2")]
    for key in "jjk":
        press(page, key)
        headings.append(text_of(page, "#list p"))
    assert headings[1] == headings[3] != headings[2]
    press(page, "/")
    assert page.switch_to.active_element.get_attribute("id") == "person"
    page.switch_to.active_element.send_keys("j")  # typed, no command
    assert page.find_element(By.ID, "person").get_property("value") == "j"


def test_table_has_all_queries_the_worst_first(page, written):
    report = written[1]
    page.find_element(By.CSS_SELECTOR, "#all summary").click()
    rows = all_of(page, "#table tr")
    assert len(rows) == report.metrics["num_queries"]
    values = [row.find_elements(By.TAG_NAME, "td")[3].text for row in rows]
    numbers = [float(value) for value in values if value[0].isdigit()]
    assert numbers == sorted(numbers)
    button = all_of(page, "#table button")[-1]
    path = button.text
    page.execute_script("arguments[0].click()", button)
    assert path in text_of(page, "#list")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ground_and_ink_differ_in_light_and_dark(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    ground, ink = page.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )

    def lightness(colour):
        return sum(int(v) for v in colour.split("(")[1].rstrip(")").split(",")[:3]) / 3

    assert (lightness(ground) > 200) == (scheme == "light")
    assert abs(lightness(ground) - lightness(ink)) > 150


def test_two_models_are_compared_query_by_query(page, written):
    page.get(written[2].as_uri())
    width, window = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= window
    Select(page.find_element(By.ID, "group")).select_by_value("first")
    assert all("A alone" in entry.text for entry in all_of(page, "#queries button"))
    rows = all_of(page, "#list .results")
    firsts = [row.find_elements(By.CSS_SELECTOR, "button.card")[0] for row in rows]
    assert ["right" in card.get_attribute("class").split() for card in firsts] == [True, False]
    labels = [label.text for label in all_of(page, "#list strong")]
    assert labels == ["A: net", "B: untrained"]
    press(page, "4")
    assert len(all_of(page, "#list canvas")) == 12
    firsts = all_of(page, "#list .results button.card")
    firsts[5].click()  # the other model's nearest
    assert "Rank 1" in text_of(page, "#pair")
