"""What clients of other servers send, and how they reach this one: their shapes, codings, methods, sockets, TLS."""

from __future__ import annotations

import datetime
import gzip
import json
import ssl
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.testclient import TestClient

from service.contract.errors import SettingsError
from service.contract.settings import load_settings
from service.settings import ServiceSettings
from tests.fakes import make_bundle
from tests.processes import plumbline, running, until

Start = Callable[..., TestClient]
KEPT = httpx.Limits(keepalive_expiry=60)
GOOD = {"inputs": "a good film"}
BODY = json.dumps(GOOD).encode()


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


class TestDefaultModel:
    def test_a_second_model_changes_nothing_for_those_who_name_none(self, start: Start, repo: Path) -> None:
        client = start()
        before = client.post("/predict", json=GOOD).json()
        make_bundle(repo, "zeta", labels=("neutral", "positive"))
        until(lambda: client.get("/v2/models/zeta/ready").status_code == 200)
        after = client.post("/predict", json=GOOD).json()
        assert [one["label"] for one in after] == [one["label"] for one in before]
        assert client.get("/info").json()["model_id"] == "reviews"

    def test_without_the_default_model_no_other_answers_in_its_name(self, start: Start, repo: Path) -> None:
        make_bundle(repo, "zeta", labels=("neutral", "positive"))
        client = start()
        assert client.post("/v2/repository/models/reviews/unload").status_code == 200
        refused = client.post("/predict", json=GOOD)
        assert refused.status_code == 503
        assert "'reviews'" in refused.json()["error"]
        assert client.post("/models/zeta/predict", json=GOOD).status_code == 200

    def test_a_setting_decides(self, start: Start, repo: Path) -> None:
        make_bundle(repo, "zeta", labels=("neutral", "positive"))
        assert start(model="zeta").get("/info").json()["model_id"] == "zeta"

    def test_an_unknown_model_is_named(self, client: TestClient) -> None:
        refused = client.post("/models/nobody/predict", json=GOOD)
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown_model")


class TestTextEmbeddingsInference:
    def test_each_text_may_stand_in_a_list_of_its_own(self, client: TestClient) -> None:
        alone = client.post("/predict", json={"inputs": [["good"], ["bad"]]}).json()
        flat = client.post("/predict", json={"inputs": ["good", "bad"]}).json()
        assert [[one["label"] for one in row] for row in alone] == [[one["label"] for one in row] for row in flat]
        pair = client.post("/predict", json={"inputs": [["good", "bad"]]})
        assert pair.status_code == 409
        assert "single texts" in pair.json()["error"]

    def test_raw_scores_are_the_model_s_outputs(self, client: TestClient) -> None:
        raw = client.post("/predict", json={**GOOD, "raw_scores": True}).json()
        usual = client.post("/predict", json=GOOD).json()
        assert [one["label"] for one in raw] == [one["label"] for one in usual]
        difference = raw[0]["score"] - raw[1]["score"]
        assert usual[0]["score"] == pytest.approx(1 / (1 + 2.718281828**-difference), abs=1e-5)

    def test_long_texts_are_cut_at_the_end_that_is_asked_for_or_refused(self, client: TestClient) -> None:
        text = "good " * 1000 + "awful awful awful"
        for direction, label in (("Right", "positive"), ("Left", "negative")):
            text = ("good " if direction == "Right" else "") * 600 + "awful " * 600 + "good " * 0
            answer = client.post("/predict", json={"inputs": text, "truncate": True, "truncation_direction": direction})
            assert answer.json()[0]["label"] == label
        refused = client.post("/predict", json={"inputs": text, "truncate": False})
        assert refused.status_code == 422
        assert "truncate is false" in refused.json()["error"]

    def test_tokens_can_be_had_and_made_text_again(self, client: TestClient) -> None:
        (tokens,) = client.post("/tokenize", json=GOOD).json()
        assert [one["special"] for one in (tokens[0], tokens[-1])] == [True, True]
        for one in tokens[1:-1]:
            assert GOOD["inputs"][one["start"] : one["stop"]] == one["text"]
        (text,) = client.post("/decode", json={"ids": [one["id"] for one in tokens]}).json()
        assert text == GOOD["inputs"]
        for wrong in ({"ids": []}, {"ids": [-1]}, {"ids": [2**32]}, {"ids": ["a"]}, {}):
            assert client.post("/decode", json=wrong).status_code == 422
        assert client.post("/decode", json={"ids": [2**31]}).status_code in (200, 422)

    def test_it_is_healthy_and_says_what_it_is(self, client: TestClient) -> None:
        assert client.get("/health").status_code == 200
        info = client.get("/info").json()
        assert info["model_type"] == {
            "classifier": {"id2label": {"0": "negative", "1": "positive"}, "label2id": {"negative": 0, "positive": 1}}
        }
        assert info["max_client_batch_size"] == 256

    @pytest.mark.parametrize(
        ("body", "kind"), [(b"{", "Validation"), (b'{"inputs": []}', "Validation"), (b'{"inputs": 1}', "Validation")]
    )
    def test_errors_have_a_type(self, client: TestClient, body: bytes, kind: str) -> None:
        assert client.post("/predict", content=body).json()["error_type"] == kind


