"""A form that Prefect's UI (V2 of 3.8) made of a JSON schema: fields are named by the labels that a person reads."""

from playwright.sync_api import Locator, Page, expect

Value = str | int | float | bool | list[str]


class Form:
    """A form made of a JSON schema, field by field as its labels say."""

    def __init__(self, root: Locator, page: Page, button: str = "Submit") -> None:
        self.root, self.page, self.button = root, page, button

    def field(self, path: str) -> Locator:
        """A field with its label, what it says and its input: `config/Run/Seed`."""
        first, *rest = path.split("/")
        inner = "".join(f"/fieldset/*[@data-slot='card']/div/div[{labelled(label)}]" for label in rest)
        found = self.root.locator(f"xpath=(.//div[{labelled(first)}]{inner})[1]")
        expect(found).to_be_visible()
        return found

    def control(self, path: str) -> Locator:
        """What of a field is typed into, chosen from or switched."""
        inputs = "input, textarea, button[role=switch], button[aria-haspopup=listbox], [role=textbox]"
        return self.field(path).locator("xpath=./fieldset").locator(inputs).first

    def labels(self, path: str) -> list[str]:
        """The labels inside a section, in order."""
        inside = self.field(path).locator("xpath=./fieldset/*[@data-slot='card']/div/div/div[1]//label")
        return inside.all_inner_texts()

    def value(self, path: str) -> str:
        """What a field shows."""
        control = self.control(path)
        kind = control.evaluate("e => e.tagName.toLowerCase()")
        if kind in ("input", "textarea"):
            return control.input_value()
        return control.get_attribute("aria-checked") or control.inner_text()

    def fill(self, path: str, value: Value) -> None:
        """Type, choose or switch; several words are chosen one after the other, an empty text empties."""
        control = self.control(path)
        if isinstance(value, bool):
            control.set_checked(value)
        elif control.get_attribute("aria-haspopup") == "listbox":
            self.choose(control, [value] if isinstance(value, str) else value)  # type: ignore[arg-type]
        else:
            control.fill(str(value))

    def choose(self, control: Locator, words: list[str]) -> None:
        control.click()
        for word in words:
            self.page.get_by_role("option", name=word, exact=True).click()
        if self.page.get_by_role("listbox").count():
            self.page.keyboard.press("Escape")
        expect(self.page.get_by_role("listbox")).to_have_count(0)

    @property
    def submit_button(self) -> Locator:
        return self.root.get_by_role("button", name=self.button, exact=True)

    def refusal(self, path: str) -> str:
        """Press the button in vain, and give what the form says of a field: by itself, or as its browser does."""
        self.submit_button.click()
        said = self.field(path).locator("xpath=./p")
        if message := self.control(path).evaluate("e => e.validationMessage || ''"):
            return str(message)
        expect(said.first).to_be_visible()
        return said.first.inner_text()


def labelled(text: str) -> str:
    """What XPath knows a field by: the label above its own input, not one further inside."""
    return f"./div[1]/div[1]/label[normalize-space()='{text}' or normalize-space()='{text} (Optional)']"
