"""The page as its reader uses it, in a real browser: clicks after a filter, links, sorting, addresses and downloads."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.browser import Page, visit
from support.records import make_run

from benchmarks.report.page import write_page

SCORE, INTERVAL = 3, 4  # columns of the leaderboard


def typed(browser: Any, text: str) -> None:
    browser.find_element("id", "filter").send_keys(text)
    browser.execute_async_script("const done = arguments[0]; setTimeout(done, 400)")


def csv_of(browser: Any, chart: str) -> list[str]:
    """The lines of a chart's download."""
    caught = (
        "const [chart, done] = arguments; const made = URL.createObjectURL;"
        "URL.createObjectURL = blob => { blob.text().then(done); return made.call(URL, blob); };"
        "document.querySelector(`.downloads[data-chart=${chart}] [data-kind=csv]`).click()"
    )
    return browser.execute_async_script(caught, chart).splitlines()


@pytest.mark.browser
def test_browser_leads_from_a_point_to_a_row_that_the_filter_leaves(browser: Any, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, seed=seed)
    visit(browser, write_page(tmp_path))
    typed(browser, "seed 1")
    chart = browser.find_element("id", "cost")
    browser.execute_script("arguments[0].focus()", chart)
    chart.send_keys("\ue014")  # right
    chart.send_keys("\ue007")  # Enter
    cells = browser.execute_script(
        "return [...(document.activeElement.closest('#runs tr')?.cells ?? [])].map(c => c.textContent)"
    )
    assert cells[3:4] == ["1"]


@pytest.mark.browser
def test_browser_filters_by_overrides_that_all_runs_have_too(browser: Any, tmp_path: Path) -> None:
    for rate in (0.1, 0.2):
        make_run(tmp_path, overrides={"recipe.epochs": 5, "recipe.optimizer.lr": rate})
    visit(browser, write_page(tmp_path))
    typed(browser, "epochs=5 lr=0.2")
    hidden = "return [...document.querySelectorAll('#runs tbody tr')].map(row => row.hidden)"
    assert browser.execute_script(hidden) == [True, False]


@pytest.mark.browser
def test_browser_keeps_what_is_chosen_where_a_link_leads_to_a_part_of_the_page(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path, name="resnet20")
    make_run(tmp_path, name="resnet32", status="failed", error="out of memory")
    visit(browser, write_page(tmp_path))
    typed(browser, "resnet20")
    browser.find_element("css selector", "#runs tr:not([hidden]) a").click()
    chosen = "return [byId('filter').value, byId('shown').textContent, location.hash]"
    before = browser.execute_script(chosen)
    assert before[:2] == ["resnet20", "1 of 2 runs shown"]
    for part in ("table", "not-finished"):
        browser.execute_script(f"document.querySelector('a[href=\"#{part}\"]').click()")
        browser.execute_async_script("const done = arguments[0]; setTimeout(done, 400)")
        assert browser.execute_script(chosen) == before
        top = browser.execute_script(f"return byId('{part}').getBoundingClientRect().top")
        assert 0 <= top < browser.execute_script("return innerHeight")
    assert browser.get_log("browser") == []


def test_runs_of_several_output_roots_have_names_of_their_own_in_the_address(tmp_path: Path) -> None:
    for root in ("a", "b"):
        make_run(tmp_path / root)
    paths = [run["path"] for run in Page(write_page(tmp_path)).data["runs"]]
    assert paths == [f"{root}/digits/resnext29_8x4d/resnext_digits/seed0" for root in ("a", "b")]


