"""The one user of every test server, and the environment in which the store finds server and user."""

from pathlib import Path

ACCESS_KEY = "solon-test-key"
SECRET_KEY = "solon-test-secret"


def aws_environment(endpoint: str, folder: Path) -> dict[str, str]:
    """`AWS_*` for a server; `folder` holds no configuration, so that none of the user's is read."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
    }


UNWANTED = ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN")
"""Variables that would override the above."""
