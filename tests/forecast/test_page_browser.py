"""The page of a forecast in a browser: headless Chromium, driven by its own driver, from a file."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from page_files import SIZE, WHITE, data_of, forecast, layers_of, member, pixels, scene, stored
from PIL import Image

from satjepa.forecast.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and chromedriver (chromium-driver in Debian)"
)
NASTY = "Fields </script><b>bold</b> and a lake"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1100,1000", "--force-device-scale-factor=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two years of forecasts, two members of the first, a truth of the first."""
    folder = tmp_path_factory.mktemp("page")
    images = scene(folder)
    first = forecast(images, folder / "forecast_2022.tif")
    second = forecast(images, folder / "forecast_2023.tif", seed=1)
    members = [member(first, folder / f"m{k}.tif", 150.0 * k) for k in (1, 2)]
    ((_, truth),) = scene(folder / "truth", (2022,))
    return write_page(
        folder / "page #1.html", images, [(2022, first), (2023, second)],
        truth={2022: truth}, members={2022: members},
        captions={"2021": NASTY, "2022": {"semantic": "Of 2022"}, "2023": {"semantic": "Of 2023"}},
        settings={"Model": "<i>0123</i>", "Seed": "7"}, attribution="Owed to <u>somebody</u>",
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def shown(browser, page: Path) -> Iterator:
    """The page, opened anew; afterwards its console is empty and it has asked for itself only."""
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(page.as_uri())
    wait(browser, "return ready.has(state.left) && ready.has(state.right) && !waiting")
    yield browser
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if "WillBeSent" in e["method"]]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]


def wait(driver, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 10, 0.02).until(lambda d: d.execute_script(script))


def settled(driver) -> None:
    wait(driver, "return ready.has(state.left) && ready.has(state.right) && !waiting")


def of(driver, name: str):
    return driver.find_element("id", name)


def press(driver, *keys: str) -> None:
    of(driver, "view").send_keys(*keys)
    settled(driver)