@pytest.mark.browser
def test_browser_sorts_scores_and_probabilities_by_what_is_printed(browser: Any, tmp_path: Path) -> None:
    for name, dice_err in (("unet_a", 9.0), ("unet_b", 12.0), ("unet_c", 15.0)):
        for seed in range(3):
            make_run(tmp_path, task="segmentation", name=name, seed=seed, final=dice_err)
    visit(browser, write_page(tmp_path))

    def cells(table: str, column: int) -> list[str]:
        rows = "[...document.querySelectorAll(`#${arguments[0]} tbody tr`)]"
        script = f"return {rows}.map(row => row.cells[arguments[1]].textContent)"
        return [text.strip() for text in browser.execute_script(script, table, column)]

    for table, column in (("networks", SCORE), ("networks", INTERVAL), ("runs", 7)):
        browser.execute_script(
            "document.querySelectorAll(`#${arguments[0]} th button`)[arguments[1]].click()", table, column
        )
        numbers = [float(text.strip("[").removeprefix("Dice ").split()[0].strip(",")) for text in cells(table, column)]
        assert numbers == sorted(numbers) != sorted(numbers, reverse=True), (table, column)

    # As numbers and not part by part: 0.45 is below 0.5.
    values = ["0.5", "0.45", "1.993"]
    browser.execute_script(
        "[...board.tBodies[0].rows].forEach((row, i) => { row.lastElementChild.dataset.value = arguments[0][i]; });"
        "drawLeaderboard = () => {}; document.querySelector('#networks th:last-child button').click()",
        values,
    )
    ordered = "return [...board.tBodies[0].rows].map(row => row.lastElementChild.dataset.value)"
    assert browser.execute_script(ordered) == sorted(values, key=float)


@pytest.mark.browser
def test_browser_downloads_what_the_chart_shows(browser: Any, tmp_path: Path) -> None:
    counts = {"params": 269_722, "macs": 40_551_040, "input_size": [3, 32, 32]}
    make_run(tmp_path, name="resnet20", data="cifar10", complexity=counts)
    folder = make_run(tmp_path, task="segmentation", name="unet_a")
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for row in rows:
        del row["val/loss"]
        row["lr"] = 2.5e-5
    (folder / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    visit(browser, write_page(tmp_path))
    papers = [line for line in csv_of(browser, "cost") if ",5387266048,3.65," in line]
    assert len(papers) == 1 and papers[0].startswith(('"resnext', "resnext"))
    browser.find_element("id", "papers").click()
    assert len(csv_of(browser, "cost")) == 2
    browser.find_element("css selector", "#value option[value='val/loss']").click()
    assert len(csv_of(browser, "training")) == 1 + 12
    browser.find_element("css selector", "#dataset option[value='1']").click()  # no loss there
    assert not browser.find_element("css selector", ".downloads[data-chart=training]").is_displayed()
    assert csv_of(browser, "cost")[-1] == "Otsu (baseline),,,88.4,,,,"
    browser.find_element("css selector", "#value option[value='lr']").click()
    texts = browser.execute_script("return byId('training').data.flatMap(({text}) => text ?? [])")
    assert texts and all("learning rate: 0.000025<br>" in text for text in texts)
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_browser_names_families_without_a_look_in_the_download(browser: Any, tmp_path: Path) -> None:
    look = {"colour": "#112233", "marker": "star", "dash": "dot"}
    for seed in range(10):
        make_run(tmp_path, name="mine", family="mine", seed=seed)
        make_run(tmp_path, name="quoted", family='a"b\\c', seed=seed, look=look)
    visit(browser, write_page(tmp_path))
    families = {line.rsplit(",", 1)[0] for line in csv_of(browser, "share")[1:]}
    assert families == {"mine", '"a""b\\c"'}


@pytest.mark.browser
def test_without_scripts_no_control_and_no_empty_chart_is_shown(tmp_path: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    for task in ("classification", "segmentation"):
        make_run(tmp_path, task=task)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        driver.get(write_page(tmp_path).as_uri())
        controls = driver.find_elements("css selector", "select, input, .downloads, .chart")
        assert controls and not [control.get_attribute("id") for control in controls if control.is_displayed()]
        assert all(row.is_displayed() for row in driver.find_elements("css selector", "#runs tbody tr"))
        assert "need JavaScript" in driver.find_element("tag name", "noscript").text
    finally:
        driver.quit()


@pytest.mark.browser
def test_browser_folds_the_name_of_a_family_that_is_wider_than_the_screen(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path, name="net", family="a_name_" + "without_a_break_" * 6)
    metrics = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        visit(browser, write_page(tmp_path))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
