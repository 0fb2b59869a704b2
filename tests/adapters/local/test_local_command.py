"""Commands: their outputs, exit codes, environment and how they fail to start."""

import hashlib
import json
import os

import pytest

from tandem.domain.outcome import Failed, FailureClass, NeedsRepair, Succeeded


async def test_text_output_is_stdout_as_it_is(bench, executor, run):
    outcome = await run(executor, bench.command("printf", "%s\\n", "grüße", " two "))
    assert outcome == Succeeded(output="grüße\n two \n", exit_code=0)


async def test_json_output_is_parsed(bench, executor, run):
    spec = bench.command("echo", '{"a": [1, 2]}', output={"format": "json"})
    assert (await run(executor, spec)).output == {"a": [1, 2]}


async def test_stdout_that_is_not_json_needs_repair(bench, plain, run):
    outcome = await run(plain, bench.command("echo", "hello", output={"format": "json"}))
    assert isinstance(outcome, NeedsRepair)
    assert outcome.reasons[0].startswith("stdout is not JSON: ")
    assert outcome.output is None


async def test_file_output_is_an_artifact(bench, plain, run):
    spec = bench.shell(
        "mkdir out; printf abc > out/report.md", output={"format": "file", "path": "out/report.md"}
    )
    outcome = await run(plain, spec)
    digest = "sha256:" + hashlib.sha256(b"abc").hexdigest()
    assert outcome.output == {
        "path": "out/report.md",
        "digest": digest,
        "size_bytes": 3,
        "media_type": "text/markdown",
    }
    assert outcome.artifacts[0].digest == digest


async def test_missing_output_file_needs_repair(bench, plain, run):
    outcome = await run(plain, bench.command("true", output={"format": "file", "path": "no.txt"}))
    assert isinstance(outcome, NeedsRepair)
    assert "no.txt" in outcome.reasons[0]


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link/passwd"])
async def test_output_file_outside_of_the_workspace_is_refused(bench, plain, run, path):
    (bench.workspace / "link").symlink_to("/etc")
    outcome = await run(plain, bench.command("true", output={"format": "file", "path": path}))
    assert isinstance(outcome, NeedsRepair)
    assert "workspace" in outcome.reasons[0]


async def test_nul_and_invalid_utf8_do_not_reach_the_output(bench, plain, run):
    outcome = await run(plain, bench.command("printf", r"a\000b\377c"))
    assert outcome.output == "ab\ufffdc"


async def test_exit_code_is_told_with_the_last_line_of_stderr(bench, executor, run):
    outcome = await run(executor, bench.shell("echo out; echo first >&2; echo boom >&2; exit 3"))
    assert outcome == Failed(
        failure_class=FailureClass.EXECUTION_ERROR,
        message="exited with code 3: boom",
        detail="first\nboom\n",
        exit_code=3,
    )


async def test_detail_is_stdout_when_stderr_is_empty(bench, plain, run):
    assert (await run(plain, bench.shell("echo only; exit 1"))).detail == "only\n"


async def test_expected_exit_codes_succeed(bench, plain, run):
    outcome = await run(plain, bench.shell("exit 3", exit_codes=[0, 3]))
    assert outcome == Succeeded(output="", exit_code=3)


async def test_death_by_signal_is_named(bench, executor, run):
    outcome = await run(executor, bench.shell("kill -SEGV $$"))
    assert outcome.message == "ended by signal 11 (SIGSEGV)"
    assert outcome.exit_code == -11


async def test_missing_command_is_not_exit_code_127(bench, executor, run):
    missing = await run(executor, bench.command("no-such-command", env={"PATH": "/bin:/x"}))
    exited = await run(executor, bench.shell("exit 127"))
    assert missing.failure_class == FailureClass.MISSING_CONFIG
    assert missing.message == "command `no-such-command` was not found (looked in PATH=/bin:/x)"
    assert exited.failure_class == FailureClass.EXECUTION_ERROR
    assert exited.exit_code == 127


async def test_file_that_is_no_program_is_named(bench, plain, run):
    (bench.workspace / "notes").write_text("hello")
    outcome = await run(plain, bench.command("./notes"))
    assert outcome.failure_class == FailureClass.MISSING_CONFIG
    assert outcome.message == "command `./notes` cannot be run: Permission denied"


@pytest.mark.parametrize("cwd", ["missing", "../..", "/tmp"])
async def test_bad_working_directory_is_missing_config(bench, plain, run, cwd):
    outcome = await run(plain, bench.command("true", cwd=cwd))
    assert outcome.failure_class == FailureClass.MISSING_CONFIG
    assert cwd in outcome.message


async def test_working_directory_is_the_workspace_or_below(bench, executor, run):
    (bench.workspace / "sub").mkdir()
    assert (await run(executor, bench.command("pwd"))).output == f"{bench.workspace}\n"
    below = await run(executor, bench.command("pwd", cwd="sub"))
    assert below.output == f"{bench.workspace}/sub\n"


async def test_without_workspace_it_runs_in_the_scratch_directory(bench, plain, run):
    spec = bench.command("pwd", workspace="")
    assert (await run(plain, spec)).output == f"{spec.scratch}\n"


