"""The whole server as a process, before those who only connect, and before clients that offer another protocol."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.processes import free_port, plumbline, running, until

pytestmark = pytest.mark.slow

PREDICT = '{"inputs": "a fine film"}'
JAVA = """
import java.net.URI;
import java.net.http.*;
public class Ask {
    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(arguments[0]))
            .POST(HttpRequest.BodyPublishers.ofString("{\\"inputs\\": \\"a fine film\\"}")).build();
        var client = HttpClient.newHttpClient();
        for (int turn = 0; turn < 2; turn++)
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
    }
}
"""


def predicts(port: int) -> bool:
    try:
        return httpx.post(f"http://127.0.0.1:{port}/predict", content=PREDICT).status_code == 200
    except httpx.TransportError:
        return False


def test_with_few_descriptors_a_crowd_of_silent_connections_keeps_nobody_out(repo: Path) -> None:
    port = free_port()
    limited = [
        "bash",
        "-c",
        'ulimit -n 256; exec "$@"',
        "bash",
        *plumbline("serve", "--repo", repo, "--port", str(port)),
    ]
    with running(limited, ready=f"http://127.0.0.1:{port}/readyz") as server, contextlib.ExitStack() as crowd:
        for _ in range(500):
            crowd.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port))))
        until(lambda: predicts(port))  # the silent are given a second before they have to go
        assert 'reason="connections"' in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        opened = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
        assert opened < 256 - 64


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_may_offer_http_2(url: str) -> None:
    command = ["curl", "-s", "--http2", "-d", PREDICT, f"http://{url}/predict", "-w", " %{http_code} %{http_version}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith(" 200 1.1")


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_the_client_that_java_brings_offers_it_always(url: str, tmp_path: Path) -> None:
    (tmp_path / "Ask.java").write_text(JAVA)
    command = ["java", str(tmp_path / "Ask.java"), f"http://{url}/predict"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["200", "200"]
