"""What the tests of all rooms share: golden texts in files beside the tests, renewed by ``--renew-goldens``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: the workers share the cores
# A busy machine is no mistake. The suite draws the same examples each time, `--hypothesis-profile=search` others.
settings.register_profile("ssmc", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("ssmc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-goldens", action="store_true", help="write what the tests see into their golden files")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take long are begun first: begun last, they would keep one worker busy while the others wait."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)`` compares `text` with the file ``goldens/name`` beside the test, or writes it there."""

    def compare(name: str, text: str) -> None:
        path = Path(request.path).parent / "goldens" / name
        if request.config.getoption("--renew-goldens"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), (
            f"{path} is stale: look at the difference, then --renew-goldens"
        )

    return compare
