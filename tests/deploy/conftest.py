"""A stand-in for AWS that writes down what it is asked."""

import io
import os
import threading
import urllib.parse
from collections.abc import Iterator

import pytest
from cluster_files import Aws


@pytest.fixture
def aws() -> Iterator[Aws]:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    calls: list[tuple[str, dict[str, str]]] = []
    application = DomainDispatcherApplication(create_backend_app)

    def recorded(environ, start):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        form = dict(urllib.parse.parse_qsl(body.decode("utf-8", "replace")))
        if action := form.pop("Action", None):
            calls.append((action, form))
        return application(environ, start)

    server = make_server("127.0.0.1", 0, recorded, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        yield Aws({**os.environ, **environment}, calls)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
