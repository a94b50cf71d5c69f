import json
from collections import Counter

import pytest

from tasks.collect import PromptsConfig, PromptsStage
from tasks.stage import RunContext, Session, StageFailed
from tests.worlds import open_store


def stage(folder, red_team, helpful=(), held_out=(), **settings):
    paths = {}
    for name, lines in (("red_team", red_team), ("helpful", helpful), ("held_out", held_out)):
        if lines:
            path = folder / f"{name}.jsonl"
            path.write_text("\n".join(json.dumps(line) for line in lines))
            paths[name] = str(path)
    return PromptsStage(run=RunContext(), config=PromptsConfig(**paths, **settings))


def asks(*texts, **fields):
    return [{"prompt": text, **fields} for text in texts]


def test_prompts_transcripts_given_as_helpful_are_helpful(tmp_path):
    pair = {"chosen": "\n\nHuman: Bake?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Bake?\n\nAssistant: No."}
    rows = stage(tmp_path, asks("steal"), helpful=[pair], held_out_fraction=0).rows()
    assert [(r.kind, r.messages[-1].content) for r in rows] == [("red_team", "steal"), ("helpful", "Bake?")]


def test_prompts_repeated_text_gets_an_id_of_its_own(tmp_path):
    rows = stage(tmp_path, asks("steal", "steal", "rob"), held_out_fraction=0).rows()
    assert len({r.prompt_id for r in rows}) == 3
    assert rows[1].prompt_id == f"{rows[0].prompt_id}-1"


def test_prompts_text_that_is_held_out_is_skipped_for_training(tmp_path):
    rows = stage(tmp_path, asks("steal", "rob"), held_out=asks("rob", kind="red_team")).rows()
    found = {(r.split, r.messages[-1].content): r.status for r in rows}
    assert found == {("train", "steal"): "ok", ("train", "rob"): "skipped", ("held_out", "rob"): "ok"}


def test_prompts_share_held_out_is_the_same_in_any_order_and_covers_both_kinds(tmp_path):
    texts = [f"text {i}" for i in range(400)]
    first = stage(tmp_path, asks(*texts), helpful=asks(*texts), held_out_fraction=0.2).rows()
    second = stage(tmp_path, asks(*reversed(texts)), helpful=asks(*texts), held_out_fraction=0.2).rows()
    held_out = [{r.prompt_id for r in rows if r.split == "held_out"} for rows in (first, second)]
    assert held_out[0] == held_out[1] and 110 < len(held_out[0]) < 210
    assert {r.kind for r in first if r.split == "held_out"} == {"red_team", "helpful"}


def test_prompts_unusable_lines_are_kept_with_their_reasons(tmp_path):
    rows = stage(tmp_path, [{"prompt": "steal"}, {"prompt": ""}, {"prompt": 7}], held_out_fraction=0).rows()
    assert len(rows) == 3 and rows[0].status == "ok"
    assert all(r.status != "ok" and r.reason for r in rows[1:])


def test_prompts_version_follows_the_content_and_not_the_place(tmp_path):
    store = open_store(tmp_path / "store")
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    stages = [stage(folders[0], asks("x")), stage(folders[1], asks("x")), stage(folders[2], asks("y"))]
    versions = [s.derivation(store).version for s in stages]
    assert versions[0] == versions[1] != versions[2]


def test_prompts_renamed_file_gives_the_same_rows(tmp_path):
    given = stage(tmp_path, asks("x", "y"))
    renamed = (tmp_path / "red_team.jsonl").rename(tmp_path / "other.jsonl")
    moved = given.model_copy(update={"config": given.config.model_copy(update={"red_team": str(renamed)})})
    assert moved.rows() == stage(tmp_path, asks("x", "y")).rows()


def test_prompts_without_a_usable_red_team_prompt_fail_and_name_the_setting(tmp_path):
    with pytest.raises(StageFailed, match=r"prompts\.red_team"):
        stage(tmp_path, asks("", "")).make(Session(open_store(tmp_path / "store")))


def test_prompts_that_look_harmful_are_held_out_beside_small_talk_each_in_a_group_of_its_own(tmp_path):
    files = {name: f"tasks/evaluation/{name}.txt" for name in ("small_talk", "look_alikes")}
    rows = stage(tmp_path, asks("steal"), **files).rows()
    assert Counter(r.group for r in rows if r.group) == {"small talk": 15, "look-alikes": 60}
    assert {(r.split, r.kind, r.status) for r in rows if r.group} == {("held_out", "helpful", "ok")}


def test_prompts_small_talk_is_held_out_in_a_group_of_its_own_and_never_trained_on(tmp_path):
    talk = "tasks/evaluation/small_talk.txt"
    held_out = asks("hey", "rob", kind="helpful")
    for given in ({"held_out": held_out}, {"held_out_fraction": 0.5}):
        rows = stage(tmp_path, asks("steal"), helpful=asks("hey", "bake"), small_talk=talk, **given).rows()
        chat = [r for r in rows if r.group == "small talk"]
        assert len(chat) == 15 and {(r.split, r.kind, r.status) for r in chat} == {("held_out", "helpful", "ok")}
        assert len({r.row_id for r in rows}) == len(rows)
        (trained,) = [r for r in rows if r.split == "train" and r.messages[-1].content == "hey"] or [None]
        assert trained is None or trained.status == "skipped"
