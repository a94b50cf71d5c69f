"""Values for Prefect's charts: keys that the charts document, versions that are pinned. No helm rendered them."""

import re

import prefect
import pytest
import yaml

from deployments.pools import POOLS
from flows.server import read_settings
from tests.cluster_files import FOLDER, VALUES

CHARTS = "2026.8.18172642"
SERVER = FOLDER / "helm" / "prefect-server.yaml"
WORKER = FOLDER / "helm" / "worker.yaml"

# Keys of the charts' values.yaml of that version, those that we use; what is below one that ends with * is handed on to
# Kubernetes as it is. Merged with the charts' own, our values were valid for their values.schema.json, once, by hand.
KNOWN = {
    "prefect-server": """
        fullnameOverride
        global.prefect.image.repository global.prefect.image.prefectTag
        server.replicaCount server.extraEnvVarsCM server.basicAuth.enabled server.basicAuth.existingSecret
        server.uiConfig.prefectUiApiUrl server.automountServiceAccountToken server.priorityClassName
        server.terminationGracePeriodSeconds server.resources* server.containerSecurityContext*
        backgroundServices.runAsSeparateDeployment backgroundServices.extraEnvVarsCM
        backgroundServices.automountServiceAccountToken backgroundServices.priorityClassName
        backgroundServices.resources* backgroundServices.podSecurityContext*
        backgroundServices.containerSecurityContext*
        backgroundServices.messaging.broker backgroundServices.messaging.cache
        backgroundServices.messaging.redis.host backgroundServices.messaging.redis.existingSecret
        backgroundServices.messaging.redis.existingSecretPasswordKey
        backgroundServices.messaging.docket.existingSecret backgroundServices.messaging.docket.existingSecretKey
        migrations.podSecurityContext* migrations.securityContext* migrations.resources*
        migrations.extraVolumes* migrations.extraVolumeMounts*
        externalDatabase.existingSecret externalDatabase.connectionStringSecretKey
        secret.create postgresql.enabled redis.enabled ingress.enabled
    """,
    "prefect-worker": """
        fullnameOverride
        worker.image.repository worker.image.prefectTag worker.apiConfig
        worker.selfHostedServerApiConfig.apiUrl worker.selfHostedServerApiConfig.basicAuth.enabled
        worker.selfHostedServerApiConfig.basicAuth.existingSecret worker.clusterUid
        worker.config.type worker.config.workPool worker.config.name worker.config.installPolicy
        worker.config.queryInterval worker.config.jobNamespace
        worker.extraArgs* worker.extraEnvVarsCMs* worker.livenessProbe.enabled worker.replicaCount
        worker.priorityClassName worker.resources* worker.containerSecurityContext*
        role.namespace role.extraPermissions*
    """,
}


def read(path):
    return yaml.safe_load(path.read_text())


def keys(values, above=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from keys(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.name)
def test_values_are_keys_that_the_chart_documents(path):
    known = KNOWN["prefect-server" if path == SERVER else "prefect-worker"].split()
    whole = {name for name in known if not name.endswith("*")}
    handed_on = tuple(name.rstrip("*") for name in known if name.endswith("*"))
    for key in keys(read(path)):
        assert key in whole or any(key == name or key.startswith(f"{name}.") for name in handed_on), key


def test_values_name_the_charts_version_and_the_prefect_that_is_installed():
    for path, chart in ((SERVER, "prefect-server"), (WORKER, "prefect-worker")):
        assert f"chart {chart} {CHARTS}" in path.read_text()
        assert re.findall(r"--version (\S+)", path.read_text()) == [CHARTS]
    images = [read(SERVER)["global"]["prefect"]["image"], read(WORKER)["worker"]["image"]]
    assert all(image["prefectTag"].startswith(f"{prefect.__version__}-python3.11") for image in images)


def test_values_give_each_pool_a_worker_of_its_own():
    for pool in POOLS:
        values = read(FOLDER / "helm" / f"worker-{pool.name}.yaml")
        assert values["worker"]["config"]["workPool"] == pool.name
        assert values["fullnameOverride"] == f"worker-{pool.name}"
    assert {path.name for path in VALUES} == {
        SERVER.name,
        WORKER.name,
        *(f"worker-{pool.name}.yaml" for pool in POOLS),
    }


def test_values_agree_with_the_settings():
    worker, server = read(WORKER)["worker"], read(SERVER)
    assert worker["config"]["queryInterval"] == int(read_settings()["PREFECT_WORKER_QUERY_SECONDS"])
    assert worker["extraEnvVarsCMs"] == ["solon-settings"]
    assert server["server"]["extraEnvVarsCM"] == server["backgroundServices"]["extraEnvVarsCM"] == "solon-settings"
    # the chart then keeps leases in Redis, which is stronger than the folder of settings.env
    assert server["backgroundServices"]["messaging"]["broker"] == "prefect_redis.messaging"


def test_values_password_reaches_runs_as_a_reference():
    basic = read(WORKER)["worker"]["selfHostedServerApiConfig"]["basicAuth"]
    assert basic == {"enabled": True, "existingSecret": "prefect-auth"} == read(SERVER)["server"]["basicAuth"]
