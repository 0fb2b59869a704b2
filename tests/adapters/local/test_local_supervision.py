"""Nothing survives: not a cancel, not a normal end, not the death of the engine."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.adapters.local.executor import LocalExecutor
from tandem.adapters.local.process import Program, Signalled
from tandem.adapters.local.spawner import Spawner
from tandem.domain.outcome import Failed, Succeeded

DAEMON = """
import os, sys, time
if os.fork():
    os.waitpid(-1, 0)
    open(sys.argv[1] + ".parent", "w").close()
    if sys.argv[2] == "stay":
        time.sleep(1000)
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(1000)
"""
"""Forks twice into a session of its own and writes its pid."""


def daemon(bench, end):
    (bench.workspace / "daemon.py").write_text(DAEMON)
    return bench.command(sys.executable, "daemon.py", "pid", end)


async def test_daemon_is_killed_when_the_command_exits(bench, executor, run, living):
    spec = daemon(bench, "exit")
    outcome = await run(executor, spec)
    assert isinstance(outcome, Succeeded)
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")


async def test_daemon_is_killed_with_a_cancelled_command(bench, executor, until, living):
    spec = daemon(bench, "stay")
    task = asyncio.create_task(executor.run(spec, bench.progress))
    await until((bench.workspace / "pid").exists)
    await until(lambda: len(living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")


async def test_daemon_with_a_cleared_environment_is_killed_too(bench, plain, run, until, alive):
    script = "env -i setsid sh -c 'echo $$ > pid; exec sleep 1000' & while [ ! -s pid ]; do :; done"
    await run(plain, bench.shell(script))
    assert not alive(int((bench.workspace / "pid").read_text()))


async def test_command_that_ignores_sigterm_and_forks_is_killed(bench, executor, until, living):
    script = "trap '' TERM INT HUP; (sleep 1000) & (trap '' TERM; sleep 1000) & touch on; wait"
    spec = bench.shell(script)
    task = asyncio.create_task(executor.run(spec, bench.progress))
    await until((bench.workspace / "on").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")


async def test_cancelling_twice_still_waits_for_the_end(bench, executor, until, living):
    spec = bench.shell("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; touch on; wait")
    task = asyncio.create_task(executor.run(spec, bench.progress))
    await until((bench.workspace / "on").exists)
    task.cancel()
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")


async def test_graceful_stop_lets_the_command_clean_up(bench, until, isolation):
    script = "trap 'echo bye > bye; exit 0' TERM; touch on; while :; do sleep 0.01; done"
    async with LocalExecutor(isolation=isolation, stop_grace_ms=8000) as executor:
        task = asyncio.create_task(executor.run(bench.shell(script), bench.progress))
        await until((bench.workspace / "on").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (bench.workspace / "bye").read_text() == "bye\n"


async def test_graceful_stop_waits_for_children_of_an_ended_command(bench, until, isolation):
    child = "trap 'sleep 0.2; echo bye > bye; exit' TERM; touch on; while :; do sleep 0.01; done"
    (bench.workspace / "child.sh").write_text(child)
    async with LocalExecutor(isolation=isolation, stop_grace_ms=8000) as executor:
        spec = bench.shell("sh child.sh & wait")
        task = asyncio.create_task(executor.run(spec, bench.progress))
        await until((bench.workspace / "on").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (bench.workspace / "bye").read_text() == "bye\n"


@pytest.fixture
async def spawner(isolation):
    async with Spawner(isolation) as found:
        yield found


@pytest.fixture
async def sleep(spawner):
    """Start a program that ends only when it is told to; its helper is at work already."""
    program = Program(argv=["sleep", "1000"], env={"PATH": os.environ["PATH"]}, cwd="/")

    async def start():
        with open(os.devnull, "w") as null:
            fds = {"stdout": null.fileno(), "stderr": null.fileno()}
            return await spawner.start(program, engine_id="engine-1", **fds)

    await (await start()).end()
    return start


async def test_stop_that_comes_along_with_the_request_is_heeded(spawner, sleep):
    """The supervisor reads both at once when it is slow to come."""
    helper = spawner._helper.pid
    os.kill(helper, signal.SIGSTOP)
    process = await sleep()
    process.stop(60_000)
    os.kill(helper, signal.SIGCONT)
    async with asyncio.timeout(20):
        assert await process.wait() == Signalled(signal.SIGTERM)


async def test_stop_is_heeded_at_every_moment_of_a_start(sleep):
    for tenths_ms in range(60):
        process = await sleep()
        await asyncio.sleep(tenths_ms / 10_000)
        process.stop(60_000)
        async with asyncio.timeout(20):
            assert await process.wait() == Signalled(signal.SIGTERM)


async def test_grace_time_ends_with_a_kill(bench, until, living, isolation):
    spec = bench.shell("trap '' TERM; touch on; while :; do sleep 1; done")
    async with LocalExecutor(isolation=isolation, stop_grace_ms=100) as executor:
        task = asyncio.create_task(executor.run(spec, bench.progress))
        await until((bench.workspace / "on").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")


async def test_a_hundred_cancelled_commands_that_fork_leave_nothing(bench, plain, until, living):
    script = "(setsid sleep 1000 &) ; sleep 1000 & touch on.$TANDEM_EPOCH; wait"
    specs = [bench.shell(script, epoch=number) for number in range(100)]
    fds = len(os.listdir("/proc/self/fd"))
    tasks = [asyncio.create_task(plain.run(spec, bench.progress)) for spec in specs]
    await until(lambda: len(list(bench.workspace.glob("on.*"))) > 60)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    ids = {f"TANDEM_ATTEMPT_ID={spec.attempt_id}" for spec in specs}
    assert not list(_environs(ids))
    assert len(os.listdir("/proc/self/fd")) <= fds + 1  # the socket of the helper


def _environs(marks):
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if not marks.isdisjoint(environ.split("\0")):
                yield int(name)


async def test_cancel_before_the_command_started_starts_nothing(bench, plain, living):
    spec = bench.shell("touch started; sleep 1000")
    task = asyncio.create_task(plain.run(spec, bench.progress))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")


async def start_engine(bench, isolation, kind, body):
    script = Path(__file__).with_name("engine_process.py")
    return subprocess.Popen(
        [sys.executable, script, isolation, bench.engine_id, bench.workspace, kind, body],
        stdout=subprocess.PIPE,
    )


async def test_everything_dies_with_a_killed_engine(bench, until, living, isolation):
    (bench.workspace / "daemon.py").write_text(DAEMON)
    body = f"trap '' TERM; {sys.executable} daemon.py pid exit; touch on; sleep 1000"
    engine = await start_engine(bench, isolation, "command", body)
    with engine:
        await until((bench.workspace / "on").exists)
        mark = f"TANDEM_ENGINE_ID={bench.engine_id}"
        await until(lambda: len(living(mark)) >= 4, "helper, supervisor, shell, daemon")
        engine.send_signal(signal.SIGKILL)
        await until(lambda: not living(mark), "everything of the engine is gone")


async def test_worker_processes_die_with_a_killed_engine(bench, until, living):
    bench.module(
        "tasks",
        "import subprocess, pathlib\n"
        "def forever():\n"
        "    subprocess.Popen(['setsid', 'sleep', '1000'])\n"
        "    pathlib.Path('on').touch()\n"
        "    while True: pass\n",
    )
    engine = await start_engine(bench, "subreaper", "python", "tasks:forever")
    with engine:
        await until((bench.workspace / "on").exists)
        engine.send_signal(signal.SIGKILL)
        mark = f"TANDEM_ENGINE_ID={bench.engine_id}"
        await until(lambda: not living(mark), "everything of the engine is gone")


async def test_terminal_interrupt_of_the_engine_does_not_reach_the_command(bench, plain, run):
    outcome = await run(plain, bench.shell("ps -o sid= -p $$; echo $$"))
    session, pid = outcome.output.split()
    assert session == pid
    assert int(session) != os.getsid(0)


def supervisors_of(bench):
    """Return the supervisors (not the helper) of the bench's engine."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environ = Path(f"/proc/{name}/environ").read_bytes()
            command = Path(f"/proc/{name}/cmdline").read_bytes()
            parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        is_ours = f"TANDEM_ENGINE_ID={bench.engine_id}\0".encode() in environ
        if is_ours and b"supervisor.py" in command and parent != os.getpid():
            found.append(int(name))
    return found