def choose(driver, side: str, layer: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(of(driver, side)).select_by_value(layer)
    settled(driver)


def line(driver) -> float:
    """Where the line stands, in percent of the view."""
    style = "return 100 * parseFloat(document.getElementById('line').style.left) / view.clientWidth"
    return driver.execute_script(style)


def zoom(driver) -> float:
    return float(of(driver, "view").get_attribute("data-zoom"))


def picture(driver) -> np.ndarray:
    """What is on the screen where the view is, without the line and what stands on it."""
    driver.execute_script(
        "for (const e of view.children) if (e !== canvas) e.style.visibility = 'hidden'"
    )
    shot = np.asarray(Image.open(io.BytesIO(of(driver, "view").screenshot_as_png)).convert("RGB"))
    driver.execute_script("for (const e of view.children) e.style.visibility = ''")
    return shot


def colours(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """The colour in the middle of a pixel of the raster, in the view of the whole scene."""
    height, width = SIZE
    y = int((row + 0.5) * picture.shape[0] / height)
    x = int((column + 0.5) * picture.shape[1] / width)
    return picture[y, x].astype(int)


def test_each_side_shows_its_layer(shown, page: Path) -> None:
    layers = layers_of(page)
    assert of(shown, "left").get_attribute("value") == "image-2021"
    assert of(shown, "right").get_attribute("value") == "mean-2022"
    seen = picture(shown)
    for row, column, layer in ((20, 5, "image-2021"), (20, 35, "mean-2022")):
        assert np.abs(colours(seen, row, column) - pixels(layers[layer])[row, column, :3]).max() < 2
    choose(shown, "left", "member2-2022")
    choose(shown, "right", "truth-2022")
    seen = picture(shown)
    for row, column, layer in ((20, 5, "member2-2022"), (20, 35, "truth-2022")):
        assert np.abs(colours(seen, row, column) - pixels(layers[layer])[row, column, :3]).max() < 2


def test_a_hole_shows_the_ground(shown) -> None:
    ground = shown.execute_script("return getComputedStyle(view).backgroundColor")
    hole = colours(picture(shown), 4, 12)
    assert ground == f"rgb({', '.join(map(str, hole))})"


def test_maps_have_the_colours_of_the_legend(shown, page: Path) -> None:
    from matplotlib import colormaps

    assert not of(shown, "legend").is_displayed()
    choose(shown, "left", "spread-2022")
    choose(shown, "right", "error-2022")
    assert of(shown, "legend").text == data_of(page)["legend"]
    seen = picture(shown)
    for row, column, layer in ((20, 5, "spread-2022"), (9, 35, "error-2022")):
        grey = pixels(layers_of(page)[layer])[row, column, 0]
        expected = np.array(colormaps["magma"](int(grey), bytes=True)[:3], int)
        assert np.abs(colours(seen, row, column) - expected).max() < 2
    shown.execute_script("pointer = [5.5 * state.scale, 20.5 * state.scale]; tell()")
    grey = pixels(layers_of(page)["spread-2022"])[20, 5, 0]
    value = grey / 255 * data_of(page)["top"] * WHITE
    assert f"2022: spread of the members: {value:.3f}" in of(shown, "at").text


def test_the_line_is_moved_by_slider_keys_and_mouse(shown, page: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    assert line(shown) == pytest.approx(50)
    of(shown, "swipe").send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 20)
    settled(shown)
    assert line(shown) == pytest.approx(20)
    layer = pixels(layers_of(page)["mean-2022"])[20, 15, :3]
    assert np.abs(colours(picture(shown), 20, 15) - layer).max() < 2  # which was on the left before
    press(shown, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert line(shown) == pytest.approx(18)
    assert of(shown, "swipe").get_attribute("value") == "18"
    press(shown, Keys.END)
    assert line(shown) == pytest.approx(100)
    press(shown, Keys.HOME)
    assert line(shown) == pytest.approx(0)
    view = of(shown, "view")
    quarter = view.size["width"] // 4
    hands = ActionChains(shown, duration=50).move_to_element(view).click_and_hold()
    hands.move_by_offset(quarter, 30).release().perform()
    settled(shown)
    assert line(shown) == pytest.approx(75, abs=0.3)


def test_zoom_and_pan(shown) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    whole = picture(shown)
    assert zoom(shown) == 1 and not of(shown, "farther").is_enabled()
    view = of(shown, "view")
    origin = ScrollOrigin.from_element(view, -100, -50)
    ActionChains(shown).scroll_from_origin(origin, 0, -400).perform()
    settled(shown)
    assert zoom(shown) == pytest.approx(np.e, rel=0.01)
    spot = (view.size["height"] // 2 - 50, view.size["width"] // 2 - 100)
    near = picture(shown)
    assert np.abs(near[spot].astype(int) - whole[spot]).max() < 25, "the pointer stays on its place"
    assert shown.execute_script("return window.scrollY") == 0
    before = shown.execute_script("return [state.x, state.y]")
    hands = ActionChains(shown, duration=50).move_to_element_with_offset(view, 150, 60)
    hands.click_and_hold().move_by_offset(-40, 25).release().perform()
    settled(shown)
    after = shown.execute_script("return [state.x, state.y]")
    assert np.allclose(np.subtract(after, before), [-40, 25]) and line(shown) == pytest.approx(50)
    press(shown, Keys.SHIFT, Keys.ARROW_RIGHT)
    moved = shown.execute_script("return state.x") - after[0]
    assert moved == pytest.approx(-view.size["width"] / 10, abs=1)
    press(shown, "0")
    assert zoom(shown) == 1
    assert np.abs(shown.execute_script("return [state.x, state.y]")).max() < 1
    press(shown, "+", "+")
    assert zoom(shown) == pytest.approx(2.25)
    press(shown, "-")
    assert zoom(shown) == pytest.approx(1.5)
    of(shown, "whole").click()
    of(shown, "closer").click()
    settled(shown)
    assert zoom(shown) == pytest.approx(1.5)


def test_the_pointer_tells_place_and_values(shown, page: Path) -> None:
    from rasterio.warp import transform
    from selenium.webdriver import ActionChains

    assert of(shown, "at").text.startswith("40 × 24 px of 10 m")
    view = of(shown, "view")
    width = view.size["width"]
    ActionChains(shown).move_to_element_with_offset(view, 5 - width // 2, 8).perform()
    settled(shown)
    first, second = of(shown, "at").text.split("\n")
    x = 300000 + 400 * 5 / width
    y = 5000000 - 120 - 400 * 8 / width  # in row 12
    assert first.startswith("EPSG:32633 ")
    at = [float(word) for word in first.split("·")[0].split("EPSG:32633")[1].split(",")]
    assert np.abs(np.subtract(at, [x, y])).max() < 1.5
    (lon,), (lat,) = transform("EPSG:32633", "EPSG:4326", *[[number] for number in at])
    north, east = (float(part.split("°")[0]) for part in first.split("·")[1].split(","))
    assert (north, east) == (pytest.approx(lat, abs=2e-5), pytest.approx(lon, abs=2e-5))
    left = stored(page.with_name("s2_rgb_Old_Town_2021_10km.tif"))[:, 12, 0] * 1e-4
    told = [float(word) for word in second.split("·")[0].split(":")[1].split()]
    assert np.abs(told - np.minimum(left, WHITE)).max() < 0.002
    assert second.split("·")[1].strip().startswith("2022: forecast: ")
    assert of(shown, "ruler").text == "50 m"


def test_the_year_changes_layers_and_words(shown) -> None:
    assert [e.text for e in shown.find_elements("css selector", "#years label")] == ["2022", "2023"]
    assert "Of 2022" in of(shown, "words").text and "Of 2023" not in of(shown, "words").text
    choose(shown, "left", "truth-2022")
    shown.find_elements("css selector", "#years label")[1].click()
    settled(shown)
    assert of(shown, "right").get_attribute("value") == "mean-2023"
    assert of(shown, "left").get_attribute("value") == "image-2021", "there is no truth of 2023"
    assert "Of 2023" in of(shown, "words").text and "Of 2022" not in of(shown, "words").text
    names = [button.text for button in shown.find_elements("css selector", "#pairs button")]
    assert names == ["Change", "Uncertainty", "First and last year"]
    choose(shown, "left", "image-2020")
    shown.find_elements("css selector", "#years label")[0].click()
    settled(shown)
    assert shown.execute_script("return [state.left, state.right]") == ["image-2020", "mean-2022"]
    shown.find_elements("css selector", "#years label")[1].click()
    choose(shown, "right", "spread-2022")  # a layer of another year chooses that
    assert shown.execute_script("return document.querySelector('#years input:checked').value") == (
        "2022"
    )


def test_one_click_compares_what_belongs_together(shown) -> None:
    buttons = shown.find_elements("css selector", "#pairs button")
    assert [button.text for button in buttons] == [
        "Change", "Uncertainty", "Two members", "Truth", "Error and spread", "First and last year",
    ]  # fmt: skip
    buttons[2].click()
    settled(shown)
    assert shown.execute_script("return [state.left, state.right]") == [
        "member1-2022",
        "member2-2022",
    ]
    pressed = shown.find_elements("css selector", '#pairs [aria-pressed="true"]')
    assert [button.text for button in pressed] == ["Two members"]
    press(shown, "x")
    assert shown.execute_script("return state.left") == "member2-2022"


def test_words_are_shown_as_text(shown, page: Path) -> None:
    assert NASTY in of(shown, "words").text
    assert "<i>0123</i>" in of(shown, "facts").text
    assert of(shown, "attribution").text == "Owed to <u>somebody</u>"
    assert not shown.find_elements("css selector", "b, i, u")
    (score,) = data_of(page)["scores"]
    row = shown.find_element("css selector", "#scores tbody").text.split()
    assert row == ["2022", f"{score['forecast']:.2f}", f"{score['persistence']:.2f}"]


def test_everything_has_a_name_for_those_who_do_not_see_it(shown) -> None:
    controls = shown.find_elements("css selector", "button, select, input, [tabindex]")
    assert len(controls) == 15
    assert [c.get_attribute("outerHTML") for c in controls if not c.accessible_name] == []
    view = of(shown, "view")
    assert view.accessible_name == "Left: 2021. Right: 2022: forecast."


def test_it_fits_a_phone_and_the_dark(shown) -> None:
    phone = {"width": 360, "height": 700, "deviceScaleFactor": 2, "mobile": True}
    light = shown.execute_script(
        "return getComputedStyle(document.documentElement).backgroundColor"
    )
    try:
        shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        settled(shown)
        assert shown.execute_script("return document.documentElement.scrollWidth") <= 360
        assert of(shown, "view").size["width"] > 320
        background = "return getComputedStyle(document.documentElement).backgroundColor"
        assert shown.execute_script(background) != light
        ratio = shown.execute_script("return canvas.width / view.clientWidth")
        assert ratio == pytest.approx(2, abs=0.01), "as sharp as the screen"
    finally:
        shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_it_prints(shown) -> None:
    import base64

    pdf = base64.b64decode(shown.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF") and b"/Image" in pdf
