"""Leftovers of dead engines are found by the ids in their environment, and only they."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from uuid import uuid4

import pytest

from tandem.adapters.local import leftovers
from tandem.domain.errors import EngineError
from tandem.domain.ids import AttemptId, EngineId


@pytest.fixture
def start(tmp_path, until):
    started = []

    async def start_process(script="", **env):
        flag = tmp_path / uuid4().hex
        text = f"trap '' TERM; {script} touch {flag}; sleep 1000; :"
        process = subprocess.Popen(
            ["sh", "-c", text],
            env={"PATH": os.environ["PATH"], **env},
            start_new_session=True,
        )
        started.append(process)
        await until(flag.exists)
        return process

    yield start_process
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def attempt():
    return AttemptId(f"run-{uuid4().hex}/node/1")


async def test_process_of_an_attempt_is_killed_with_its_descendants(start, tmp_path, alive):
    name = attempt()
    script = f"env -i sleep 1000 & echo $! > {tmp_path}/child;"
    process = await start(script, TANDEM_ATTEMPT_ID=name)
    child = int((tmp_path / "child").read_text())
    # The shell, its `sleep` and the child with no environment.
    assert await leftovers.end(engine_ids=(), attempt_ids=(name,)) == 3
    assert not alive(process.pid)
    assert not alive(child)


async def test_process_that_is_just_becoming_another_program_is_found(tmp_path, until, alive):
    """Between two programs a process has no environment to read, yet it carries its mark."""
    (tmp_path / "again.sh").write_text(f"touch {tmp_path}/on; exec sh {tmp_path}/again.sh")
    for _ in range(20):
        name = attempt()
        (tmp_path / "on").unlink(missing_ok=True)
        process = subprocess.Popen(
            ["sh", tmp_path / "again.sh"],
            env={"PATH": os.environ["PATH"], "TANDEM_ATTEMPT_ID": name},
        )
        try:
            await until((tmp_path / "on").exists)
            assert await leftovers.end(engine_ids=(), attempt_ids=(name,)) >= 1
            assert not alive(process.pid)
        finally:
            process.kill()
            process.wait()


async def test_process_without_an_environment_is_no_reason_to_look_again(until):
    process = subprocess.Popen(["/bin/sleep", "1000"], env={})
    try:
        await until(lambda: leftovers._environ(process.pid) == b"")
    finally:
        process.kill()
        process.wait()


async def test_process_of_an_engine_is_killed(start, alive):
    process = await start(TANDEM_ENGINE_ID="engine-dead")
    assert await leftovers.end(engine_ids=(EngineId("engine-dead"),), attempt_ids=()) == 2
    assert not alive(process.pid)


async def test_only_exact_variables_count(start, alive):
    name = attempt()
    others = [
        await start(TANDEM_ATTEMPT_ID=f"{name}0"),
        await start(X_TANDEM_ATTEMPT_ID=name),
        await start(TANDEM_ENGINE_ID=name),
        await start(NOTE=f"see TANDEM_ATTEMPT_ID={name}"),
    ]
    assert await leftovers.end(engine_ids=(), attempt_ids=(name,)) == 0
    assert all(alive(process.pid) for process in others)


async def test_this_process_and_its_ancestors_are_spared(tmp_path):
    """An engine that itself runs inside of an attempt does not end itself."""
    name = attempt()
    script = (
        "import asyncio; from tandem.adapters.local import leftovers;"
        f"print(asyncio.run(leftovers.end(engine_ids=(), attempt_ids=({name!r},))))"
    )
    env = {"PATH": os.environ["PATH"], "TANDEM_ATTEMPT_ID": name}
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f'{sys.executable} -c "$0"; :', script, env=env, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"0\n")


async def test_nothing_asked_kills_nothing():
    assert await leftovers.end(engine_ids=(), attempt_ids=()) == 0


async def test_process_that_cannot_be_killed_is_named(start, monkeypatch):
    name = attempt()
    process = await start(TANDEM_ATTEMPT_ID=name)
    monkeypatch.setattr(leftovers, "WAIT_S", 0.01)
    monkeypatch.setattr(leftovers.os, "kill", lambda *_: None)
    with pytest.raises(EngineError, match=str(process.pid)):
        await leftovers.end(engine_ids=(), attempt_ids=(name,), timeout_s=0.05)
    monkeypatch.undo()


async def test_takeover_ends_what_a_frozen_supervisor_still_holds(
    bench, plain, until, living, executor
):
    """The engine is dead for its peers while its processes are stopped, not dead."""
    spec = bench.shell("touch on; kill -STOP $$; sleep 1000")
    task = asyncio.create_task(plain.run(spec, bench.progress))
    await until((bench.workspace / "on").exists)
    count = await executor.end_leftovers(engine_ids=(bench.engine_id,), attempt_ids=())
    assert count >= 2
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")
    assert (await task).failure_class == "execution_error"
