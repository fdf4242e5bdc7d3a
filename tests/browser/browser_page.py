"""What the tests of the pages ask of the browser."""

import json
from typing import Any

from selenium.webdriver.common.by import By


def all_of(page: Any, selector: str) -> list[Any]:
    return page.find_elements(By.CSS_SELECTOR, selector)


def text_of(page: Any, selector: str) -> str:
    return page.find_element(By.CSS_SELECTOR, selector).text


def requested(page: Any) -> list[str]:
    """The addresses that were asked for since this was last looked at."""
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def errors(page: Any) -> list[str]:
    """What the console has told since this was last looked at, of the worst kind."""
    return [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
