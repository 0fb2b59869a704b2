"""What only concerns a server: who asks, what goes wrong on the way, following over a restart."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adapters.cli.conftest import Call, Start, sh
from tests.adapters.cli.served import TOKEN, Served
from tests.adapters.cli.test_cli_terminal import Terminal

Write = Callable[[str, str], str]

SHORT = f"automation_id: short\nnodes:\n  - {{node_id: a, action: {sh('printf hi')}}}\n"
GATED = (
    "automation_id: gated\nnodes:\n"
    "  - {node_id: g, objective: Ship it?, gate: {required: true}}\n"
    f"  - {{node_id: b, depends_on: [g], action: {sh('printf end')}}}\n"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("served"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def known(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The server, by the environment."""
    monkeypatch.setenv("TANDEM_URL", served.url)
    monkeypatch.setenv("TANDEM_TOKEN", TOKEN)
    return served


def login(start: Start, url: str, token: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Log in with a token on standard input."""
    import sys

    return subprocess.run(
        [sys.executable, "-m", "tandem", "login", url, *options],
        input=f"{token}\n",
        capture_output=True,
        text=True,
        timeout=30,
    )


# Who asks


def test_without_a_token_a_server_says_how_to_log_in(call: Call, served: Served) -> None:
    answer = call("runs", "list", "--url", served.url, "--json")
    error = json.loads(answer.err)["error"]
    assert (answer.code, error["code"]) == (5, "auth_required")
    assert f"tandem login {served.url}" in error["message"]
    wrong = call("runs", "list", "--url", served.url, "--token", "tk-wrong")
    assert wrong.code == 5
    assert "tk-wrong" not in wrong.out + wrong.err


def test_a_token_on_the_command_line_is_warned_of_and_a_file_is_not(
    call: Call, served: Served, write: Write
) -> None:
    shown = call("runs", "list", "--url", served.url, "--token", TOKEN)
    assert shown.code == 0
    assert "can be read by everybody on this machine" in shown.err
    quiet = call("runs", "list", "--url", served.url, "--token", "@" + write("token", TOKEN))
    assert (quiet.code, "read by everybody" in quiet.err) == (0, False)


def test_the_option_comes_before_the_environment_and_that_before_the_login(
    call: Call, known: Served, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("runs", "list").code == 0
    assert call("runs", "list", "--url", "http://127.0.0.1:1").code == 6
    assert call("runs", "list", "--token", "wrong").code == 5
    monkeypatch.delenv("TANDEM_TOKEN")
    assert call("runs", "list").code == 5
    assert login(start, known.url, TOKEN).returncode == 0
    assert call("runs", "list").code == 0
    monkeypatch.setenv("TANDEM_TOKEN", "wrong")
    assert call("runs", "list").code == 5


def test_a_token_without_a_server_is_a_mistake(call: Call) -> None:
    assert call("runs", "list", "--token", "x").code == 2


def test_a_login_is_a_file_that_nobody_else_can_read(
    call: Call, served: Served, start: Start, state_dir: Path
) -> None:
    done = login(start, served.url + "/", TOKEN)
    assert done.stdout == f"logged in to {served.url}\n"
    assert TOKEN not in done.stdout + done.stderr
    file = state_dir / "login" / "logins.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert list(file.parent.iterdir()) == [file]
    assert call("runs", "list", "--url", served.url).code == 0
    file.chmod(0o644)
    refused = call("runs", "list", "--url", served.url)
    assert refused.code == 5
    assert f"chmod 600 {file}" in refused.err
    file.chmod(0o600)
    file.parent.chmod(0o750)
    assert f"chmod 700 {file.parent}" in call("runs", "list", "--url", served.url).err
    file.parent.chmod(0o700)
    assert call("logout", served.url).out == f"logged out of {served.url}\n"
    assert call("runs", "list", "--url", served.url).code == 5
    assert "nothing to forget" in call("logout", "--all").err


def test_a_file_of_logins_that_is_a_link_or_damaged_is_refused(
    call: Call, served: Served, start: Start, state_dir: Path, tmp_path: Path
) -> None:
    assert login(start, served.url, TOKEN).returncode == 0
    file = state_dir / "login" / "logins.json"
    file.write_text("{")
    assert "is damaged" in call("runs", "list", "--url", served.url).err
    other = tmp_path / "other.json"
    file.rename(other)
    file.symlink_to(other)
    assert call("runs", "list", "--url", served.url).code == 5


def test_a_wrong_token_is_not_kept(served: Served, start: Start, state_dir: Path) -> None:
    done = login(start, served.url, "tk-wrong")
    assert done.returncode == 5
    assert not (state_dir / "login").exists()
    assert login(start, served.url, "").returncode == 2


def test_a_token_is_not_sent_over_a_network_as_plain_text(call: Call, start: Start) -> None:
    url = "http://tandem.example.invalid"
    for words in (["--token", "secret"], ["--token", "secret", "--json"]):
        answer = call("runs", "list", "--url", url, *words)
        assert answer.code == 2
        assert "as plain text" in answer.err
    assert login(start, url, "secret").returncode == 2
    assert call("runs", "list", "--url", url, "--token", "secret", "--insecure").code == 6


def test_a_scope_that_is_missing_is_named(
    call: Call, served: Served, monkeypatch: pytest.MonkeyPatch, write: Write, state_dir: Path
) -> None:
    monkeypatch.setenv("TANDEM_STATE_DIR", str(served.state_dir))
    made = call("tokens", "create", "--name", "look", "--scope", "viewer", "--json").json
    monkeypatch.setenv("TANDEM_STATE_DIR", str(state_dir))
    monkeypatch.setenv("TANDEM_TOKEN", made["secret"])
    assert call("runs", "list", "--url", served.url).code == 0
    file = write("short.yaml", SHORT)
    refused = call("automations", "apply", file, "--url", served.url)
    assert refused.code == 5
    assert "editor" in refused.err


# What goes wrong on the way


def test_a_url_that_is_none_is_a_mistake(call: Call) -> None:
    for url in ("127.0.0.1:39731", "ftp://x", "http://", "http://u:p@x", "http://x?a=b"):
        answer = call("runs", "list", "--url", url)
        assert answer.code == 2, url
        assert "u:p" not in answer.err


def test_nobody_at_the_address_is_told_in_a_sentence(call: Call) -> None:
    answer = call("runs", "show", "latest", "--url", "http://127.0.0.1:1")
    assert answer.code == 6
    assert answer.err.startswith("error: nobody answers at http://127.0.0.1:1")
    assert "is `tandem serve` running there?" in answer.err


def test_somebody_else_at_the_address_is_told_apart(call: Call) -> None:
    with _Stranger(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno") as url:
        answer = call("runs", "list", "--url", url)
        assert answer.code == 5
        assert "no Tandem server of this version" in answer.err
    with _Stranger(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno") as url:
        assert call("runs", "list", "--url", url).code == 6
    with _Stranger(b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n") as url:
        assert call("runs", "list", "--url", url).code == 5
    with _Stranger(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as url:
        assert call("gates", "list", "--url", url).code == 5


def test_commands_that_drive_here_say_what_to_write_instead(call: Call, write: Write) -> None:
    answer = call("run", write("short.yaml", SHORT), "--url", "http://127.0.0.1:1")
    assert answer.code == 2
    assert "tandem automations apply FILE" in answer.err
    for words in (["doctor"], ["db", "check"]):
        assert call(*words, "--url", "http://127.0.0.1:1").code == 2


def test_options_that_only_the_store_here_has_are_refused(
    call: Call, known: Served, write: Write
) -> None:
    assert call("automations", "apply", write("short.yaml", SHORT)).code == 0
    for words in (
        ["automations", "run", "short", "--version", "1"],
        ["automations", "run", "short", "--workspace", "."],
        ["runs", "cancel", "--all", "--cursor", "5"],
    ):
        assert call(*words).code == 2, words


def test_next_commands_name_the_server_when_it_was_named(
    call: Call, served: Served, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    monkeypatch.setenv("TANDEM_TOKEN", TOKEN)
    call("automations", "apply", write("gated.yaml", GATED), "--url", served.url)
    ran = call("automations", "run", "gated", "--url", served.url)
    assert ran.code == 9
    assert f"approve --node g --url {served.url}" in ran.out


def test_a_run_whose_answer_was_lost_is_started_once(
    call: Call, known: Served, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    automation = SHORT.replace("short", "once")
    assert call("automations", "apply", write("once.yaml", automation)).code == 0
    with _Lossy(known.url) as url:
        monkeypatch.setenv("TANDEM_URL", url)
        answer = call("automations", "run", "once", "--detach")
    assert answer.code == 0, answer.err
    monkeypatch.setenv("TANDEM_URL", known.url)
    runs = call("runs", "list", "--automation", "once", "--json").json
    assert [run["run_id"] for run in runs] == [answer.out.strip()]


# Following


def test_a_watch_goes_on_after_the_server_was_killed(
    tmp_path: Path,
    start: Start,
    call: Call,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    lines_until: Callable[["subprocess.Popen[str]", str], list[str]],
) -> None:
    server = Served(tmp_path / "own")
    server.start()
    try:
        monkeypatch.setenv("TANDEM_URL", server.url)
        monkeypatch.setenv("TANDEM_TOKEN", TOKEN)
        assert call("automations", "apply", write("gated.yaml", GATED)).code == 0
        run = call("automations", "run", "gated", "--detach").out.strip()
        watching = start("runs", "watch", run, "--json")
        seen = lines_until(watching, "gate.opened")
        server.kill()
        server.start()
        assert call("gates", "decide", run, "approve").code == 0
        assert watching.stdout is not None
        assert watching.stderr is not None
        # Not by `communicate`, which leaves out what was read ahead.
        events = [json.loads(line) for line in (*seen, *watching.stdout)]
        err = watching.stderr.read()
        assert watching.wait(60) == 0, err
        told = [(event["envelope"]["seq"], event["type"]) for event in events]
        again = call("runs", "watch", run, "--json").lines
        assert told == [(event["envelope"]["seq"], event["type"]) for event in again]
        assert sorted(set(told)) == told
        assert told[-1][1] == "automation.v2.run.completed"
        # Cut off in the middle of a question, not of the stream, it only asks again.
        assert not err or "connecting again" in err
    finally:
        server.stop()


def test_following_a_run_goes_on_after_the_server_was_killed(
    tmp_path: Path,
    start: Start,
    call: Call,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    lines_until: Callable[["subprocess.Popen[str]", str], list[str]],
) -> None:
    server = Served(tmp_path / "own")
    server.start()
    try:
        monkeypatch.setenv("TANDEM_URL", server.url)
        monkeypatch.setenv("TANDEM_TOKEN", TOKEN)
        go = server.work / "go"
        waits = sh(f"until test -e {go}; do sleep 0.05; done; echo done")
        held = f"automation_id: held\nnodes:\n  - {{node_id: a, action: {waits}}}\n"
        assert call("automations", "apply", write("held.yaml", held)).code == 0
        following = start("automations", "run", "held", "--json")
        seen = lines_until(following, "node_started")
        server.kill()
        server.start()
        go.touch()
        assert following.stdout is not None
        lines = [json.loads(line) for line in (*seen, *following.stdout)]
        assert following.wait(60) == 0
        seqs = [line["seq"] for line in lines if line["type"] == "event"]
        assert seqs == list(range(1, len(seqs) + 1))
        assert (lines[-1]["status"], lines[-1]["outputs"]) == ("completed", {"a": "done\n"})
    finally:
        server.stop()


def test_whoever_stops_following_leaves_the_run_alone(
    start: Start,
    call: Call,
    known: Served,
    write: Write,
    lines_until: Callable[["subprocess.Popen[str]", str], list[str]],
) -> None:
    import signal

    slow = f"automation_id: slow\nnodes:\n  - {{node_id: a, action: {sh('sleep 60')}}}\n"
    assert call("automations", "apply", write("slow.yaml", slow)).code == 0
    following = start("automations", "run", "slow")
    lines_until(following, "node_started")
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=30)
    assert following.returncode == 130
    assert "the run goes on" in err
    row = call("runs", "list", "--automation", "slow", "--json").json[0]
    assert row["status"] == "running"
    assert call("runs", "cancel", row["run_id"]).code == 0


def test_a_gate_of_the_server_is_decided_at_the_terminal_here(
    call: Call, known: Served, write: Write
) -> None:
    asked = GATED.replace("gated", "asked")
    assert call("automations", "apply", write("asked.yaml", asked)).code == 0
    terminal = Terminal("automations", "run", "asked")
    try:
        terminal.until("approve, rework, cancel (and why) > ")
        terminal.type("app looks right\r")
        terminal.until("completed in")
        assert terminal.wait() == 0
        assert terminal.echoes()
    finally:
        terminal.close()
    history = call("gates", "show", "latest", "--json").json["gate_history"]
    assert [(each["decision"], each["reason"]) for each in history] == [("approve", "looks right")]


def test_a_token_that_is_typed_is_not_shown(served: Served, state_dir: Path) -> None:
    terminal = Terminal("login", served.url)
    try:
        terminal.until("Token: ")
        terminal.type(f"{TOKEN}\r")
        assert TOKEN not in terminal.until("logged in to")
        assert terminal.wait() == 0
    finally:
        terminal.close()


class _Stranger:
    """Gives every request the same answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(self._answer)


class _Lossy(_Stranger):
    """Passes requests on to a server, and loses the answer to the first POST."""

    def __init__(self, url: str) -> None:
        super().__init__(b"")
        self._port = int(url.rpartition(":")[2])
        self._has_lost = False

    def _talk(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65_536)
        head, _, body = request.partition(b"\r\n\r\n")
        length = next(
            (
                int(line[15:])
                for line in head.lower().split(b"\r\n")
                if line[:15] == b"content-length:"
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(65_536)
        head = head.replace(b"Connection: keep-alive", b"Connection: close")
        with socket.create_connection(("127.0.0.1", self._port)) as onward:
            onward.sendall(head + b"\r\n\r\n" + body)
            answer = b""
            while part := onward.recv(65_536):
                answer += part
        if head.startswith(b"POST") and not self._has_lost:
            self._has_lost = True
            return
        connection.sendall(answer)
