"""Work pools and their queues: the same names, queues and limits on a laptop (type process) and on a cluster."""

from typing import Any, Literal

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import WorkQueueFilter, WorkQueueFilterName
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from deployments.job_templates import base_job_template
from flows.server import ROOT
from tasks.schema import Frozen

PoolType = Literal["process", "kubernetes"]


class OtherType(ValueError):
    """A pool is there, of another type."""


class Pool(Frozen):
    """One pool of workers."""

    name: str
    description: str
    limit: int | None = None
    """How many runs it takes at once; None: any number, for a parent waits in it while its stages run."""


POOLS = (
    Pool(name="cpu", description="Runs that wait for others, and stages made from files and rows."),
    Pool(name="gpu-inference", description="Stages that generate or judge with a model.", limit=1),
    Pool(name="gpu-training", description="Stages that train a model.", limit=1),
)
QUEUES = ("high", "default", "low")
"""Of every pool, the first served first."""


def ensure_pools(client: SyncPrefectClient, pool_type: PoolType = "process") -> None:
    """Make the pools and queues that are missing, and give each pool its template; a changed limit stays.

    Raises: OtherType: a pool of the name is of another type, which Prefect cannot change.
    """
    for pool in POOLS:
        template = process_template() if pool_type == "process" else base_job_template(pool.name)
        try:
            there = client.read_work_pool(pool.name)
        except ObjectNotFound:
            create_pool(client, pool, pool_type, template)
        else:
            if there.type != pool_type:
                raise OtherType(
                    f"pool {pool.name} is of type {there.type}, expected {pool_type}: deploy with --pools "
                    f"{there.type}, or delete it (its queued runs go with it): prefect work-pool delete {pool.name}"
                )
            if there.base_job_template != template:
                client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=template))
        ensure_queues(client, pool.name)


def create_pool(client: SyncPrefectClient, pool: Pool, pool_type: PoolType, template: dict[str, Any]) -> None:
    create = WorkPoolCreate(type=pool_type, concurrency_limit=pool.limit, **pool.model_dump(exclude={"limit"}))
    create = create.model_copy(update={"base_job_template": template})
    client.create_work_pool(WorkPoolCreate(**create.model_dump()))


def ensure_queues(client: SyncPrefectClient, pool: str) -> None:
    names = WorkQueueFilter(name=WorkQueueFilterName(any_=list(QUEUES)))
    there = {queue.name for queue in client.read_work_queues(work_pool_name=pool, work_queue_filter=names)}
    for priority, name in enumerate(QUEUES, start=1):
        if name not in there:
            client.create_work_queue(name, work_pool_name=pool, priority=priority)


def process_template() -> dict[str, Any]:
    """Runs start in the repository's root; environment and Python are the worker's."""
    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["working_dir"]["default"] = str(ROOT)
    return template