async def test_without_any_directory_it_gets_a_temporary_one(bench, plain, run):
    outcome = await run(plain, bench.command("pwd", workspace="", scratch=""))
    assert not os.path.exists(outcome.output.strip())


async def test_environment_is_small_and_identifiers_win(bench, executor, run, monkeypatch):
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.setenv("PASSED", "p")
    spec = bench.command(
        "env",
        "-0",
        env={"MINE": "m", "TANDEM_RUN_ID": "forged"},
        pass_env=["PASSED", "UNSET"],
        repair=("too short", "no title"),
        inputs={"a": 1},
    )
    outcome = await run(executor, spec)
    log = (await _stdout_of(spec)).decode()
    env = dict(item.split("=", 1) for item in log.split("\0") if item)
    assert isinstance(outcome, Succeeded)
    assert "SECRET" not in env
    assert "UNSET" not in env
    assert (env["MINE"], env["PASSED"]) == ("m", "p")
    assert env["TANDEM_RUN_ID"] == spec.run_id
    assert env["TANDEM_NODE_ID"] == "node"
    assert env["TANDEM_ATTEMPT_ID"] == spec.attempt_id
    assert (env["TANDEM_ATTEMPT"], env["TANDEM_EPOCH"]) == ("1", "7")
    assert env["TANDEM_IDEMPOTENCY_KEY"] == spec.idempotency_key
    assert env["TANDEM_ENGINE_ID"] == bench.engine_id
    assert env["TANDEM_WORKSPACE"] == spec.workspace
    assert env["TANDEM_SCRATCH"] == spec.scratch
    assert json.loads(env["TANDEM_REPAIR"]) == ["too short", "no title"]
    with open(env["TANDEM_INPUTS"]) as file:
        assert json.load(file) == {"a": 1}
    known = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL"}
    assert {name for name in env if not name.startswith("TANDEM_")} <= known | {"MINE", "PASSED"}


async def _stdout_of(spec):
    with open(f"{spec.scratch}/stdout.log", "rb") as file:
        return file.read()


async def test_huge_repair_reasons_still_fit_into_the_environment(bench, plain, run):
    spec = bench.shell('printf %s "$TANDEM_REPAIR"', repair=("é\x01" * 100_000,) * 50)
    outcome = await run(plain, spec)
    assert len(json.loads(outcome.output)) == 16


async def test_argument_with_a_nul_is_missing_config(bench, plain, run):
    outcome = await run(plain, bench.command("echo", "a\0b"))
    assert outcome.failure_class == FailureClass.MISSING_CONFIG


async def test_stdin_is_empty_and_no_descriptor_leaks(bench, executor, run):
    outcome = await run(executor, bench.shell("cat; ls -l /proc/self/fd | wc -l"))
    # 0, 1, 2, the one that `ls` opened, and the line with the total
    assert outcome.output.strip() == "5"


async def test_signals_of_the_command_are_as_a_shell_would_start_it(bench, executor, run):
    outcome = await run(executor, bench.command("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"))
    masks = [int(line.split()[1], 16) for line in outcome.output.splitlines()]
    # Signals 32 and 33 belong to the C library: make starts its programs with them ignored, and
    # no program can change that.
    assert [mask & ~(0b11 << 31) for mask in masks] == [0, 0]


async def test_fifty_megabytes_are_counted_kept_and_bounded(bench, plain, run):
    spec = bench.command("head", "-c", "50000000", "/dev/zero", output_bytes_max=1_000_000)
    outcome = await run(plain, spec)
    assert outcome.failure_class == FailureClass.OUTPUT_TOO_LARGE
    assert "50,000,000" in outcome.message
    assert "1,000,000" in outcome.message
    assert f"{spec.scratch}/stdout.log" in outcome.message
    assert os.path.getsize(f"{spec.scratch}/stdout.log") == 50_000_000


async def test_large_output_under_the_bound_is_whole(bench, plain, run):
    outcome = await run(plain, bench.shell("seq 1 200000"))
    assert outcome.output == "".join(f"{n}\n" for n in range(1, 200_001))


async def test_log_is_bounded(bench, run):
    from tandem.adapters.local.executor import LocalExecutor

    async with LocalExecutor(isolation="subreaper", log_bytes_max=1000) as executor:
        spec = bench.shell("head -c 5000 /dev/zero >&2; exit 1")
        await run(executor, spec)
    assert os.path.getsize(f"{spec.scratch}/stderr.log") == 1000


async def test_output_is_progress(bench, plain, run):
    await run(plain, bench.shell("echo out; echo err >&2"))
    assert ("stdout", "out\n") in bench.progress_calls
    assert ("stderr", "err\n") in bench.progress_calls


async def test_progress_is_rate_bounded_and_ends_with_the_last_words(bench, plain, run):
    await run(plain, bench.shell("seq 1 100000; echo last"))
    told = [text for kind, text in bench.progress_calls if kind == "stdout"]
    assert len(told) < 50
    assert told[-1].endswith("last\n")


async def test_agent_actions_are_not_for_this_executor(bench, plain, run):
    from tandem.domain.action import AgentAction

    outcome = await run(plain, bench.spec(AgentAction()))
    assert outcome.failure_class == FailureClass.MISSING_CONFIG
