"""Work pools and their queues. A laptop's are of type process; a cluster's may be others of the same names."""

from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import WorkQueueFilter, WorkQueueFilterName
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.server import ROOT
from tasks.schema import Frozen


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


def ensure_pools(client: SyncPrefectClient) -> None:
    """Make the process pools and queues that are missing. What somebody changed of others stays."""
    for pool in POOLS:
        try:
            there = client.read_work_pool(pool.name)
        except ObjectNotFound:
            create = WorkPoolCreate(type="process", concurrency_limit=pool.limit, **pool.model_dump(exclude={"limit"}))
            create = create.model_copy(update={"base_job_template": process_template()})
            client.create_work_pool(WorkPoolCreate(**create.model_dump()))
        else:
            if there.type == "process" and there.base_job_template != process_template():
                client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=process_template()))
        ensure_queues(client, pool.name)


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