async def test_killed_supervisor_is_a_failure_that_leaves_nothing(bench, plain, until, living):
    (bench.workspace / "daemon.py").write_text(DAEMON)
    spec = bench.shell(f"{sys.executable} daemon.py pid exit; touch on; sleep 1000")
    task = asyncio.create_task(plain.run(spec, bench.progress))
    await until((bench.workspace / "on").exists)
    (supervisor,) = supervisors_of(bench)
    os.kill(supervisor, signal.SIGKILL)
    outcome = await task
    assert isinstance(outcome, Failed)
    assert "supervisor" in outcome.message
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")


async def test_killed_supervisor_leaves_not_even_a_daemon_without_environment(
    bench, plain, until, alive
):
    spec = bench.shell(
        "env -i setsid sh -c 'echo $$ > pid; exec sleep 1000' & "
        "while [ ! -s pid ]; do :; done; touch on; sleep 1000"
    )
    task = asyncio.create_task(plain.run(spec, bench.progress))
    await until((bench.workspace / "on").exists)
    (supervisor,) = supervisors_of(bench)
    os.kill(supervisor, signal.SIGKILL)
    await task
    pid = int((bench.workspace / "pid").read_text())
    await until(lambda: not alive(pid), "the helper killed the stray daemon")


async def test_killed_helper_is_replaced(bench, plain, run, until, living):
    await run(plain, bench.command("true"))
    mark = f"TANDEM_ENGINE_ID={bench.engine_id}"
    await until(lambda: len(living(mark)) == 1, "only the helper is left")
    (helper,) = living(mark)
    os.kill(helper, signal.SIGKILL)
    await until(lambda: helper not in living(f"TANDEM_ENGINE_ID={bench.engine_id}"))
    assert isinstance(await run(plain, bench.command("true")), Succeeded)


