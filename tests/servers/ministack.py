"""MiniStack, an S3 that checks signatures, permissions and checksums; HTTP or HTTPS."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import uuid
from typing import Any

from .need import missing
from .process import Server, free_port, new_folder

ENVIRONMENT = pathlib.Path(__file__).parents[2] / ".venv-servers"
HOW_TO_GET = "make servers"
REGION = "us-east-1"

ALL_OF_S3 = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """Credentials of a user."""

    access_key_id: str
    secret_access_key: str


class MiniStack(Server):
    """An S3 of its own that keeps its objects in memory.

    It is served by hypercorn itself, as MiniStack does in the background: its own command takes
    port 443 besides, when it serves TLS and may.

    Args:
        certificate: PEM files of the certificate chain and its key, for TLS.
        ca_file: The certificate to trust, for TLS.
    """

    region = REGION

    def __init__(
        self,
        certificate: tuple[pathlib.Path, pathlib.Path] | None = None,
        ca_file: pathlib.Path | None = None,
    ) -> None:
        if not (ENVIRONMENT / "bin" / "ministack").exists():
            missing("s3", HOW_TO_GET)
        port, folder = free_port(), new_folder("s3")
        command: list[str | pathlib.Path] = [
            ENVIRONMENT / "bin" / "python",
            "-m",
            "hypercorn",
            "ministack.app:app",
        ]
        command += ["--workers", "0", "--bind", f"127.0.0.1:{port}", "--keep-alive", "75"]
        if certificate:
            command += ["--certfile", certificate[0], "--keyfile", certificate[1]]
        environ = {
            "AUTH": "true",
            "GATEWAY_PORT": str(port),
            "EDGE_PORT": str(port),
            "HOME": str(folder),
            "IOT_MTLS_ENABLED": "0",
            "SERVICES": "s3,iam,sts",
            "TMPDIR": str(folder),
            "USE_SSL": "1" if certificate else "0",
        }
        super().__init__("s3", command, folder=folder, port=port, environ=environ)
        self.ca_file = ca_file
        self._session: Any = None
        self.endpoint_url = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
        self.key: Key
        """May do all of S3."""

    def start(self) -> MiniStack:
        super().start()
        self.key = self.new_key()
        return self

    def client(
        self, service: str = "s3", key: Key | None = None, endpoint_url: str | None = None
    ) -> Any:
        """botocore's client, which blocks; without *key* it may do everything.

        It never tries again.
        """
        import botocore.config
        import botocore.session

        if self._session is None:
            self._session = botocore.session.Session()  # the first client takes 100 ms
        key = key or self.key
        return self._session.create_client(
            service,
            endpoint_url=endpoint_url or self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            verify=str(self.ca_file) if self.ca_file else None,
            config=botocore.config.Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}
            ),
        )

    def new_key(self, *statements: dict[str, Any]) -> Key:
        """The key of a new user with these policy statements; without any, all of S3.

        The root key ``test`` is let in whatever its secret is, so it is no use in tests.
        """
        user = f"user-{uuid.uuid4().hex}"
        iam = self.client("iam", Key("test", "test"))
        iam.create_user(UserName=user)
        made = iam.create_access_key(UserName=user)["AccessKey"]
        policy = {"Version": "2012-10-17", "Statement": list(statements or (ALL_OF_S3,))}
        iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=json.dumps(policy))
        iam.close()
        return Key(made["AccessKeyId"], made["SecretAccessKey"])

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"test-{uuid.uuid4().hex}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name
