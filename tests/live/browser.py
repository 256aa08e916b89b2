"""Tabs of a real Chromium, for tests that look at a page as a user does.

    with Browser() as browser:
        tab = browser.open(url)
        tab.click("increment")
        tab.wait_for_text("value", "1")

Elements are found by their `data-testid`. Every wait is a poll with a deadline.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from selenium.common import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.missing import skip_outside_ci

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from selenium.webdriver.remote.webelement import WebElement

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Tabs in the background must go on as in a window of their own.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--window-size=1280,900",
)
POLL_S = 0.05


class Browser:
    """A headless Chromium with a fresh profile."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Browser:
        driver, chromium = find_programs()
        with ExitStack() as stack:
            # The profile's locks may vanish while it is removed.
            profile = stack.enter_context(
                TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
            )
            options = ChromeOptions()
            options.binary_location = chromium
            for flag in (*FLAGS, f"--user-data-dir={profile}"):
                options.add_argument(flag)
            # With the path given, selenium looks for no driver and downloads none.
            self._driver = Chrome(options=options, service=ChromeService(executable_path=driver))
            stack.callback(self._driver.quit)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def open(self, url: str) -> Tab:
        """Load `url` in a tab of its own."""
        self._driver.switch_to.new_window("tab")
        tab = Tab(self._driver)
        tab.load(url)
        return tab


class Tab:
    """One tab. Whatever is asked of it brings it to the front first."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver
        self._handle = driver.current_window_handle

    def load(self, url: str) -> None:
        self._front().get(url)

    def reload(self) -> None:
        self._front().refresh()

    def run(self, script: str) -> Any:
        """What the JavaScript returns."""
        return self._front().execute_script(script)

    def text(self, testid: str) -> str:
        """The visible text of an element."""
        return self._find(testid).text

    def link(self, text: str) -> str:
        """Where the link with this text leads."""
        return str(self._front().find_element(By.LINK_TEXT, text).get_property("href"))

    def wait_for_text(self, testid: str, text: str, timeout_s: float = 10.0) -> None:
        """Wait until the element's visible text is `text`."""
        self.wait_for(testid, lambda found: found == text, timeout_s)

    def wait_for(
        self, testid: str, is_wanted: Callable[[str], bool], timeout_s: float = 10.0
    ) -> None:
        """Wait until the element's visible text is wanted."""
        wait = WebDriverWait(self._front(), timeout_s, POLL_S, [StaleElementReferenceException])
        try:
            wait.until(lambda _: is_wanted(self.text(testid)))
        except TimeoutException:
            found = self.text(testid)
            raise TimeoutError(f"{testid} is {found!r} after {timeout_s:g} s") from None

    def type(self, testid: str, text: str) -> None:
        self._find(testid).send_keys(text)

    def click(self, testid: str) -> None:
        self._find(testid).click()

    def screenshot(self, path: Path) -> None:
        """Write what the tab shows as a PNG."""
        assert self._front().save_screenshot(str(path))

    def _find(self, testid: str) -> WebElement:
        return self._front().find_element(By.CSS_SELECTOR, f'[data-testid="{testid}"]')

    def _front(self) -> Chrome:
        if self._driver.current_window_handle != self._handle:
            self._driver.switch_to.window(self._handle)
        return self._driver


def find_programs() -> tuple[str, str]:
    """Find chromedriver and Chromium; without them fail in CI, else skip."""
    path = f"/usr/bin:{os.environ.get('PATH', os.defpath)}"
    driver, chromium = (shutil.which(name, path=path) for name in ("chromedriver", "chromium"))
    if not driver or not chromium:
        skip_outside_ci(
            "no Chromium; on Debian and Ubuntu: apt-get install chromium chromium-driver"
        )
    return driver, chromium
