"""What a node's action and the paths of its output contract must satisfy."""

from collections.abc import Iterator, Sequence
from typing import Final

from tandem.domain.action import CommandAction, HttpAction, PythonAction
from tandem.domain.errors import Problem
from tandem.domain.node import Effects, Node
from tandem.domain.output_contract import OutputContract
from tandem.domain.schema_check import InvalidSchema, compile_schema

STATUS_MIN: Final = 100
STATUS_MAX: Final = 599


class ActionRules:
    """Checks the action, the effects and the output contract of one node at `path`."""

    def __init__(self, node: Node, *, path: str) -> None:
        self._node = node
        self._path = path

    def problems(self) -> Iterator[Problem]:
        """Yield every rule that the node breaks."""
        node = self._node
        if node.is_approval and node.wait is None and node.action is not None:
            yield self._problem(
                "gate_with_action",
                "a person decides at this node and nothing runs, but it has an action",
                ".action",
                hint="put the action into a node of its own that depends on this one",
            )
        match node.action:
            case CommandAction():
                yield from self._command_problems(node.action)
            case PythonAction():
                yield from self._paths(node.action.python_path, ".action.python_path")
                yield from self._environment(node.action.env)
            case HttpAction():
                yield from self._http_problems(node.action)
            case _:
                pass
        yield from self._effects_problems()
        if node.output_contract is not None:
            yield from self._contract_problems(node.output_contract)

    def _command_problems(self, action: CommandAction) -> Iterator[Problem]:
        if action.shell:
            yield from self._script_problems(action)
        else:
            yield from self._argv_problems(action)
        for index, argument in enumerate(action.argv):
            yield from self._no_nul(argument, f".action.argv[{index}]")
        yield from self._environment(action.env)
        if action.cwd is not None:
            yield from self._relative(action.cwd, ".action.cwd")
        output = action.output
        if output.format == "file" and not (output.path or "").strip():
            yield self._problem(
                "action_output_path_missing",
                "`format: file` needs the `path` of the file that the command writes",
                ".action.output",
            )
        elif output.path is not None:
            yield from self._relative(output.path, ".action.output.path")
            if output.format != "file":
                yield self._problem(
                    "action_output_path_unused",
                    f"`path` has no meaning with `format: {output.format}`",
                    ".action.output.path",
                    hint="use `format: file`",
                )

    def _script_problems(self, action: CommandAction) -> Iterator[Problem]:
        code = "action_command_invalid"
        if not (action.script or "").strip():
            yield self._problem(code, "`shell: true` needs a `script`", ".action")
        if action.argv:
            yield self._problem(
                code, "with `shell: true` there is a `script` and no `argv`", ".action.argv"
            )
        yield from self._no_nul(action.script or "", ".action.script")

    def _argv_problems(self, action: CommandAction) -> Iterator[Problem]:
        code = "action_command_invalid"
        if action.script is not None:
            yield self._problem(
                code,
                "`script` is run by a shell, which was not asked for",
                ".action.script",
                hint="add `shell: true`",
            )
        elif not action.argv:
            yield self._problem(
                code, "a command needs `argv`: the program and its arguments", ".action"
            )
        elif not action.argv[0].strip():
            yield self._problem(code, "the program's name is blank", ".action.argv[0]")

    def _http_problems(self, action: HttpAction) -> Iterator[Problem]:
        code = "action_http_invalid"
        url = action.url.strip()
        if not url.lower().startswith(("http://", "https://", "${")):
            yield self._problem(code, "a URL starts with http:// or https://", ".action.url")
        if action.json_body is not None and action.text_body is not None:
            yield self._problem(
                code, "a request has `json_body` or `text_body`, not both", ".action.text_body"
            )
        for index, status in enumerate(action.expect_status):
            if not STATUS_MIN <= status <= STATUS_MAX:
                yield self._problem(
                    code, f"{status} is no HTTP status", f".action.expect_status[{index}]"
                )

    def _effects_problems(self) -> Iterator[Problem]:
        probe = self._node.effects_probe
        if probe is None:
            return
        if self._node.effective_effects is not Effects.EXTERNAL:
            yield self._problem(
                "effects_probe_without_effects",
                "`effects_probe` answers for effects outside, but the node has none",
                ".effects_probe",
                hint="add `effects: external`",
            )
        yield from self._program(probe, ".effects_probe")

    def _contract_problems(self, contract: OutputContract) -> Iterator[Problem]:
        if contract.output_schema is not None:
            try:
                compile_schema(contract.output_schema)
            except InvalidSchema as error:
                yield self._problem("schema_invalid", str(error), ".output_contract.schema")
        yield from self._paths(contract.required_files, ".output_contract.required_files")
        if contract.verification is not None:
            yield from self._program(
                contract.verification.argv, ".output_contract.verification.argv"
            )

    def _program(self, argv: Sequence[str], where: str) -> Iterator[Problem]:
        if not argv[0].strip():
            yield self._problem(
                "action_command_invalid", "the program's name is blank", f"{where}[0]"
            )
        for index, argument in enumerate(argv):
            yield from self._no_nul(argument, f"{where}[{index}]")

    def _paths(self, paths: Sequence[str], where: str) -> Iterator[Problem]:
        for index, path in enumerate(paths):
            yield from self._relative(path, f"{where}[{index}]")

    def _relative(self, path: str, where: str) -> Iterator[Problem]:
        yield from self._no_nul(path, where)
        if not path.strip():
            message = "the path is blank"
        elif path.startswith(("/", "~")):
            message = f"`{path}` is not relative to the workspace"
        elif ".." in path.split("/"):
            message = f"`{path}` leaves the workspace"
        else:
            return
        yield self._problem("path_invalid", message, where)

    def _environment(self, env: dict[str, str]) -> Iterator[Problem]:
        for name, value in env.items():
            yield from self._no_nul(value, f".action.env.{name}")

    def _no_nul(self, text: str, where: str) -> Iterator[Problem]:
        if "\0" in text:
            yield self._problem("nul_character", "no program can be given a NUL character", where)

    def _problem(self, code: str, message: str, where: str, *, hint: str = "") -> Problem:
        return Problem(
            code=code,
            message=message,
            path=f"{self._path}{where}",
            hint=hint,
            node_id=self._node.node_id,
        )
