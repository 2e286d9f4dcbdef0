"""The report in a real browser: headless Chromium, at desktop and phone width, light and dark."""

import base64
import shutil
from itertools import pairwise, product

import pytest
from reports import against_report, changed, curves, demo_report, points, run_report, seeded_report, table_report

from speaker_invariant_ser.report.write import write_comparison, write_report

selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
WIDTHS = {"desktop": (1280, 900), "phone": (375, 800), "narrow": (360, 640)}

# Elements that stick out of the page, unless a container that scrolls holds them. (A phone's innerWidth grows with them.)
STICKING_OUT = """
const scrolls = element => element && (element.matches('.scroll') || scrolls(element.parentElement));
return [...document.body.querySelectorAll('*')].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width && (box.right > document.documentElement.clientWidth + 1 || box.left < -1) && !scrolls(element.parentElement);
}).map(element => element.outerHTML.slice(0, 120));
"""
EMPTY = """
return [...document.querySelectorAll('svg, img')].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width < 100 || box.height < 60 || (element.tagName === 'IMG' && !(element.complete && element.naturalWidth));
}).map(element => element.outerHTML.slice(0, 120));
"""
# Contrast, as WCAG 2 defines it, of every element with text of its own against the background that is painted behind it.
CONTRASTS = """
const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = colour => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = colour; probe.fillRect(0, 0, 1, 1);
  return [...probe.getImageData(0, 0, 1, 1).data]; };
const light = colour => rgb(colour).slice(0, 3).map(channel => channel / 255)
  .map(channel => channel <= .04045 ? channel / 12.92 : ((channel + .055) / 1.055) ** 2.4)
  .reduce((sum, channel, index) => sum + channel * [.2126, .7152, .0722][index], 0);
const behind = element => { for (let at = element; at; at = at.parentElement) {
  const colour = getComputedStyle(at).backgroundColor; if (rgb(colour)[3] === 255) return colour; } return 'white'; };
const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
return [...document.querySelectorAll('body *')].filter(element => own(element) && element.tagName !== 'title').map(element => {
  const style = getComputedStyle(element), ink = element.closest('svg') ? style.fill : style.color;
  const [dark, bright] = [light(ink), light(behind(element))].sort((first, second) => first - second);
  return [(bright + .05) / (dark + .05), element.outerHTML.slice(0, 120)];
});
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind, with names long enough to break a layout."""
    folder = tmp_path_factory.mktemp("pages")
    run = changed(against_report(), against__run="a-baseline-with-a-name-that-nobody-would-type-twice-" + "x" * 60)
    table = changed(table_report(), run="embeddings_of_another_tool_" + "y" * 80 + ".parquet")
    seeded = seeded_report()
    return {
        "run": write_report(run, folder / "run", curves(list(run.emotion.folds)), points()),
        "demo": write_report(demo_report(), folder / "demo", curves(["fixed"])),
        "table": write_report(table, folder / "table"),
        "comparison": write_comparison([run_report(f"run{n}", 0.6 + n / 50, 0.5 + n / 20) for n in range(8)], folder / "runs"),
        "seeds": write_report(seeded, folder / "seeds", curves(list(seeded.emotion.folds)), points()),
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no Chromium here: it takes chromium and chromedriver on the PATH (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    with webdriver.Chrome(options, Service(driver)) as chrome:
        yield chrome


def show(browser, page, width: str = "desktop", scheme: str = "light") -> None:
    across, down = WIDTHS[width]
    size = {"width": across, "height": down, "deviceScaleFactor": 1, "mobile": width != "desktop"}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert browser.execute_script("return innerWidth") == across


KINDS = ["run", "demo", "table", "comparison", "seeds"]


@pytest.mark.parametrize("kind, width", list(product(KINDS, WIDTHS)))
def test_nothing_overflows_and_every_plot_is_there(browser, pages, kind, width):
    show(browser, pages[kind], width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= WIDTHS[width][0]
    assert browser.execute_script(STICKING_OUT) == []
    assert browser.execute_script(EMPTY) == []
    assert browser.execute_script("return document.querySelectorAll('svg').length") >= 1


def test_an_element_wider_than_the_page_is_detected(browser, pages):
    show(browser, pages["table"], "phone")
    browser.execute_script("document.querySelector('p').style.width = '600px'")
    assert browser.execute_script(STICKING_OUT) != []


@pytest.mark.parametrize("kind, scheme", list(product(KINDS, ["light", "dark"])))
def test_text_stands_out_from_its_background(browser, pages, kind, scheme):
    show(browser, pages[kind], scheme=scheme)
    contrasts = browser.execute_script(CONTRASTS)
    on_dots = 'style="font-weight: 700; font-size: 8.5px'  # bold white numbers on coloured dots, where 3 has to do
    assert len(contrasts) > 40, "every page has more elements with text than that"
    assert [text for contrast, text in contrasts if contrast < 4.5 and on_dots not in text] == []


def test_light_and_dark_differ(browser, pages):
    backgrounds = []
    for scheme in ("light", "dark"):
        show(browser, pages["run"], scheme=scheme)
        backgrounds.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == ["rgb(253, 253, 252)", "rgb(20, 24, 28)"]


@pytest.mark.parametrize("kind", ["run", "demo", "table"])
def test_the_contents_lead_to_the_headings(browser, pages, kind):
    show(browser, pages[kind])
    targets = browser.execute_script(
        "return [...document.querySelectorAll('nav a')].map(a => [a.textContent, document.querySelector(a.hash)?.textContent])"
    )
    assert len(targets) >= 2 and all(name == heading for name, heading in targets)
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(heading => +heading.tagName[1])"
    )
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_and_its_plot_are_on_the_first_screen(browser, pages, kind):
    show(browser, pages[kind])
    assert browser.execute_script("return document.querySelector('svg').getBoundingClientRect().bottom") < 900


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_and_no_error_is_logged(browser, pages, kind):
    browser.get_log("browser")
    show(browser, pages[kind])
    assert browser.execute_script("return performance.getEntriesByType('resource').map(resource => resource.name)") == []
    assert browser.get_log("browser") == []


def test_it_prints_in_light_colours_with_folded_tables_open(browser, pages):
    show(browser, pages["run"], scheme="dark")
    browser.execute_script("document.querySelectorAll('details').forEach(details => details.open = false)")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 252)"
    assert browser.execute_script("return document.querySelector('details table').getBoundingClientRect().height") > 50
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") > 1
