"""What a person does in Prefect's UI (V2 of 3.8), each gesture waiting for what it causes.

Fields are named by the labels that a person reads: `config/Reward model/Epochs`. Nothing here asks the API: what is
tested is clicked.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Locator, Page, Response, expect, sync_playwright
from playwright.sync_api import TimeoutError as TooLate

from tests.browser.forms import Form, Value

expect.set_options(timeout=90_000)
CHROMIUM = Path("/usr/bin/chromium")
SHOTS = "SOLON_SCREENSHOTS"
"""Environment variable that names a folder for screenshots."""
ENDS = "Completed|Failed|Crashed|Cancelled|TimedOut|Planned|Aligned|Rejected|Handled|Superseded|Unpublished"
STATE = re.compile(
    f"^(Scheduled|Late|AwaitingRetry|Pending|Submitting|Running|Paused|Suspended|Resuming|Retrying|Cancelling|{ENDS})$"
)
FEWER_FRAMES = """
const soon = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = draw =>
    location.pathname.includes("/runs/flow-run/") ? setTimeout(() => draw(performance.now()), 250) : soon(draw);
"""
"""A run's page draws its graph sixty times a second, without a graphics card with a whole core of what is tested."""
WRITES = re.compile("/(create_flow_run|schedules|set_state|resume)(/|$)")
END = re.compile(f"^({ENDS})$")


