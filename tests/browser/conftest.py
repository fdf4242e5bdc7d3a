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


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def window(chromium, request):
    """The browser at the size of a desktop and of a phone, with nothing in its logs."""
    width, height = request.param
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    return chromium
