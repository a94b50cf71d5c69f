"""A whole alignment on a real Ceph under Terraform's policies: each stage with its own role, the run with `align`'s."""

from pathlib import Path

import pytest

from flows.align import align
from flows.runner import Run
from infra.debian_tools import Missing
from tasks.stage import Stage
from tests.aligned import small_config
from tests.policy_world import ROLES, URI, policy_world
from tests.servers.radosgw_roles import acting_as

MORE_STAGES = ("reward.second_model_share=0.5", "rl.ppo.keep_every=1", "improve.gate=measure")


@pytest.mark.long
@pytest.mark.usefixtures("prefect_home")
def test_alignment_ends_though_each_stage_has_no_more_than_its_own_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, made = small_config(tmp_path, *MORE_STAGES, f"run.store={URI}"), set[str]()
    original = Run.make
    try:
        with policy_world(tmp_path) as world:

            def make(self: Run, stage: Stage, version: str) -> None:
                made.add(stage.stage)
                with acting_as(world.session(stage.stage)):
                    original(self, stage, version)

            monkeypatch.setattr(Run, "make", make)
            with acting_as(world.session("align")):
                result = align(config)
    except Missing as error:
        pytest.skip(str(error))
    assert made == set(ROLES) - {"amend", "publish", "align", "read", "gc", "human_matches", "assess"}
    assert {outcome.stage for outcome in result.stages} == made