async def test_leaving_ends_the_helper(bench, run, living):
    async with LocalExecutor() as executor:
        await run(executor, bench.command("true"))
        assert living(f"TANDEM_ENGINE_ID={bench.engine_id}")
    assert not living(f"TANDEM_ENGINE_ID={bench.engine_id}")
    await executor.close()  # twice is harmless


async def test_pid_namespace_hides_other_processes_but_keeps_mounts_shared(
    bench, run, host_can_isolate
):
    if not host_can_isolate:
        pytest.skip("PID namespaces need root with CAP_SYS_ADMIN")
    async with LocalExecutor(isolation="pid_namespace") as executor:
        outcome = await run(executor, bench.shell("ls -d /proc/[0-9]* | wc -l; cat /proc/mounts"))
    count, *mounts = outcome.output.splitlines()
    assert int(count) <= 4
    seen = {line.split()[1] for line in mounts}
    here = {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()}
    assert seen == here


async def test_leaving_kills_programs_that_still_run(bench, until, living):
    async with LocalExecutor() as executor:
        task = asyncio.create_task(
            executor.run(bench.shell("touch on; sleep 1000"), bench.progress)
        )
        await until((bench.workspace / "on").exists)
    assert not living(f"TANDEM_ENGINE_ID={bench.engine_id}")
    assert (await task).message.startswith("ended by signal 9")


async def test_isolation_can_be_forbidden_and_is_decided_once(bench, host_can_isolate):
    async with LocalExecutor(isolation="subreaper") as executor:
        assert await executor._spawner.isolates(bench.engine_id) is False
    async with LocalExecutor(isolation="auto") as executor:
        assert await executor._spawner.isolates(bench.engine_id) is host_can_isolate
