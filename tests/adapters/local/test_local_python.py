"""Python functions: in worker processes and in this process."""

import asyncio
import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest

from tandem.adapters.local.executor import LocalExecutor
from tandem.domain.outcome import Failed, FailureClass, Succeeded

TASKS = """
import asyncio, dataclasses, os, subprocess, sys, threading, time, ctypes, pathlib

@dataclasses.dataclass
class Point:
    x: int
    y: int

def add(a, b=1):
    return a + b

async def slow_add(a, b):
    await asyncio.sleep(0)
    return {"sum": a + b}

def point():
    return Point(1, 2)

def who(context):
    return [context.run_id, context.node_id, context.attempt, context.idempotency_key,
            context.inputs, context.repair, context.workspace, context.scratch]

def surroundings():
    return {"pid": os.getpid(), "cwd": os.getcwd(), "env": dict(os.environ),
            "path": sys.path[:2]}

def pid():
    return os.getpid()

def prints():
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.write(1, b"raw\\n")
    return "printed"

def fails(text):
    deeper(text)

def deeper(text):
    raise ValueError(text)

def exits():
    sys.exit("enough")

def dies():
    print("last words", file=sys.stderr, flush=True)
    os._exit(7)

def crashes():
    ctypes.string_at(0)

def opaque():
    return object()

def large():
    return "x" * 5000

def changes_the_world():
    os.environ["LEFT"] = "behind"
    os.chdir("/")

def leaves_a_process():
    subprocess.Popen(["setsid", "sleep", "1000"])
    return os.getpid()

def leaves_a_daemon():
    subprocess.run(["sh", "-c", "(setsid sleep 1000 &)"])
    return os.getpid()

def leaves_a_thread():
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return os.getpid()

def forever():
    subprocess.Popen(["setsid", "sleep", "1000"])
    pathlib.Path("on").write_text(str(os.getpid()))
    while True:
        pass
"""


@pytest.fixture
def tasks(bench):
    bench.module("tasks", TASKS)
    return bench


async def test_arguments_go_in_and_the_result_comes_out(tasks, executor, run):
    outcome = await run(executor, tasks.python("tasks:add", arguments={"a": 2, "b": 3}))
    assert outcome == Succeeded(output=5)


async def test_async_functions_and_dataclasses(tasks, plain, run):
    summed = await run(plain, tasks.python("tasks:slow_add", arguments={"a": 2, "b": 3}))
    assert summed.output == {"sum": 5}
    assert (await run(plain, tasks.python("tasks:point"))).output == {"x": 1, "y": 2}


async def test_context_is_passed_to_who_asks_for_it(tasks, plain, run):
    spec = tasks.python("tasks:who", inputs={"up": [1]}, repair=("why",))
    assert (await run(plain, spec)).output == [
        spec.run_id,
        "node",
        1,
        spec.idempotency_key,
        {"up": [1]},
        ["why"],
        spec.workspace,
        spec.scratch,
    ]


async def test_worker_runs_in_the_workspace_with_the_environment_of_the_attempt(
    tasks, plain, run, monkeypatch
):
    monkeypatch.setenv("SECRET", "s")
    (tasks.workspace / "lib").mkdir()
    fields = {"env": {"MINE": "m", "TANDEM_NODE_ID": "forged"}, "python_path": ["lib"]}
    spec = tasks.python("tasks:surroundings", **fields)
    found = (await run(plain, spec)).output
    assert found["cwd"] == str(tasks.workspace)
    assert found["path"] == [str(tasks.workspace / "lib"), str(tasks.workspace)]
    assert found["env"]["MINE"] == "m"
    assert found["env"]["TANDEM_NODE_ID"] == "node"
    assert found["env"]["TANDEM_ATTEMPT_ID"] == spec.attempt_id
    assert "SECRET" not in found["env"]


async def test_worker_stays_warm_and_forgets_what_a_job_changed(tasks, plain, run):
    first = (await run(plain, tasks.python("tasks:surroundings"))).output
    await run(plain, tasks.python("tasks:changes_the_world"))
    spec = tasks.python("tasks:surroundings")
    second = (await run(plain, spec)).output
    assert second["pid"] == first["pid"]
    assert second["cwd"] == first["cwd"]
    assert "LEFT" not in second["env"]
    assert second["env"]["TANDEM_ATTEMPT_ID"] == spec.attempt_id


