import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from browser_page import all_of, errors, requested, text_of
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from rga_timm.data.datasets.pedestrians import draw

pytestmark = pytest.mark.browser

REPOSITORY = Path(__file__).parents[2]
TOP = 7


def start(folder, *options):
    """The demo on a free port, once it answers: its process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = folder / "temporary"
    temporary.mkdir()
    log = open(folder / "log", "w+")  # noqa: SIM115 - the process writes it
    process = subprocess.Popen(
        [sys.executable, "-m", "rga_timm", "demo", "--port", str(port), "--workers", "0", *options],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY)},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}/"
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return process, address
        except OSError:
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
    process.kill()
    raise AssertionError((folder / "log").read_text())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Its address, with a small drawn data set as its gallery, and a folder of queries."""
    folder = tmp_path_factory.mktemp("demo")
    root = draw(
        folder / "market1501",
        train_ids=1, train_images=2, test_ids=8, gallery_images=2, distractors=4, junk=0,
        progress=False,
    )  # fmt: skip
    (folder / "broken.jpg").write_bytes(min(root.glob("query/*.jpg")).read_bytes()[:400])
    (folder / "text.jpg").write_text("<b>no image</b>")
    data = ["--dataset", "market1501", "--data-dir", str(root), "--top", str(TOP)]
    process, address = start(folder, "--examples", "6", *data)
    yield address, folder
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert list((folder / "temporary").glob("rga_timm_demo_*")) == []  # no image is left


@pytest.fixture
def page(window, demo):
    window.get(demo[0])
    wait(window, lambda: "Drop an image" in text_of(window, "#results"))
    yield window
    asked = requested(window)
    assert asked
    assert [url for url in asked if not url.startswith((demo[0], "data:", "blob:"))] == []
    assert errors(window) == []


def wait(page, condition):
    waiting = WebDriverWait(
        page, 30, ignored_exceptions=[StaleElementReferenceException, IndexError]
    )
    return waiting.until(lambda _: condition())


def press(page, element):
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def give(page, path):
    all_of(page, "#query input[type=file]")[0].send_keys(str(path))


def choose_example(page, number):
    press(page, wait(page, lambda: all_of(page, "#examples .gallery-item")[number]))
    wait(page, lambda: len(all_of(page, "#results .card")) == 1 + TOP)


def choose_stage(page, number):
    press(page, all_of(page, "#stage label")[number])


def set_threshold(page, value):
    number = all_of(page, "#threshold input[type=number]")[0]
    page.execute_script(
        "arguments[0].value = arguments[1];"
        "for (const e of ['input', 'change', 'blur']) arguments[0].dispatchEvent(new Event(e))",
        *(number, str(value)),
    )


def sources(page):
    return [image.get_attribute("src") for image in all_of(page, "#results .card img")]


def similarities(page):
    lines = [line.text.split() for line in all_of(page, "#results .card .line")[1:]]
    assert [rank for rank, _ in lines] == [str(1 + i) for i in range(len(lines))]
    return [float(similarity) for _, similarity in lines]


def test_page_says_what_it_is_and_fits_the_window(page):
    text = page.find_element(By.TAG_NAME, "body").text
    assert "research tool" in text
    assert "guess" in text
    assert "Your images are deleted" in text
    choose_example(page, 0)
    width, window = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= window


def test_example_is_ranked_with_what_is_known_of_each_result(page):
    choose_example(page, 2)
    found = similarities(page)
    assert found == sorted(found, reverse=True)
    for card in all_of(page, "#results .card")[1:]:
        assert re.search(r"(person \d+|distractor), camera \d\n\S+\.jpg$", card.text)
    assert re.search(r"person \d+, camera \d$", text_of(page, "#results .card.query"))
    images = all_of(page, "#results .card img")
    assert all(image.get_property("naturalWidth") > 0 for image in images)


def test_upload_that_is_a_gallery_image_is_found_first(page, demo):
    path = sorted((demo[1] / "market1501" / "bounding_box_test").glob("0*_c*.jpg"))[9]
    give(page, path)
    wait(page, lambda: len(all_of(page, "#results .card")) == 1 + TOP)
    assert similarities(page)[0] == 1
    assert text_of(page, "#results .card:nth-child(2) .name") == path.name


def test_attention_of_a_stage_is_laid_over_query_and_results(page):
    choose_example(page, 1)
    plain = sources(page)
    seen = [plain]
    for stage in (1, 4):
        choose_stage(page, stage)
        wait(page, lambda: sources(page)[0] != seen[-1][0])
        seen.append(sources(page))
        assert all(a != b for a, b in zip(seen[-1], plain, strict=True))
    choose_stage(page, 0)
    wait(page, lambda: sources(page) == plain)


def test_threshold_keeps_what_is_above_it_and_counts_it(page):
    choose_example(page, 3)
    found = similarities(page)
    threshold = round((found[2] + found[3]) / 2, 2)
    kept = sum(value >= threshold for value in found)
    set_threshold(page, threshold)
    wait(page, lambda: len(all_of(page, "#results .card")) == 1 + kept < 1 + TOP)
    assert f"{kept} of " in text_of(page, "#results .count")
    set_threshold(page, 1)
    wait(page, lambda: text_of(page, "#results .count").startswith("0 of "))
    assert "the nearest has" in text_of(page, "#results .count")
    all_of(page, "#threshold input[type=range]")[0].send_keys(Keys.HOME)  # moves the slider to -1
    wait(page, lambda: len(all_of(page, "#results .card")) == 1 + TOP)


@pytest.mark.parametrize("name", ["broken.jpg", "text.jpg"])
def test_file_that_is_no_image_is_told_and_the_next_one_works(page, demo, name):
    give(page, demo[1] / name)
    wait(page, lambda: f"{name} cannot be read as an image" in text_of(page, "#results"))
    assert "Choose a JPEG" in text_of(page, "#results [role=alert]")
    assert str(demo[1]) not in text_of(page, "#results")
    choose_example(page, 0)


def test_file_of_another_kind_is_refused(page, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no image")
    give(page, path)
    body = page.find_element(By.TAG_NAME, "body")
    wait(page, lambda: "nvalid file type" in body.text)


def test_demo_without_arguments_shows_the_drawn_people(chromium, tmp_path):
    Image.new("RGB", (32, 64), "red").save(tmp_path / "red.png")
    process, address = start(tmp_path)
    try:
        chromium.get(address)
        wait(chromium, lambda: "Drop an image" in text_of(chromium, "#results"))
        assert "pedestrians" in chromium.find_element(By.TAG_NAME, "body").text
        give(chromium, tmp_path / "red.png")
        wait(chromium, lambda: len(all_of(chromium, "#results .card")) == 25)
    finally:
        process.terminate()
        process.wait(30)
