"""The page: self-contained, escaped, showing the records' own numbers; drawn by a real browser where there is one."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.page import write_page
from tests.records import make_run

VOID = {"meta", "link", "input", "br", "hr", "img"}
NASTY = "</script><script>window.broken=1</script>"
IMAGE = "<img src=x onerror=window.broken=2>"


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
        (text,) = [text for attributes, text in self.scripts if attributes.get("type") == "application/json"]
        return json.loads(text)

    def runs(self) -> list[list[tuple[str, str | None]]]:
        """The rows of the table of runs (its cells carry data-value)."""
        return [row for row in self.rows if row and row[0][1] is not None]


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def nine(tmp_path: Path) -> list[Path]:
    names = ("densenet40_k12", "resnet20", "resnext29_8x4d")
    return [make_run(tmp_path, name=name, seed=seed) for name in names for seed in range(3)]


def plotly_source() -> str:
    path = importlib.metadata.distribution("plotly").locate_file("plotly/package_data/plotly.min.js")
    return Path(str(path)).read_text(encoding="utf-8")


def test_the_page_loads_nothing(tmp_path: Path, nine: list[Path]) -> None:
    path = write_page(tmp_path)
    assert path == tmp_path / "report.html"
    page = Page(path)
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
            if (target := attributes.get(name)) is not None:
                assert target.startswith("#") or target == "data:,", f"<{tag} {name}={target!r}>"
    assert not {tag for tag, _ in page.elements} & {"iframe", "img", "object", "embed", "base"}
    assert not re.search(r"url\(|@import", page.styles)
    (policy,) = [attributes for _, attributes in page.elements if attributes.get("http-equiv")]
    assert (policy["content"] or "").startswith("default-src 'none'; script-src 'unsafe-inline';")
    _, (_, plotly), (_, own) = page.scripts
    assert plotly == plotly_source()
    assert not re.search(r"https?:|fetch\(|import\(|XMLHttpRequest|WebSocket", own)


def test_every_internal_link_has_its_target_and_no_id_is_used_twice(tmp_path: Path, nine: list[Path]) -> None:
    make_run(tmp_path, name="resnet110", status="failed")
    page = Page(write_page(tmp_path))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {(attributes["href"] or "")[1:] for tag, attributes in page.elements if tag == "a"}
    assert "failures" in targets and targets <= set(ids)
    for _, attributes in page.elements:
        for referred in (attributes.get("aria-labelledby") or "").split():
            assert referred in ids


def test_no_placeholder_is_left(tmp_path: Path, nine: list[Path]) -> None:
    page = Page(write_page(tmp_path))
    assert not re.search(r"\{\{\w+\}\}", page.source.replace(plotly_source(), ""))


def test_a_placeholder_in_a_name_stays_text(tmp_path: Path) -> None:
    make_run(tmp_path, name="{{plotly}}", family="resnet")
    page = Page(write_page(tmp_path))
    assert "{{plotly}}" in page.text
    assert page.data["charts"][0]["curves"][0]["label"] == "{{plotly}}"


def test_every_drawn_number_is_the_records(tmp_path: Path, nine: list[Path]) -> None:
    (chart,) = Page(write_page(tmp_path)).data["charts"]
    assert (chart["val_label"], chart["test_label"]) == ("validation error (%)", "test error (%)")
    assert len(chart["curves"]) == len(chart["points"]) == 9
    for folder, curve, point in zip(nine, chart["curves"], chart["points"], strict=True):
        record, rows = record_of(folder), rows_of(folder)
        assert curve["label"] == point["label"] == f"{record['name']} · seed {record['seed']}"
        assert curve["family"] == point["family"] == record["family"]
        assert curve["x"] == [row["train_flops"] for row in rows]
        assert curve["y"] == [row["val/top1_err"] for row in rows]
        assert (point["x"], point["y"]) == (record["complexity"]["macs"], record["metrics"]["test/top1_err"])


def test_segmentation_draws_a_hundred_minus_dice_and_its_baseline(tmp_path: Path) -> None:
    folder = make_run(tmp_path, task="segmentation", metrics={"test/dice": 0.912, "test/dice_err": 8.8})
    page = Page(write_page(tmp_path))
    (chart,) = page.data["charts"]
    (curve,), (point,), (baseline,) = chart["curves"], chart["points"], chart["baselines"]
    assert curve["y"] == [row["val/dice_err"] for row in rows_of(folder)]
    assert point["y"] == 8.8
    assert chart["test_label"] == "100 − Dice (%)"
    assert baseline["label"] == "Otsu" and baseline["y"] == pytest.approx(11.6)
    assert "Otsu has a Dice of 0.884 without learning. Beside it: unet_d4_c16 0.912." in page.text


def test_the_table_holds_the_records_values_without_javascript(tmp_path: Path, nine: list[Path]) -> None:
    rows = Page(write_page(tmp_path)).runs()
    assert len(rows) == 9
    for folder, row in zip(nine, rows, strict=True):
        record = record_of(folder)
        complexity, compute = record["complexity"], record["compute"]
        values = [record["name"], record["data"], record["recipe"], record["seed"], complexity["params"]]
        values += [complexity["macs"], compute["train_flops"], record["metrics"]["test/top1_err"], 450]
        assert [value for _, value in row] == [str(value) for value in [*values, compute["wall_s"], "ok"]]
        assert row[7][0] == f"{record['metrics']['test/top1_err']:.2f} %"


def test_failed_and_running_runs_are_shown_as_such(tmp_path: Path) -> None:
    make_run(tmp_path, name="resnet20", status="failed", error="the cause & nothing but")
    make_run(tmp_path, name="resnet29", status="running", epochs=2)
    make_run(tmp_path, name="resnet110", status="interrupted", error=None)
    page = Page(write_page(tmp_path))
    assert [row[-1][0] for row in page.runs()] == ["failed", "running", "interrupted"]
    assert "failed resnet20 seed 0 on digits the cause & nothing but" in page.text
    assert "no cause was recorded" in page.text
    assert "3 runs: 1 running, 1 failed , 1 interrupted ." in page.text
    assert [curve["status"] for curve in page.data["charts"][0]["curves"]] == ["failed", "running", "interrupted"]
    assert page.data["charts"][0]["points"] == []


def test_means_are_of_several_seeds_only(tmp_path: Path) -> None:
    make_run(tmp_path, metrics={"test/top1_err": 1.0})
    make_run(tmp_path, name="resnet20", metrics={"test/top1_err": 5.0})
    assert "±" not in Page(write_page(tmp_path)).text
    make_run(tmp_path, seed=1, metrics={"test/top1_err": 3.0})
    page = Page(write_page(tmp_path))
    (row,) = [row for row in page.rows if any("±" in text for text, _ in row)]
    texts = ["resnext29_8x4d", "digits", "2.00 ± 1.41 %", "test error (%)", "mean of 2 seeds", "450"]
    assert [text for text, _ in row] == texts


def test_the_passport_tells_what_the_run_was(tmp_path: Path) -> None:
    folder = make_run(tmp_path, departures={"recipe.epochs": 5})
    record = record_of(folder)
    page = Page(write_page(tmp_path))
    assert sum(tag == "details" for tag, _ in page.elements) == 1
    told = [record["weights_sha256"], record["dataset"]["sha256"], record["config_hash"], record["code"]["commit"]]
    told += ["departures from the recipe epochs=5", "package torch 2.13.0+cpu", "device_name AMD EPYC 7B13"]
    told += [f"definition of top1_err {record['protocol']['definitions']['top1_err']}", "test images 450"]
    told += [f"params {record['complexity']['params']:,}", "checkpoint last", "reported metric test/top1_err"]
    for text in told:
        assert text in page.text, text


def test_names_are_text_wherever_they_appear(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    make_run(plain, data="a")
    make_run(plain, data="b", status="failed")
    nasty = tmp_path / "nasty"
    code = {"version": NASTY, "commit": IMAGE}
    make_run(nasty, data=f"a{IMAGE}", name=NASTY, family=IMAGE, recipe="a&b", code=code, departures={NASTY: IMAGE})
    make_run(nasty, data="b", name='"><b>', family=NASTY, recipe="c", status="failed", error=NASTY + IMAGE)
    expected, page = Page(write_page(plain)), Page(write_page(nasty))

    def built(page: Page) -> set[tuple[str, tuple[str, ...]]]:
        return {(tag, tuple(attributes)) for tag, attributes in page.elements}

    # the "other" family's mark is another shape; else no element or attribute is there that plain names do not make
    assert built(page) - built(expected) <= {("path", ("d",))}
    assert len(page.scripts) == len(expected.scripts) == 3
    assert page.text.count(NASTY) >= 3 and IMAGE in page.text and '"><b>' in page.text
    assert page.data["charts"][0]["data"] == f"a{IMAGE}"
    assert not re.search("[<>&]", page.scripts[0][1])


def test_what_cannot_be_encoded_or_drawn_does_not_stop_the_page(tmp_path: Path) -> None:
    make_run(tmp_path, name="resnet20", status="failed", error="\ud800 \x1b[31m")
    make_run(tmp_path, name="resnet29", metrics={"test/top1_err": float("nan")}, recipe="a")
    page = Page(write_page(tmp_path))
    assert "� �[31m" in page.text
    assert page.data["charts"][0]["points"] == []


def test_what_could_not_be_read_is_named(tmp_path: Path) -> None:
    make_run(tmp_path, name="resnet20")
    broken = make_run(tmp_path, name="resnet29") / "history.jsonl"
    broken.write_text("{\n" + broken.read_text())
    torn = make_run(tmp_path, name="resnet110") / "record.json"
    torn.write_text("{")
    page = Page(write_page(tmp_path))
    assert f"{broken}, line 1: not a JSON object" in page.text
    assert f"{torn}: not valid JSON" in page.text
    assert [row[0][0] for row in page.runs()] == ["resnet20", "resnet29"]


def test_without_runs_the_page_says_so(tmp_path: Path) -> None:
    page = Page(write_page(tmp_path))
    assert "There are no runs in this folder yet" in page.text
    assert len(page.source) < 100_000  # nothing to draw: plotly is left out


def test_without_an_evaluation_the_page_says_so(tmp_path: Path) -> None:
    make_run(tmp_path, status="running", history=[])
    page = Page(write_page(tmp_path))
    assert "no run has been evaluated" in page.text
    assert [row[-1][0] for row in page.runs()] == ["running"]


def test_a_data_set_is_chosen_only_when_there_are_several(tmp_path: Path) -> None:
    make_run(tmp_path)
    assert "select" not in {tag for tag, _ in Page(write_page(tmp_path)).elements}
    make_run(tmp_path, task="segmentation")
    page = Page(write_page(tmp_path))
    assert [attributes["value"] for tag, attributes in page.elements if tag == "option"] == ["0", "1"]
    assert [chart["data"] for chart in page.data["charts"]] == ["digits", "nuclei"]


def test_a_page_that_could_not_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path)
    before = write_page(tmp_path).read_bytes()
    make_run(tmp_path, seed=1)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_page(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"digits", "report.html"}


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_page(tmp_path / "nowhere")


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


def drawn(browser: Any, chart: str) -> list[dict[str, Any]]:
    """The traces that plotly holds for a chart, with how many of each it put into the document."""
    traces = browser.execute_script(
        "return document.getElementById(arguments[0]).data.map(({x, y, name, mode, marker, line}) =>"
        " ({x, y, name, mode, marker, line}))",
        chart,
    )
    shown = browser.execute_script(
        "return document.querySelectorAll(`#${arguments[0]} .scatterlayer .trace`).length", chart
    )
    assert shown == len(traces)
    return traces


def labels(browser: Any, chart: str) -> list[dict[str, Any]]:
    """Text and box of every label in a chart."""
    return browser.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} .annotation-text`)].map(label => {"
        " const {left, right, top, bottom} = label.getBoundingClientRect();"
        " return {text: label.textContent, left, right, top, bottom}; })",
        chart,
    )


@pytest.mark.browser
def test_browser_draws_both_charts_from_the_records(browser: Any, tmp_path: Path, nine: list[Path]) -> None:
    visit(browser, write_page(tmp_path))
    curves = drawn(browser, "training")
    assert len(curves) == 9
    for folder, curve in zip(nine, curves, strict=True):
        assert curve["x"] == [row["train_flops"] for row in rows_of(folder)]
        assert curve["y"] == [row["val/top1_err"] for row in rows_of(folder)]
    points = drawn(browser, "inference")
    records = [record_of(folder) for folder in nine]
    assert sorted((x, y) for trace in points for x, y in zip(trace["x"], trace["y"], strict=True)) == sorted(
        (record["complexity"]["macs"], record["metrics"]["test/top1_err"]) for record in records
    )
    assert len({trace["marker"]["color"] for trace in points}) == 3
    assert len({trace["marker"]["symbol"] for trace in points}) == 3
    assert len({curve["line"]["dash"] for curve in curves}) == 3
    assert browser.execute_script("return document.querySelectorAll('#inference .points path').length") == 9


@pytest.mark.browser
def test_browser_labels_every_run_and_no_label_covers_another(browser: Any, tmp_path: Path, nine: list[Path]) -> None:
    for seed in range(3):
        make_run(tmp_path, name="resnet29", seed=seed)
    visit(browser, write_page(tmp_path))
    for chart in ("training", "inference"):
        found = labels(browser, chart)
        names = ("densenet40_k12", "resnet20", "resnet29", "resnext29_8x4d")
        assert {label["text"] for label in found} == {f"{name} · seed {seed}" for name in names for seed in range(3)}
        for index, one in enumerate(found):
            for other in found[index + 1 :]:
                across = min(one["right"], other["right"]) - max(one["left"], other["left"])
                down = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
                assert min(across, down) < 2, (one, other)


@pytest.mark.browser
@pytest.mark.parametrize("range_name", ["whole", "log", "end"])
def test_browser_switches_the_error_axis(browser: Any, tmp_path: Path, nine: list[Path], range_name: str) -> None:
    visit(browser, write_page(tmp_path))
    browser.find_element("css selector", f"input[value={range_name}]").click()
    kind, low, high = browser.execute_script(
        "const {type, range} = document.getElementById('training').layout.yaxis; return [type, ...range]"
    )
    errors = [row["val/top1_err"] for folder in nine for row in rows_of(folder)]
    ends = [rows_of(folder)[-1]["val/top1_err"] for folder in nine]
    assert kind == ("log" if range_name == "log" else "linear")
    if range_name == "log":
        assert 10**low < min(errors) and max(errors) < 10**high
    elif range_name == "whole":
        assert low < 0 and max(errors) < high
    else:
        assert low < 0 and max(ends) < high < max(errors)
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_browser_sorts_by_click_and_by_key(browser: Any, tmp_path: Path) -> None:
    sizes = {"resnet20": 9_000_000, "resnet29": 100_000, "resnet110": 20_000_000}
    for name, size in sizes.items():
        make_run(tmp_path, name=name, complexity={"params": size})
    make_run(tmp_path, name="resnet8", status="failed", complexity=None, history=[])
    visit(browser, write_page(tmp_path))

    def models() -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll('#runs tbody tr')].map(row => row.cells[0].textContent)"
        )

    assert models() == ["resnet8", "resnet20", "resnet29", "resnet110"]
    head = browser.find_element("xpath", "//table[@id='runs']//th[button='parameters']")
    button = head.find_element("tag name", "button")
    button.click()
    assert models() == ["resnet29", "resnet20", "resnet110", "resnet8"]
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys("\ue007")  # Enter
    assert models() == ["resnet110", "resnet20", "resnet29", "resnet8"]
    assert head.get_attribute("aria-sort") == "descending"
    browser.find_element("xpath", "//table[@id='runs']//th[button='model']/button").click()
    assert models() == ["resnet8", "resnet20", "resnet29", "resnet110"]
    assert head.get_attribute("aria-sort") == "none"


@pytest.mark.browser
def test_browser_changes_the_data_set(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path)
    folder = make_run(tmp_path, task="segmentation")
    visit(browser, write_page(tmp_path))
    browser.find_element("css selector", "#dataset option[value='1']").click()
    (curve,) = drawn(browser, "training")
    assert curve["y"] == [row["val/dice_err"] for row in rows_of(folder)]
    point, baseline = drawn(browser, "inference")
    assert point["y"] == [record_of(folder)["metrics"]["test/dice_err"]]
    assert baseline["y"] == pytest.approx([11.6])
    legend = browser.execute_script(
        "return [...document.querySelectorAll('.legend li')].filter(li => li.offsetParent).map(li => li.textContent)"
    )
    assert legend == ["unet"]
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_browser_follows_the_colour_scheme(browser: Any, tmp_path: Path, nine: list[Path]) -> None:
    path = write_page(tmp_path)
    grounds = {}
    try:
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            if scheme == "light":
                visit(browser, path)  # dark must then follow without a reload
            browser.execute_async_script("const done = arguments[0]; setTimeout(done, 300)")
            grounds[scheme] = browser.execute_script(
                "return [document.getElementById('training').layout.paper_bgcolor,"
                " getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()]"
            )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert grounds["light"][0] == grounds["light"][1] != grounds["dark"][0] == grounds["dark"][1]


@pytest.mark.browser
def test_browser_shows_nasty_names_as_text(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path, name=NASTY, family="resnet", recipe="a")
    make_run(tmp_path, name=IMAGE, family=IMAGE, recipe="a", status="failed", error=NASTY)
    formatted = "<b>plotly reads this</b><br>&lt;"
    make_run(tmp_path, name=formatted, family="resnet", recipe="a", final=20.0)
    visit(browser, write_page(tmp_path))
    assert browser.execute_script("return document.images.length") == 0
    assert {label["text"] for label in labels(browser, "training")} == {NASTY, f"{IMAGE} (failed)", formatted}


@pytest.mark.browser
def test_browser_opens_a_passport_from_its_link(browser: Any, tmp_path: Path, nine: list[Path]) -> None:
    visit(browser, write_page(tmp_path))
    browser.find_element("css selector", "#runs a[href='#run-4']").click()
    assert browser.execute_script("return [...document.querySelectorAll('details')].map(d => d.open)") == [
        index == 4 for index in range(9)
    ]


@pytest.mark.browser
def test_browser_shows_a_page_without_runs(browser: Any, tmp_path: Path) -> None:
    visit(browser, write_page(tmp_path))
    assert "There are no runs" in browser.find_element("tag name", "main").text
