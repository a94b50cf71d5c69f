"""The command that puts pools and deployments of a cluster on a server, against a real one."""

import subprocess
import sys

import pytest

from deployments.deploy import read_file
from deployments.job_templates import base_job_template
from deployments.pools import POOLS
from tests.prefect_stack import ROOT, PrefectStack, kill

pytestmark = pytest.mark.long


def deploy(stack: PrefectStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deployments.deploy", *arguments]
    return subprocess.run(command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=300)


def test_deploy_puts_the_clusters_pools_and_all_deployments_on_a_server(tmp_path):
    stack = PrefectStack(tmp_path)
    try:
        stack.start_server()
        first, second = deploy(stack, "--pools", "kubernetes"), deploy(stack, "--pools", "kubernetes")
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        words = [{line.split()[0] for line in done.stdout.splitlines()} for done in (first, second)]
        assert words == [{"created"}, {"unchanged"}]
        with stack.client() as client:
            for pool in POOLS:
                there = client.read_work_pool(pool.name)
                assert (there.type, there.base_job_template) == ("kubernetes", base_job_template(pool.name))
            assert len(client.read_deployments(limit=200)) == len(read_file())
            revise = client.read_deployment_by_name("revise/stage")
            assert revise.job_variables == {"service_account_name": "solon-revise"}
            store = client.read_deployment_by_name("gc/store")
            run = client.create_flow_run_from_deployment(store.id, job_variables={"memory_limit": "8Gi"})
            assert run.work_pool_name == "cpu"
        other = deploy(stack)
        assert other.returncode != 0 and "pool cpu is of type kubernetes, expected process" in other.stderr
    finally:
        kill(stack.processes())
