"""Small inputs that many tests share: a constitution, prompts, and a session on a store of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from constitutions import Constitution
from tasks.constitution import ConstitutionStage
from tasks.generation import Recipe
from tasks.schema import DatasetRef, Message, ModelRef, Prompt, Row
from tasks.serving import FakeGenerator, Sampling
from tasks.stage import RunContext, Session, Stage
from tasks.store import Store
from tasks.store.identity import digest, rows_to_table, table_to_rows

FAKE_MODEL = ModelRef(model="external", version="f" * 32, content_hash="f" * 64, source="fake")


def principle(name: str, **fields: Any) -> dict[str, Any]:
    texts = {
        "critique_request": f"Criticise under {name}.",
        "revision_request": f"Revise under {name}.",
        "comparison_question": f"Which is better under {name}?",
    }
    return {"id": name, "cluster": "test", "source": "test", **texts, **fields}


def constitution_of(*names: str) -> Constitution:
    principles = [principle(name) for name in names]
    return Constitution.model_validate({"id": "test", "title": "t", "description": "d", "principles": principles})


def prompt(text: str, kind: str = "red_team", split: str = "train", **fields: Any) -> Prompt:
    prompt_id = digest([kind, text])[:20]
    values = {"row_id": f"{split}/{prompt_id}", "reuse_key": prompt_id, "prompt_id": prompt_id, "source": "test:1"}
    messages = [Message(role="user", content=text)]
    return Prompt.model_validate({**values, "kind": kind, "split": split, "messages": messages, **fields})


def recipe(**fields: Any) -> Recipe:
    values = {"stage": "s", "code_version": 1, "model": "m", "serving": {}, "sampling": Sampling(), "seed": 0}
    return Recipe.model_validate({**values, "force": None, **fields})


def session_on(store: Store, generator: FakeGenerator) -> Session:
    """A session whose every model is `generator`."""

    @contextmanager
    def opened(*_: object) -> Iterator[FakeGenerator]:
        yield generator

    return Session(store, open_generator=opened)


class FakeModels(Store):
    """A store that finds any outside model, so that no weights are needed."""

    def fetch_model(self, ref: ModelRef) -> Path:
        return Path("unused")


def open_store(folder: Path) -> Store:
    return FakeModels(Store.open(str(folder)).backend, folder / "cache")


def commit(store: Store, dataset: str, rows: list[Any], row_type: type[Row]) -> DatasetRef:
    """Rows as a version of a dataset, made by nothing in particular."""

    class Given(Stage):
        stage = "given"
        code_version = 1
        content: str

        def extra_identity(self, store: Store) -> dict[str, Any]:
            return {"content": self.content}

        def make(self, session: Session) -> DatasetRef:
            raise NotImplementedError

    Given.dataset = dataset
    given = Given(run=RunContext(), content=digest([row.model_dump(mode="json") for row in rows]))
    return store.commit_rows(given.derivation(store), rows_to_table(rows, row_type), metrics={}, cost={})


def commit_constitution(store: Store, constitution: Constitution) -> DatasetRef:
    stage = ConstitutionStage(run=RunContext(), document=constitution.model_dump(mode="json"))
    return stage.make(Session(store))


def rows_of(store: Store, ref: DatasetRef, row_type: type[Row]) -> list[Any]:
    return table_to_rows(store.read(ref), row_type)


def echo(text: str) -> Callable[[Any], str]:
    """A reply that depends on the whole conversation and the seed, and never repeats."""
    return lambda request: f"{text} {digest([[m.content for m in request.messages], request.seed])[:12]}"
