"""A chunk as a Prefect task: transient failures are tried again, others are not; nothing is committed meanwhile."""

import pytest
from prefect import flow

from flows.runner import chunk
from tasks.serving import TransientServingError

pytestmark = pytest.mark.usefixtures("prefect_home")


def failing(times, error):
    calls = []

    def work():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    return work, calls


def test_chunk_server_that_died_once_is_tried_again():
    work, calls = failing(1, TransientServingError("the server died"))

    @flow
    def one_chunk():
        return chunk("c", work)

    assert one_chunk() == 2 and len(calls) == 2


def test_chunk_bad_input_is_not_tried_again():
    work, calls = failing(9, ValueError("bad"))

    @flow
    def one_chunk():
        return chunk("c", work)

    with pytest.raises(ValueError, match="bad"):
        one_chunk()
    assert len(calls) == 1
