from tasks.compare import CompareConfig, Pair, compare
from tasks.serving import FakeGenerator, Generation
from tests.worlds import echo, prompt, recipe


def pairs(count, **fields):
    return [Pair(prompt(f"text {i}", **fields), 0) for i in range(count)]


def test_compare_two_samples_have_seeds_of_their_own_and_keep_order():
    generator = FakeGenerator(lambda r: f"{r.messages[-1].content} {r.seed}")
    rows = compare(pairs(10), generator, CompareConfig(), recipe())
    assert len({r.seed for r in generator.requests}) == len(generator.requests) == 20
    for i, row in enumerate(rows):
        assert row.completion_a.startswith(f"text {i} ") and row.completion_b.startswith(f"text {i} ")


def test_compare_identical_pair_is_drawn_again_until_it_differs():
    asked = []

    def reply(request):
        asked.append(request.seed)
        return "same" if len(asked) < 4 else "other"

    (row,) = compare(pairs(1), FakeGenerator(reply), CompareConfig(num_draws=4), recipe())
    assert (row.status, row.completion_a, row.completion_b) == ("ok", "same", "other")
    assert len(asked) == len(set(asked)) == 4


def test_compare_pair_that_stays_identical_is_skipped_with_its_texts():
    generator = FakeGenerator("same")
    (row,) = compare(pairs(1), generator, CompareConfig(num_draws=3), recipe())
    assert (row.status, row.reason, row.completion_a) == ("skipped", "identical pair", "same")
    assert len(generator.requests) == 1 + 3


def test_compare_only_identical_pairs_are_drawn_again():
    def reply(request):
        return "same" if request.messages[-1].content == "text 0" else echo("t")(request)

    generator = FakeGenerator(reply)
    rows = compare(pairs(5), generator, CompareConfig(num_draws=4), recipe())
    assert [row.status for row in rows] == ["skipped", "ok", "ok", "ok", "ok"]
    assert len(generator.requests) == 5 + 5 + 3


def test_compare_failed_completion_and_unusable_prompt_keep_their_reasons():
    generator = FakeGenerator(lambda r: Generation(None, error="prompt has 9 tokens, the context holds 8"))
    failed = compare(pairs(1), generator, CompareConfig(), recipe())[0]
    skipped = compare(pairs(1, status="unparsable", reason="no turn"), generator, CompareConfig(), recipe())[0]
    assert (failed.status, skipped.status) == ("failed", "skipped")
    assert "9 tokens" in failed.reason and "no turn" in skipped.reason
    assert len(generator.requests) == 2  # a failure is not drawn again
