"""Chromium without a window; Debian's packages are chromium and chromium-driver."""

import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

# Nothing that Chromium does of itself shall look like a request of the page's.
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="session")
def chromium():
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        raise RuntimeError("these tests need chromium and chromedriver: Debian's chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for option in QUIET:
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    yield driver
    driver.quit()