@contextmanager
def browser(base: str, password: str | None = None, scheme: str = "light") -> "Iterator[Pages]":
    """Prefect's UI at `base` (`http://127.0.0.1:4200`) in a browser of its own; the password is `user:password`."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = chromium.new_context(
            viewport={"width": 1400, "height": 1000},
            color_scheme=scheme,  # type: ignore[arg-type]
            base_url=base,
            timezone_id="UTC",
        )
        # the UI asks amplitude.com for settings, whatever the server says about telemetry
        context.route(lambda url: not url.startswith((base, "data:", "blob:")), lambda route: route.abort())
        context.add_init_script(FEWER_FRAMES)
        try:
            yield Pages(context.new_page(), base, password)
        finally:
            chromium.close()


class Pages:
    """A person at the browser."""

    def __init__(self, page: Page, base: str, password: str | None) -> None:
        self.page, self.base, self.password = page, base, password
        self.console_errors: list[str] = []
        page.set_default_timeout(90_000)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.console_errors.append(str(error)))

    def _note(self, message: Any) -> None:
        url = message.location["url"]
        # the UI looks for its icons where the server does not have them
        if message.type == "error" and url.startswith(self.base) and not url.endswith((".svg", ".png", ".ico")):
            self.console_errors.append(f"{message.text} ({url})")

    def tell(self, gesture: Callable[[], None]) -> Response:
        """Make a gesture that tells the server something; again where its database was locked, as a person would.

        Raises: AssertionError: it was locked five times, or said that it would not.
        """
        for _ in range(5):
            with self.page.expect_response(is_telling) as answer:
                gesture()
            if answer.value.status != 503:
                assert answer.value.ok, f"{answer.value.url}: {answer.value.status} {answer.value.text()[:1000]}"
                return answer.value
            self.page.keyboard.press("Escape")  # what is still open
        raise AssertionError(f"the server was busy at {self.page.url:.200}")

    def open(self, path: str) -> Self:
        """Go to a page below `/v2`, by way of the login where it asks for one."""
        if self.password:
            self.log_in(self.password)
        self.page.goto(f"/v2{path}")
        return self

    def log_in(self, password: str) -> None:
        """With the server's `user:password`; the browser keeps it."""
        self.password = None
        self.page.goto("/v2/login")
        self.page.get_by_placeholder("admin:pass").fill(password)
        self.page.get_by_role("button", name="Login").click()
        expect(self.page.get_by_role("link", name="Deployments").first).to_be_visible()
        self.console_errors.clear()  # what was asked for before the password was known

    def screenshot(self, name: str, whole: bool = False) -> None:
        """Into the folder that the environment names; nowhere where it names none."""
        if folder := os.environ.get(SHOTS):
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=whole)

    def open_deployment(self, name: str) -> Self:
        """From the list of deployments, by `flow/name`."""
        flow, _, deployment = name.partition("/")
        self.open("/deployments")
        self.page.get_by_placeholder("Search deployments").fill(deployment)
        rows = self.page.get_by_role("row").filter(has=self.page.locator("a[href*='/flows/']", has_text=whole(flow)))
        link = rows.locator("a[href*='/deployments/']", has_text=whole(deployment))
        run, address = self.page.get_by_role("button", name="Run", exact=True), link.get_attribute("href") or ""
        link.click()
        try:
            run.wait_for(timeout=20_000)
        except TooLate:  # now and then the list, still busy with the search, comes back
            self.page.goto(address)
        expect(run).to_be_visible()
        return self

    def choose(self, item: str, button: str = "Open menu", within: Locator | None = None) -> None:
        """An item of a menu. A page that loads on may close it again, so it is opened until the item is clicked."""
        found = self.page.get_by_role("menuitem", name=item, exact=True)
        for _ in range(5):
            (within or self.page.locator("main")).get_by_role("button", name=button, exact=True).first.click()
            try:
                found.wait_for(timeout=3000)
            except TooLate:
                self.page.keyboard.press("Escape")
                continue
            found.click()
            return
        raise AssertionError(f"no menu item {item!r} on {self.page.url:.200}")

    def open_run_form(self) -> Form:
        """On a deployment's page: Run, Custom run."""
        self.choose("Custom run", button="Run")
        expect(self.page.get_by_role("heading", name="Parameters")).to_be_visible()
        return Form(self.page.locator("main form"), self.page)

    def run(self, deployment: str, values: Mapping[str, Value] | None = None) -> str:
        """Fill the form of a deployment (`flow/name`), submit it and open the run's page; gives the run's id."""
        form = self.open_deployment(deployment).open_run_form()
        for path, value in (values or {}).items():
            form.fill(path, value)
        return self.submit(form)

    def submit(self, form: Form) -> str:
        """Start the run of a filled form and open its page; gives its id.

        A notice leads there too, but only for some seconds, which a page that is busy with so large a form may miss.
        """
        run = str(self.tell(form.submit_button.click).json()["id"])
        self.open_run(run)
        return run

    def open_run(self, run: str) -> Self:
        """A run's page, by id."""
        self.open(f"/runs/flow-run/{run}")
        expect(self._badge).to_be_visible()
        return self

    @property
    def _badge(self) -> Locator:
        return self.page.locator("main").get_by_text(STATE).first

    def state(self) -> str:
        """What the run's page says of its state."""
        return self._badge.inner_text()

    def wait_for_state(self, state: str | re.Pattern[str] = END, seconds: float = 60) -> str:
        """Watch the run's page, which looks anew by itself, until it says this; gives what it says."""
        expect(self._badge).to_have_text(state, timeout=1000 * seconds)
        return self.state()

    def retry(self) -> None:
        """Press Retry on the page of a run that ended badly, and confirm."""
        self._confirm("Retry", "Retry")
        expect(self._badge).not_to_have_text(END)

    def cancel(self) -> None:
        """Press Cancel on the page of a run that works, and confirm."""
        self._confirm("Cancel", "Cancel Flow Run")
        expect(self._badge).to_have_text(re.compile("Cancelling|Cancelled"))

    def _confirm(self, item: str, button: str) -> None:
        dialog = self.page.get_by_role("alertdialog")

        def gesture() -> None:
            self.choose(item)
            dialog.get_by_role("button", name=button, exact=True).click()

        self.tell(gesture)
        expect(dialog).to_be_hidden()

    def open_resume_form(self) -> Form:
        """Press Resume on the page of a run that waits for a person; gives what it asks."""
        self.choose("Resume")
        dialog = self.page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        return Form(dialog, self.page, button="Resume")

    def resume(self, values: Mapping[str, Value] | None = None) -> None:
        """Answer what a run asks, and let it go on."""

        def gesture() -> None:
            form = self.open_resume_form()
            for path, value in (values or {}).items():
                form.fill(path, value)
            form.submit_button.click()

        self.tell(gesture)
        expect(self.page.get_by_role("dialog")).to_be_hidden()
        expect(self._badge).not_to_have_text(re.compile("Suspended|Paused"))

    def add_schedule(self, every: int, unit: str = "Minutes") -> str:
        """On a deployment's page, a run every so often; gives the words it is listed under."""
        before = self.schedules()
        add = self.page.get_by_role("button", name="Schedule", exact=True)
        self._save_schedule(add.click, every, unit)
        expect(self._switches).to_have_count(len(before) + 1)
        return next(words for words in self.schedules() if words not in before)

    def edit_schedule(self, words: str, every: int, unit: str = "Minutes") -> str:
        """Give the schedule of these words another interval; gives its new words."""
        expect(self._schedule(words)).to_be_visible()
        before = self.schedules()
        self._save_schedule(lambda: self.choose("Edit", within=self._schedule(words)), every, unit)
        expect(self.page.get_by_role("switch", name=f"toggle {words}", exact=True)).to_have_count(0)
        return next(words for words in self.schedules() if words not in before)

    def _save_schedule(self, open_dialog: Callable[[], None], every: int, unit: str) -> None:
        dialog = self.page.get_by_role("dialog")

        def gesture() -> None:
            open_dialog()
            dialog.get_by_label("Value", exact=True).fill(str(every))
            dialog.get_by_role("combobox").first.click()
            self.page.get_by_role("option", name=unit, exact=True).click()
            dialog.get_by_role("button", name="Save", exact=True).click()

        self.tell(gesture)
        expect(dialog).to_be_hidden()

    def pause_schedule(self, words: str) -> None:
        """Switch the schedule of these words off."""
        switch = self.page.get_by_role("switch", name=f"toggle {words}", exact=True)
        self.tell(switch.click)
        expect(switch).not_to_be_checked()

    def schedules(self) -> list[str]:
        """What a deployment's page says of each of its schedules."""
        return [switch.get_attribute("aria-label").removeprefix("toggle ") for switch in self._switches.all()]  # type: ignore[union-attr]

    @property
    def _switches(self) -> Locator:
        return self.page.get_by_role("switch", name=re.compile("^toggle "))

    def _schedule(self, words: str) -> Locator:
        return self.page.get_by_role("switch", name=f"toggle {words}", exact=True).locator("xpath=../../..")

    def wait_for_scheduled_run(self, seconds: float = 150) -> None:
        """On a deployment's page, watch its list of runs until there is one more."""
        count = self.page.locator("main p", has_text=re.compile("Flow runs?$"))
        before = count.inner_text()
        expect(count).not_to_have_text(before, timeout=1000 * seconds)

    def artifacts(self) -> list[str]:
        """On a run's page, open the tab with its artifacts; gives their keys."""
        self.page.get_by_role("tab", name="Artifacts", exact=True).click()
        titles = self.page.get_by_role("tabpanel", name="Artifacts").locator("a[href*='/artifacts/'] h3")
        expect(titles.first).to_be_visible()
        return titles.all_inner_texts()

    def open_artifact(self, key: str, says: str) -> None:
        """From that tab, the newest of an artifact's versions, whose page comes to say this."""
        panel, main = self.page.get_by_role("tabpanel", name="Artifacts"), self.page.locator("main")
        panel.locator("a[href*='/artifacts/']").filter(
            has=self.page.get_by_role("heading", name=key, exact=True)
        ).click()
        self.page.wait_for_url("**/artifacts/key/**")
        newest = main.locator("a[href*='/artifacts/artifact/']").first
        try:
            newest.wait_for(timeout=20_000)
        except TooLate:  # the page asks once, and a busy server may have said no
            self.page.reload()
        newest.click()
        shown = self.page.get_by_role("tabpanel", name="Artifact", exact=True)
        expect(shown).to_contain_text(says, use_inner_text=True)


def is_telling(answer: Response) -> bool:
    """Whether this answers a request that changes something."""
    return answer.request.method != "GET" and bool(WRITES.search(answer.url))


def whole(text: str) -> re.Pattern[str]:
    """This text and nothing beside it."""
    return re.compile(f"^{re.escape(text)}$")
