"""Where weights come from: the entry's folder, the local folder, mirrors that fail in every way."""

import dataclasses
import hashlib
import http.server
import re
import threading

import pytest

from larq_ext_zoo import _store, registry
from larq_ext_zoo._entry import Entry, WeightsFile
from larq_ext_zoo._weights_file import WeightsError

CONTENT = bytes(range(256)) * 2000  # half a megabyte
FILE = "some.safetensors"
FETCHED = f"{hashlib.sha256(CONTENT).hexdigest()[:8]}-{FILE}"


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`; what goes wrong is in `server.fault`."""

    protocol_version = "HTTP/1.0"

    def log_message(self, *_):
        pass

    def do_GET(self):  # the name is http.server's
        server, content = self.server, self.server.content
        fault = server.faults.pop(0) if server.faults else None
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        server.requests.append((self.path, asked and int(asked[1])))
        if fault == "missing":
            return self.send_error(404)
        if fault == "no ranges":
            asked = None
        start = int(asked[1]) if asked else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        data = content[start:]
        # Leaves in the middle, as if somebody had pulled the plug.
        self.wfile.write(data[: len(data) // 2] if fault == "cut off" else data)


@pytest.fixture
def mirrors():
    """A function that starts a mirror with these faults, one a request."""
    servers = []

    def start(*faults, content=CONTENT):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
        server.content, server.faults, server.requests = content, list(faults), []
        server.address = f"http://127.0.0.1:{server.server_port}/some/folder/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def model():
    """A function that makes an entry whose file is at these mirrors."""

    def make(*servers, folder=None):
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        addresses = [getattr(server, "address", server) for server in servers]
        file = WeightsFile(FILE, sha256, len(CONTENT), mirrors=addresses)
        return Entry(
            name="net.test",
            network=registry.NETWORKS["DigitsNet"],
            arguments={},
            description="test",
            input_size=(8, 8, 1),
            recipe_class="one-step",
            recipe={"experiment": "Test"},
            weights={"deployable": file},
            folder=folder,
        )

    return make


@pytest.fixture
def local(own_home):
    return own_home / "weights"


def left(local):
    return sorted(path.name for path in local.iterdir())


def test_a_download_is_whole_and_made_once(mirrors, model, local):
    server = mirrors()
    path = _store.find(model(server), "deployable")
    assert path == local / FETCHED
    assert path.read_bytes() == CONTENT
    assert _store.find(model(server), "deployable") == path
    assert server.requests == [(f"/some/folder/{FILE}", None)]
    assert left(local) == [FETCHED]


def test_a_connection_that_drops_is_taken_up_again(mirrors, model, local):
    server = mirrors("cut off", "cut off")
    assert _store.find(model(server), "deployable").read_bytes() == CONTENT
    starts = [start for _, start in server.requests]
    assert starts == [None, len(CONTENT) // 2, len(CONTENT) * 3 // 4]


def test_a_partial_download_of_an_earlier_process_goes_on(mirrors, model, local):
    server = mirrors("cut off", "cut off", "cut off")
    with pytest.raises(FileNotFoundError, match="the connection was cut off"):
        _store.find(model(server), "deployable")
    (part,) = left(local)
    assert part.endswith(".part")
    assert _store.find(model(server), "deployable").read_bytes() == CONTENT
    assert server.requests[-1][1] == len(CONTENT) * 7 // 8
    assert left(local) == [FETCHED]


def test_a_server_without_ranges_sends_all_again(mirrors, model, local):
    server = mirrors("cut off", "no ranges")
    assert _store.find(model(server), "deployable").read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_the_next_mirror_serves_where_one_does_not(mirrors, model, local):
    missing, wrong, good = mirrors("missing"), mirrors(content=CONTENT[::-1]), mirrors()
    path = _store.find(model("http://127.0.0.1:9", missing, wrong, good), "deployable")
    assert path.read_bytes() == CONTENT
    assert len(missing.requests) == 1, "404 is not asked again"
    assert len(wrong.requests) == 1
    assert left(local) == [FETCHED]


def test_half_of_one_mirror_and_half_of_another(mirrors, model, local):
    """What the first left behind is wrong, so the second has to give all of it."""
    first = mirrors("cut off", "missing", content=CONTENT[::-1])
    second = mirrors()
    assert _store.find(model(first, second), "deployable").read_bytes() == CONTENT
    assert [start for _, start in second.requests] == [len(CONTENT) // 2, None]


def test_a_longer_file_is_not_taken(mirrors, model, local):
    with pytest.raises(FileNotFoundError, match="wrong SHA-256"):
        _store.find(model(mirrors(content=CONTENT + b"more")), "deployable")
    assert left(local) == []


def test_offline_the_error_says_where_to_put_the_file(model, local):
    with pytest.raises(FileNotFoundError) as failure:
        _store.find(model("http://127.0.0.1:9"), "deployable")
    message = str(failure.value)
    assert "net.test" in message and "127.0.0.1:9" in message and "refused" in message
    assert f"put the file {FILE} (512000 bytes, SHA-256 " in message
    assert message.endswith(f"into {local}.")
    (local / FILE).write_bytes(CONTENT)
    assert _store.find(model("http://127.0.0.1:9"), "deployable") == local / FILE
    with pytest.raises(FileNotFoundError, match="names no place"):
        (local / FILE).unlink()
        _store.find(model(), "deployable")


def test_the_folder_of_the_entry_comes_first(model, local, tmp_path):
    local.mkdir(parents=True)
    (local / FILE).write_bytes(CONTENT)
    (tmp_path / FILE).write_bytes(CONTENT)
    assert _store.find(model(folder=tmp_path), "deployable") == tmp_path / FILE
    (tmp_path / FILE).unlink()
    assert _store.find(model(folder=tmp_path), "deployable") == local / FILE


@pytest.mark.parametrize(
    ("content", "message"),
    [(CONTENT[:-1], "is truncated: it has 511999 bytes of 512000"), (CONTENT[::-1], "was altered")],
)
def test_a_damaged_file_is_not_used(model, local, content, message):
    local.mkdir(parents=True)
    (local / FILE).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{message}.*Delete it, and it is fetched again"):
        _store.find(model("https://example.org"), "deployable")
    with pytest.raises(WeightsError, match=f"{message}.*install larq-ext again"):
        _store.find(model(), "deployable")


def test_a_form_that_does_not_exist(model, local):
    with pytest.raises(FileNotFoundError, match=r"'training', only \['deployable'\]"):
        _store.find(model(), "training")


def test_another_process_was_faster(mirrors, model, local, monkeypatch):
    """It gave the file its name between our last byte and our rename."""
    entry = model(mirrors())
    from_mirror = _store._from_mirror

    def slow(address, file, part, advance):
        failure = from_mirror(address, file, part, advance)
        part.replace(local / FETCHED)
        return failure

    monkeypatch.setattr(_store, "_from_mirror", slow)
    assert _store.find(entry, "deployable").read_bytes() == CONTENT


def test_an_entry_that_is_published_again_has_another_file(mirrors, model, local):
    first = _store.find(model(mirrors()), "deployable")
    content = CONTENT[::-1]
    file = WeightsFile(
        FILE,
        hashlib.sha256(content).hexdigest(),
        len(content),
        mirrors=[mirrors(content=content).address],
    )
    again = dataclasses.replace(model(), weights={"deployable": file})
    assert _store.find(again, "deployable").read_bytes() == content
    assert first.read_bytes() == CONTENT


def test_a_second_process_does_not_cut_the_first_ones_file_short(mirrors, model, local):
    """It saw no file when it began, and the first has written a part since."""
    local.mkdir(parents=True)
    part = local / "x.part"
    part.write_bytes(CONTENT[:1000])
    server = mirrors("no ranges")
    seen = []
    _store._fetch(
        f"{server.address}{FILE}", len(CONTENT), part, lambda _: seen.append(part.stat().st_size)
    )
    assert min(seen) >= 1000
    assert part.read_bytes() == CONTENT


def test_the_local_folder_is_in_the_home_unless_told(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LARQ_EXT_HOME")
    assert _store.home() == tmp_path / ".larq_ext"
    monkeypatch.setenv("LARQ_EXT_HOME", "~/elsewhere")
    assert _store.home() == tmp_path / "elsewhere"


def test_addresses_are_web_addresses(model):
    with pytest.raises(ValueError, match="`mirrors` is a list of http"):
        dataclasses.replace(model().weights["deployable"], mirrors=["file:///etc"])