class TestHuggingFace:
    def test_what_its_clients_always_send_may_be_empty(self, client: TestClient) -> None:
        body = {**GOOD, "parameters": None, "options": {"wait_for_model": True, "use_cache": False}}
        assert client.post("/", json=body).json()[0][0]["label"] == "positive"

    def test_the_function_is_chosen(self, client: TestClient) -> None:
        def scores(function: str) -> list[float]:
            body = {**GOOD, "parameters": {"function_to_apply": function}}
            return [one["score"] for one in client.post("/predict", json=body).json()]

        raw = scores("none")
        assert scores("softmax") == pytest.approx([one["score"] for one in client.post("/predict", json=GOOD).json()])
        assert scores("sigmoid") == pytest.approx([1 / (1 + 2.718281828**-one) for one in raw], abs=1e-5)
        both = {**GOOD, "raw_scores": True, "parameters": {"function_to_apply": "softmax"}}
        assert [one["score"] for one in client.post("/predict", json=both).json()] == raw


def test_kserve_s_first_protocol(client: TestClient) -> None:
    assert client.get("/v1/models").json() == {"models": ["reviews"]}
    assert client.get("/v1/models/reviews").json() == {"name": "reviews", "ready": True}
    for instances in (["good", "bad"], [{"text": "good"}, {"text": "bad"}]):
        answer = client.post("/v1/models/reviews:predict", json={"instances": instances}).json()
        assert [one["label"] for one in answer["predictions"]] == ["positive", "negative"]
    for wrong in ([], [1], ["good", {"text": "bad"}], [{"text": 1}], "good"):
        assert client.post("/v1/models/reviews:predict", json={"instances": wrong}).status_code == 422
    assert client.post("/v1/models/nobody:predict", json={"instances": ["good"]}).status_code == 404


def test_sagemaker(client: TestClient) -> None:
    assert client.get("/ping").status_code == 200
    (one,) = client.post("/invocations", json=GOOD).json()
    assert one["label"] == "positive"
    assert len(client.post("/invocations", json={"inputs": ["good", "bad"]}).json()) == 2
    assert len(client.post("/invocations", json={**GOOD, "parameters": {"top_k": 2}}).json()) == 2