async def test_another_environment_gets_another_worker(tasks, plain, run):
    first = (await run(plain, tasks.python("tasks:pid"))).output
    other = (await run(plain, tasks.python("tasks:pid", env={"A": "b"}))).output
    again = (await run(plain, tasks.python("tasks:pid"))).output
    assert first != other
    assert again == first


async def test_workers_are_bounded(tasks, plain, run, living):
    for number in range(5):
        await run(plain, tasks.python("tasks:pid", env={"A": str(number)}))
    mark = f"TANDEM_ENGINE_ID={tasks.engine_id}"
    workers = [
        pid for pid in living(mark) if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(workers) == 2


async def test_more_jobs_than_workers_all_get_their_turn(tasks, plain, run):
    specs = [tasks.python("tasks:add", arguments={"a": number}) for number in range(12)]
    outcomes = await asyncio.gather(*(run(plain, spec) for spec in specs))
    assert [outcome.output for outcome in outcomes] == list(range(1, 13))


async def test_prints_are_kept_and_do_not_disturb_the_protocol(tasks, plain, run):
    spec = tasks.python("tasks:prints")
    assert (await run(plain, spec)).output == "printed"
    assert Path(spec.scratch, "stdout.log").read_text() == "to stdout\nraw\n"
    assert Path(spec.scratch, "stderr.log").read_text() == "to stderr\n"
    assert any("to stdout" in text for _, text in tasks.progress_calls)


async def test_exception_is_a_failure_with_the_frames_of_the_user(tasks, plain, run):
    outcome = await run(plain, tasks.python("tasks:fails", arguments={"text": "bad value"}))
    assert outcome.failure_class == FailureClass.EXECUTION_ERROR
    assert outcome.message == "ValueError: bad value"
    assert "in deeper" in outcome.detail
    assert "worker.py" not in outcome.detail
    assert isinstance(await run(plain, tasks.python("tasks:add", arguments={"a": 1})), Succeeded)


async def test_system_exit_is_a_failure(tasks, plain, run):
    assert (await run(plain, tasks.python("tasks:exits"))).message == "SystemExit: enough"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing.here:run", "there is no module `nothing` (for `nothing.here:run`)"),
        ("tasks:absent", "module `tasks` has no `absent`"),
        ("tasks:TASK.x", "module `tasks` has no `TASK.x`"),
        ("needy:run", "module `needy` needs module `not_installed`, which is not installed here"),
    ],
)
async def test_missing_function_is_missing_config(tasks, plain, run, function, message):
    tasks.module("needy", "import not_installed")
    outcome = await run(plain, tasks.python(function))
    assert outcome.failure_class == FailureClass.MISSING_CONFIG
    assert outcome.message == message


async def test_module_that_fails_while_loading_is_an_execution_error(tasks, plain, run):
    tasks.module("broken", "1 / 0")
    outcome = await run(plain, tasks.python("broken:run"))
    assert outcome.failure_class == FailureClass.EXECUTION_ERROR
    assert outcome.message == "ZeroDivisionError: division by zero"


async def test_result_must_be_json_and_bounded(tasks, plain, run):
    opaque = await run(plain, tasks.python("tasks:opaque"))
    assert opaque.message.startswith("returned a value that is not JSON: ")
    large = await run(plain, tasks.python("tasks:large", output_bytes_max=1000))
    assert large.failure_class == FailureClass.OUTPUT_TOO_LARGE
    assert "5,002" in large.message


async def test_death_of_the_worker_is_named_and_the_next_job_runs(tasks, executor, run):
    died = await run(executor, tasks.python("tasks:dies"))
    assert isinstance(died, Failed)
    assert died.message == "the function ended its process with exit code 7"
    assert "last words" in died.detail
    crashed = await run(executor, tasks.python("tasks:crashes"))
    assert "signal 11 (SIGSEGV)" in crashed.message
    assert (await run(executor, tasks.python("tasks:add", arguments={"a": 1}))).output == 2


