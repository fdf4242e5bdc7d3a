from collections.abc import Iterator
from typing import Any

import pytest
from hub_server import HubServer, install_olah


@pytest.fixture(scope="session")
def hub_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HubServer]:
    """The Hub on this machine; `add` puts repositories there. Its log is shown with failures."""
    server = HubServer(
        tmp_path_factory.mktemp("hub") / "served",
        install_olah(request.config.cache.mkdir("olah")),
    )
    yield server
    server.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = (yield).get_result()
    server = getattr(item, "funcargs", {}).get("hub_server")
    if report.failed and server:
        lines = server.log.read_text().splitlines()[-40:]
        report.sections.append(("Hub server", "\n".join(lines)))