class TestTriton:
    URL = "/v2/models/reviews/infer"

    def tensor(self, **changed: Any) -> dict[str, Any]:
        return {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"], **changed}

    def test_the_one_input_may_have_any_name(self, client: TestClient) -> None:
        answer = client.post(self.URL, json={"inputs": [self.tensor(name="input-1")]})
        assert answer.json()["outputs"][0]["data"] == ["positive"]
        assert client.post(self.URL, json={"inputs": [self.tensor(), self.tensor(name="b")]}).status_code == 409

    def test_a_timeout_of_0_is_none(self, client: TestClient) -> None:
        body: dict[str, Any] = {"inputs": [self.tensor()], "parameters": {"timeout": 0}}
        assert client.post(self.URL, json=body).status_code == 200
        for wrong in (-1, True, "0", 1.5):
            body["parameters"]["timeout"] = wrong
            assert client.post(self.URL, json=body).status_code == 422

    def test_classification(self, client: TestClient) -> None:
        wanted = [{"name": "probabilities", "parameters": {"classification": 1}}]
        inputs = [self.tensor(shape=[2], data=["good", "bad"])]
        (output,) = client.post(self.URL, json={"inputs": inputs, "outputs": wanted}).json()["outputs"]
        assert (output["datatype"], output["shape"]) == ("BYTES", [2, 1])
        assert [one.split(":")[1:] for one in output["data"]] == [["1", "positive"], ["0", "negative"]]
        for name, count in (("label", 1), ("probabilities", -1), ("probabilities", True)):
            asked = [{"name": name, "parameters": {"classification": count}}]
            assert client.post(self.URL, json={"inputs": inputs, "outputs": asked}).status_code == 422

    def test_a_raw_body_is_one_text(self, client: TestClient) -> None:
        headers = {"inference-header-content-length": "0", "content-type": "application/octet-stream"}
        answer = client.post(self.URL, content="ein großer Film, good".encode(), headers=headers)
        assert answer.json()["outputs"][0]["data"] == ["positive"]
        assert client.post(self.URL, content=b"\xff", headers=headers).status_code == 422

    def test_statistics_have_every_field_that_clients_read(self, client: TestClient) -> None:
        client.post(self.URL, json={"inputs": [self.tensor()]})
        (found,) = client.get("/v2/models/reviews/stats").json()["model_stats"]
        parts = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output"}
        assert found["inference_stats"].keys() == {*parts, "cache_hit", "cache_miss"}
        assert all(part.keys() == {"count", "ns"} for part in found["inference_stats"].values())
        assert found["batch_stats"] == []
        assert abs(found["last_inference"] / 1000 - datetime.datetime.now().timestamp()) < 60

    def test_tritons_client_classifies_and_compresses(self, url: str) -> None:
        import numpy as np
        import tritonclient.http as triton

        client = triton.InferenceServerClient(url)
        tensor = triton.InferInput("input-1", [2], "BYTES")
        tensor.set_data_from_numpy(np.array(["good", "bad"], dtype=np.object_))
        wanted = [triton.InferRequestedOutput("probabilities", class_count=1)]
        for coding in ("gzip", "deflate"):
            answer = client.infer(
                "reviews",
                [tensor],
                outputs=wanted,
                request_compression_algorithm=coding,
                response_compression_algorithm="gzip",
                timeout=0,
            )
            assert [one.decode().split(":")[2] for one in answer.as_numpy("probabilities").ravel()] == [
                *("positive", "negative")
            ]


class TestCodings:
    @pytest.mark.parametrize(
        ("coding", "content"),
        [
            ("gzip", gzip.compress(BODY)),
            ("GZIP", gzip.compress(BODY[:5]) + gzip.compress(BODY[5:])),
            ("deflate", zlib.compress(BODY)),
            ("deflate", raw_deflate(BODY)),
            ("identity", BODY),
            ("deflate, gzip", gzip.compress(zlib.compress(BODY))),
            ("", BODY),
        ],
        ids=range(7),  # the contents hold the time
    )
    def test_packed_bodies_are_read(self, client: TestClient, coding: str, content: bytes) -> None:
        answer = client.post("/predict", content=content, headers={"content-encoding": coding})
        assert answer.json()[0]["label"] == "positive"

    @pytest.mark.parametrize(
        ("coding", "content", "status"),
        [
            ("br", BODY, 415),
            ("gzip, gzip, gzip", BODY, 415),
            ("gzip", BODY, 400),
            ("gzip", b"", 400),
            ("gzip", gzip.compress(BODY)[:-3], 400),
            ("gzip", gzip.compress(BODY) + b"more", 400),
            ("gzip", gzip.compress(b"") * 5000, 400),
            ("deflate", zlib.compress(BODY) * 2, 400),
            ("gzip", gzip.compress(b" " * (4 * 2**20 + 1)), 413),
            ("gzip", gzip.compress(gzip.compress(BODY)), 400),
            ("gzip, gzip", gzip.compress(gzip.compress(bytes(2**26))), 413),
        ],
        ids=range(11),
    )
    def test_what_is_not_what_it_says_or_too_large_is_refused(
        self, client: TestClient, coding: str, content: bytes, status: int
    ) -> None:
        refused = client.post("/predict", content=content, headers={"content-encoding": coding})
        assert refused.status_code == status
        assert (refused.headers.get("accept-encoding") == "gzip, deflate") == (status == 415)

    def test_large_answers_are_packed_for_those_who_take_it(self, start: Start) -> None:
        client = start(compress_bytes=2000)
        many, one = {"inputs": ["good"] * 100}, GOOD
        packed = client.post("/predict", json=many, headers={"accept-encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert len(packed.json()) == 100
        for body, accepted in ((one, "gzip"), (many, "identity"), (many, "br")):
            plain = client.post("/predict", json=body, headers={"accept-encoding": accepted})
            assert "content-encoding" not in plain.headers
        never = start(compress_bytes=0).post("/predict", json=many, headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in never.headers

    def test_a_byte_order_mark_is_no_part_of_the_body(self, client: TestClient) -> None:
        for path, content in (("/predict", BODY), ("/v2/repository/index", b"{}")):
            assert client.post(path, content=b"\xef\xbb\xbf" + content).status_code == 200


def test_head_is_answered_wherever_get_is_without_a_body(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    asked = [path.format(name="reviews", version="1") for path, methods in paths.items() if "get" in methods]
    assert len(asked) > 15
    for path in [*asked, "/docs", "/openapi.json"]:
        with_body, without = client.get(path), client.head(path)
        assert (without.status_code, without.content) == (with_body.status_code, b""), path
        assert without.headers.get("content-type") == with_body.headers.get("content-type")
    assert client.head("/predict").status_code == 405


@pytest.mark.parametrize("path", ["/plumbline/predict", "/predict"])
def test_a_prefix_is_taken_off_where_the_proxy_leaves_it_on(start: Start, path: str) -> None:
    client = start(root_path="/plumbline")
    assert client.post(path, json=GOOD).status_code == 200
    assert client.get("/plumbline").status_code == 200
    assert client.get("/plumbliner/livez").status_code == 404
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/plumbline"}]


class TestCors:
    APP = "https://app.example.com"

    def test_pages_of_the_named_origins_may_use_the_server(self, start: Start) -> None:
        client = start(cors_origins=(self.APP,))
        asked = {"origin": self.APP, "access-control-request-method": "POST"}
        allowed = client.options("/predict", headers=asked | {"access-control-request-headers": "content-type"})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == self.APP
        answer = client.post("/predict", json=GOOD, headers={"origin": self.APP})
        assert answer.status_code == 200
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        other = client.post("/predict", json=GOOD, headers={"origin": "https://other.example"})
        assert other.status_code == 403
        assert "access-control-allow-origin" not in other.headers

    def test_without_the_setting_there_is_none(self, client: TestClient) -> None:
        answer = client.get("/v2", headers={"origin": self.APP})
        assert "access-control-allow-origin" not in answer.headers

    @pytest.mark.parametrize("origin", ["app.example.com", "https://app.example.com/", "ftp://a"])
    def test_what_is_no_origin_is_refused(self, origin: str) -> None:
        with pytest.raises(SettingsError, match="PLUMBLINE_CORS_ORIGINS"):
            load_settings(ServiceSettings, cors_origins=origin)


def certificate(folder: Path, name: str, serial: int) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / f"{name}.crt", folder / f"{name}.key"
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return cert, secret


def test_it_listens_on_a_unix_socket(repo: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = plumbline("serve", "--repo", repo)
    with (
        running(command, PLUMBLINE_UNIX_SOCKET=str(path)),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client,
    ):
        until(path.exists)
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/predict", json=GOOD).json()[0]["label"] == "positive"
    with pytest.raises(SettingsError, match="PLUMBLINE_WORKERS"):
        load_settings(ServiceSettings, unix_socket=path, workers=2)


def test_a_new_certificate_is_used_without_a_restart(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.processes import free_port

    cert, key = certificate(tmp_path, "server", 1)
    port = free_port()

    def serial() -> int:
        return x509.load_pem_x509_certificate(ssl.get_server_certificate(("localhost", port)).encode()).serial_number

    def answers() -> bool:
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    command = plumbline("serve", "--repo", repo, "--port", str(port))
    trust = ssl.create_default_context(cafile=str(cert))
    with (
        running(command, log=tmp_path / "log.txt", PLUMBLINE_TLS_CERT=str(cert), PLUMBLINE_TLS_KEY=str(key)),
        httpx.Client(base_url=f"https://localhost:{port}", verify=trust, limits=KEPT) as client,
    ):
        until(answers)
        assert client.post("/predict", json=GOOD).json()[0]["label"] == "positive"
        assert serial() == 1
        cert.write_bytes(certificate(tmp_path, "other", 2)[0].read_bytes())  # half of a pair
        until(lambda: "cannot be used" in (tmp_path / "log.txt").read_text())
        assert serial() == 1
        key.write_bytes((tmp_path / "other.key").read_bytes())
        until(lambda: serial() == 2)
        assert client.post("/predict", json=GOOD).status_code == 200  # on the connection that it had


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("server.crt", None, "belong together"),
        ("server.crt", "none.key", "none.key"),
        ("server.key", "server.key", "cannot"),
    ],
)
def test_a_certificate_that_cannot_be_used_ends_the_start(
    tmp_path: Path, cert: str, key: str | None, said: str
) -> None:
    from service.http.tls import check_certificate

    certificate(tmp_path, "server", 1)
    with pytest.raises(SettingsError, match=said):
        check_certificate(
            load_settings(ServiceSettings, tls_cert=tmp_path / cert, tls_key=tmp_path / key if key else None)
        )