async def test_cancel_kills_the_worker_and_what_it_started(tasks, executor, run, until, living):
    spec = tasks.python("tasks:forever")
    task = asyncio.create_task(executor.run(spec, tasks.progress))
    await until((tasks.workspace / "on").exists)
    # A program that has just started shows its environment a moment later.
    await until(lambda: living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")
    assert (await run(executor, tasks.python("tasks:add", arguments={"a": 1}))).output == 2


@pytest.mark.parametrize("function", ["leaves_a_process", "leaves_a_daemon", "leaves_a_thread"])
async def test_worker_that_kept_something_running_is_replaced(
    tasks, executor, run, living, function
):
    spec = tasks.python(f"tasks:{function}")
    first = (await run(executor, spec)).output
    assert not living(f"TANDEM_ATTEMPT_ID={spec.attempt_id}")
    assert isinstance(first, int)
    assert len(executor._pool._idle) == 0


async def test_edited_module_is_loaded_anew(tasks, plain, run):
    tasks.module("edited", "def run(): return 1")
    assert (await run(plain, tasks.python("edited:run"))).output == 1
    tasks.module("edited", "def run(): return 2")
    assert (await run(plain, tasks.python("edited:run"))).output == 2


async def test_module_that_another_node_writes_is_found(tasks, plain, run):
    assert isinstance(await run(plain, tasks.python("later:run")), Failed)
    tasks.module("later", "def run(): return 'here'")
    assert (await run(plain, tasks.python("later:run"))).output == "here"


async def test_workspace_modules_cannot_break_the_worker(tasks, plain, run):
    tasks.module("json", "raise RuntimeError('not the real json')")
    tasks.module("socket", "raise RuntimeError('not the real socket')")
    assert (await run(plain, tasks.python("tasks:add", arguments={"a": 1}))).output == 2
    assert not (tasks.workspace / "__pycache__").exists()


async def test_python_path_outside_of_the_workspace_is_missing_config(tasks, plain, run):
    outcome = await run(plain, tasks.python("tasks:add", python_path=["../elsewhere"]))
    assert outcome.failure_class == FailureClass.MISSING_CONFIG


async def test_idle_worker_that_died_is_not_used(tasks, plain, run, until, alive):
    pid = (await run(plain, tasks.python("tasks:pid"))).output
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(pid))
    assert (await run(plain, tasks.python("tasks:pid"))).output != pid


# --- in this process


@dataclasses.dataclass
class Answer:
    text: str


async def doubled(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


def told(context) -> list:
    return [context.node_id, context.inputs]


def raising() -> None:
    raise KeyError("gone")


def answering() -> Answer:
    return Answer("yes")


def opaque() -> object:
    return object()


def changing(items: list) -> int:
    items.append(1)
    return len(items)


async def waiting() -> None:
    await asyncio.get_running_loop().create_future()


async def cancelling_itself() -> None:
    raise asyncio.CancelledError


REGISTERED = {
    f"app:{function.__name__}": function
    for function in (
        doubled,
        told,
        raising,
        answering,
        changing,
        waiting,
        cancelling_itself,
        opaque,
    )
}


@pytest.fixture
async def embedded():
    async with LocalExecutor(registered=REGISTERED) as found:
        yield found


async def test_registered_functions_run_here(bench, embedded, run):
    outcome = await run(embedded, bench.python("app:doubled", arguments={"value": 4}))
    assert outcome == Succeeded(output=8)
    assert (await run(embedded, bench.python("app:answering"))).output == {"text": "yes"}
    spec = bench.python("app:told", inputs={"a": 1})
    assert (await run(embedded, spec)).output == ["node", {"a": 1}]


async def test_failures_here_are_outcomes(bench, embedded, run):
    raised = await run(embedded, bench.python("app:raising"))
    assert raised.message == "KeyError: 'gone'"
    assert "in raising" in raised.detail
    itself = await run(embedded, bench.python("app:cancelling_itself"))
    assert itself.message == "CancelledError"
    opaque = await run(embedded, bench.python("app:opaque"))
    assert opaque.message.startswith("returned a value that is not JSON: ")


async def test_arguments_of_the_action_cannot_be_changed_here(bench, embedded, run):
    spec = bench.python("app:changing", arguments={"items": []})
    assert (await run(embedded, spec)).output == 1
    assert (await run(embedded, spec)).output == 1


async def test_cancel_reaches_a_function_here(bench, embedded):
    task = asyncio.create_task(embedded.run(bench.python("app:waiting"), bench.progress))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_in_process_imports_any_function_of_the_host(bench, run):
    async with LocalExecutor(in_process=True) as executor:
        spec = bench.python("os.path:basename", arguments={"p": "a/b"})
        assert (await run(executor, spec)).output == "b"
        missing = await run(executor, bench.python("os.path:nothing"))
        assert missing.failure_class == FailureClass.MISSING_CONFIG


async def test_calls_here_are_cheap(bench, embedded):
    spec = bench.python("app:changing", arguments={"items": []})
    best_us = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(100):
            await embedded.run(spec, bench.progress)
        best_us = min(best_us, (time.perf_counter() - begun) * 1e6 / 100)
    assert best_us < 20, best_us
