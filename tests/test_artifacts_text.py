"""Hostile texts in artifacts: as Prefect's UI does it, through markdown first and HTML second."""

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from markupsafe import Markup

from flows.artifacts.text import MAX_BYTES, bounded, cut, exact, figure, folded, html_table, plain, texts_table

HOSTILE = [
    "</details><script>alert(1)</script>",
    "</td></tr></table></details>\n\n# A heading of mine",
    "a\n\n```mermaid\nflowchart TD\n  a --> b\n```\n\nb",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "![x](https://tracker.example/p.png) [click](javascript:alert(1))",
    '<img src="https://tracker.example/p.png" onerror="alert(1)">',
    "&lt;/details&gt; &#60;b&#62; &amp;",
    "\r\n\r\n- a list\r\n\r\n    code\r\n",
    "one\u2028\u2028two\u0085three\x0b\x0cfour\x00five",
    "<!-- --> <![CDATA[ x ]]> <?php ?>",
    "**bold** _em_ ~~gone~~ `code` $x$ https://example.org a@example.org :tada:",
]
BEFORE, AFTER = "<p>before</p>", "<p>after</p>"


class Seen(HTMLParser):
    """The elements of a page, and the text in it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.depth = self.depth_of_after = 0
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.depth += tag not in ("br", "img")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= 1

    def handle_data(self, data: str) -> None:
        self.text += data
        if data == "after":
            self.depth_of_after = self.depth


def rendered(*blocks: str) -> Seen:
    """What a browser gets of an artifact: markdown, with its HTML let through."""
    return Seen(MarkdownIt("commonmark", {"html": True}).enable("table").render(bounded([BEFORE, *blocks, AFTER])))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_a_fold_stays_text_and_inside(text):
    seen = rendered(folded(text, texts_table([(text, text)])))
    assert set(seen.tags) <= {"p", "details", "summary", "table", "tbody", "tr", "th", "td", "br"}
    assert seen.tags.count("details") == seen.tags.count("table") == 1 and seen.tags.count("p") == 2
    assert seen.depth_of_after == 1, "what follows stands outside of the fold"
    words = [word for word in text.replace("\x00", "\ufffd").replace("\x0b", " ").split() if len(word) < 40]
    assert all(word.replace("\x0c", "") in seen.text for word in words)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_a_table_cell_makes_no_cell(text):
    seen = rendered(html_table(["stage", text], [("revise", text), ("label", "ok")]))
    assert (seen.tags.count("tr"), seen.tags.count("td"), seen.tags.count("th")) == (3, 4, 2)
    assert set(seen.tags) <= {"p", "table", "thead", "tbody", "tr", "th", "td", "br"}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_a_line_of_markdown_stays_text(text):
    """The description of an artifact is markdown without a block around it."""
    assert set(rendered(f"waiting for {plain(text)}").tags) <= {"p", "br"}


def test_plain_keeps_what_is_read_whatever_the_script():
    text = "Solon gab Athen Gesetze: Σόλων, 梭伦 😀 — 100 % (a & b) <c>"
    assert rendered(f"<p>{plain(text)}</p>").text.strip() == f"before\n\n{text}\n\nafter".replace("\n\n", "\n")


def test_plain_word_without_end_may_be_broken():
    longest = max(plain("x" * 300).replace("\u200b", " ").split(), key=len)
    assert len(longest) == 40


def test_exact_text_can_be_copied_and_is_no_html():
    path = "/a/folder/with-a-long-name/and_another/" + "x" * 60 + "/<b>.html"
    assert path in rendered(f"<p>{exact(path)}</p>").text


def test_plain_of_our_own_html_is_not_let_through():
    assert "<b>" not in plain(Markup("<b>bold</b>"))


def test_cut_says_how_much_is_missing():
    assert cut("a" * 450) == "a" * 400 + " … (50 more characters)"
    assert cut("a" * 400) == "a" * 400


def test_folded_is_closed_unless_it_is_asked_to_be_open():
    assert folded("t", Markup("i")).startswith("<details><summary>")
    assert folded("t", Markup("i"), is_open=True).startswith("<details open>")


def test_bounded_leaves_whole_blocks_out_and_counts_them():
    blocks = [f"<p>{i}{'é' * 30_000}</p>" for i in range(4)]
    text = bounded(blocks)
    assert len(text.encode()) <= MAX_BYTES
    assert text.startswith(blocks[0]) and "3 more do not fit here" in text


def test_bounded_takes_a_small_block_after_one_that_is_too_large():
    assert bounded(["x" * 100_000, "<p>small</p>"]).startswith("<p>small</p>")


@pytest.mark.parametrize("text", HOSTILE)
def test_bounded_holds_for_texts_that_are_all_codes(text):
    blocks = [folded("t", texts_table([(str(i), text * 100) for i in range(6)])) for _ in range(100)]
    assert len(bounded(blocks).encode()) <= MAX_BYTES


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_figure_that_is_none_is_a_dash(value):
    assert figure(value) == "–"


def test_figure_has_so_many_digits():
    assert (figure(0.12345), figure(2.0, 1)) == ("0.123", "2.0")
