"""A page opened in a real browser."""

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """A page as parsed: elements with attributes, visible text, scripts, styles, table rows."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles = ""
        self.text = ""
        self.rows: list[list[tuple[str, str | None]]] = []
        self.keys: list[str | None] = []  # of the rows
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "tr":
            self.rows.append([])
            self.keys.append(dict(attrs).get("data-key"))
        if tag == "td":
            self.rows[-1].append(("", dict(attrs).get("data-value")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        where = self.open[-1] if self.open else ""
        if where == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif where == "style":
            self.styles += data
        else:
            self.text += f" {data}"
            if "td" in self.open:
                text, value = self.rows[-1][-1]
                self.rows[-1][-1] = (text + data, value)

    @property
    def data(self) -> dict[str, Any]:
        """What the charts draw."""
        return self._json("data") | self._json("each-run")

    def details(self) -> list[dict[str, Any]]:
        """Of each run, its sections: rows (name, text) by title, and the configuration's text."""
        pool = self._json("details-data")
        result = []
        for _, seed, parts in pool["runs"]:
            sections: dict[str, Any] = {}
            for title, content in (pool["sections"][part] for part in parts):
                if isinstance(content, str):
                    sections[title] = sections.get(title, "") + content.replace(pool["seed"], str(seed))
                else:
                    sections[title] = dict(content)
            result.append(sections)
        return result

    def _json(self, name: str) -> dict[str, Any]:
        (text,) = [text for attributes, text in self.scripts if attributes.get("id") == name]
        return json.loads(text)

    def runs(self) -> list[list[tuple[str, str | None]]]:
        """The rows of the table of runs (its cells carry data-value)."""
        return [row for row, key in zip(self.rows, self.keys, strict=True) if row and row[0][1] is not None and not key]

    def networks(self) -> dict[int, list[str]]:
        """The leaderboard's rows, by the index that the charts give a network."""
        rows = zip(self.rows, self.keys, strict=True)
        return {int(key): [" ".join(text.split()) for text, _ in row] for row, key in rows if key is not None}


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,800"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-quic", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


def visit(browser: Any, path: Path) -> None:
    """Open a page, wait for what it draws, and fail on any console entry, request or script run from a name."""
    browser.get_log("browser")
    browser.get(path.as_uri())
    browser.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 300))")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)") == []
    assert browser.execute_script("return window.broken ?? null") is None


def parts(trace: dict[str, Any], key: str) -> list[list[float]]:
    """Of a trace that joins curves by gaps, the values of each."""
    result: list[list[float]] = [[]]
    for value in trace[key]:
        if value is None:
            result.append([])
        else:
            result[-1].append(value)
    return result
