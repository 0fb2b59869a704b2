"""What the parts of an automation must say about each other; every mistake in one pass.

Paths of problems begin at `nodes[…]`, however the document spells the list of nodes.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from pydantic import ValidationError

from tandem.domain.action_rules import ActionRules
from tandem.domain.automation import Automation, HandoffConfig
from tandem.domain.errors import InvalidAutomation, Problem
from tandem.domain.handoff import folder_problem
from tandem.domain.inputs import check_inputs, declared_names, input_schema
from tandem.domain.json import JsonValue
from tandem.domain.name import ID_CHARS_MAX, ID_RULE, is_id, name_problem
from tandem.domain.node import Node, NodeKind
from tandem.domain.template import Reference, find_malformed, find_references
from tandem.domain.timetable import schedule_problems
from tandem.domain.wait_rules import WaitRules
from tandem.domain.workspace_root import declared_workspace

NODES_MAX: Final = 10_000
NAME_CHARS_MAX: Final = 200
"""How long the name of an automation may be."""
CYCLE_NODES_SHOWN_MAX: Final = 20
COMPARISONS_MAX: Final = 20_000
"""Names compared in search of the one that was meant; looking costs time for each pair."""


def check_automation(automation: Automation) -> list[Problem]:
    """Return every mistake of an automation whose fields have the right types.

    Linear in the size of the document, but for the sets of upstream nodes (a bit per pair).
    """
    if len(automation.nodes) > NODES_MAX:
        return [too_many_nodes(len(automation.nodes))]
    return list(_Check(automation).problems())


def too_many_nodes(count: int) -> Problem:
    """Return what is wrong with an automation of so many nodes."""
    return Problem(
        code="too_many_nodes",
        message=f"{count} nodes are more than the {NODES_MAX} allowed",
        path="nodes",
    )


class NearestName:
    """Suggests the known name that an unknown one was meant to be, within a bounded effort."""

    def __init__(self, names: Iterable[str], *, comparisons_max: int = COMPARISONS_MAX) -> None:
        self._names = [name for name in dict.fromkeys(names) if len(name) <= ID_CHARS_MAX]
        self._comparisons_left = comparisons_max

    def hint(self, name: str) -> str:
        """Return `did you mean …?`, or nothing when no name is near or looking costs too much."""
        if len(self._names) > self._comparisons_left or len(name) > ID_CHARS_MAX:
            return ""
        self._comparisons_left -= len(self._names)
        close = get_close_matches(name, self._names, n=1)
        return f"did you mean `{close[0]}`?" if close else ""


class _Check:
    """One pass over one automation."""

    def __init__(self, automation: Automation) -> None:
        self._automation = automation
        self._graph = _Graph(automation.nodes)
        self._agents = {agent.agent_id for agent in automation.agents}
        self._input_names = _input_names(automation)
        self._nearest_input = NearestName(self._input_names or ())
        self._nearest_node = NearestName(self._graph.index)
        self._nearest_agent = NearestName(self._agents)

    def problems(self) -> Iterator[Problem]:
        yield from self._top_problems()
        yield from self._agent_problems()
        yield from self._id_problems()
        for index, node in enumerate(self._automation.nodes):
            path = f"nodes[{index}]"
            yield from self._dependency_problems(node, path)
            yield from self._input_ref_problems(node, index, path)
            yield from self._performer_problems(node, path)
            yield from self._rework_problems(node, path)
            yield from WaitRules(node, path=path, known=self._graph.index).problems()
            yield from ActionRules(node, path=path).problems()
            yield from self._reference_problems(node, index, path)
            if node.for_each is not None:
                yield _problem(
                    "for_each_not_available",
                    "for_each is not available in this version",
                    f"{path}.for_each",
                    node,
                )
        yield from self._cycle_problems()

    # The document as a whole

    def _top_problems(self) -> Iterator[Problem]:
        automation = self._automation
        if not is_id(automation.automation_id):
            yield _problem("automation_id_invalid", f"an id has {ID_RULE}", "automation_id")
        # Without one the id is the name, and is judged as such.
        is_own = automation.name != automation.automation_id
        if is_own and (problem := name_problem(automation.name, chars_max=NAME_CHARS_MAX)):
            yield _problem("name_invalid", problem, "name")
        if not automation.nodes:
            yield _problem("no_nodes", "the automation has no nodes", "nodes")
        root = automation.workspace_root
        if root is not None and not root.startswith("/"):
            yield _problem(
                "workspace_root_not_absolute",
                f"`{root}` is not an absolute path",
                "workspace_root",
            )
        if "\0" in declared_workspace(automation):
            yield _problem("nul_character", "no folder has a NUL character", "workspace_root")
        yield from schedule_problems(automation.schedule)
        yield from self._handoff_problems()
        yield from check_inputs(automation.inputs)
        yield from self._concurrency_problems()

    def _handoff_problems(self) -> Iterator[Problem]:
        automation = self._automation
        if automation.watch_conditions and not declared_workspace(automation):
            yield _problem(
                "watch_without_workspace",
                "`watch_conditions` need a `workspace_root`: the handoffs are below it",
                "watch_conditions",
            )
        if problem := folder_problem(automation.handoff_config or HandoffConfig()):
            yield _problem("handoff_folder_invalid", problem, "handoff_config")

    def _concurrency_problems(self) -> Iterator[Problem]:
        concurrency = self._automation.concurrency
        if concurrency is None:
            return
        if concurrency.limit < 1:
            yield _problem(
                "concurrency_limit_invalid", "`limit` must be 1 or more", "concurrency.limit"
            )
        path = "concurrency.key"
        for text in find_malformed(concurrency.key):
            yield _malformed(text, path, None)
        for reference in find_references(concurrency.key):
            if reference.root == "nodes":
                yield _problem(
                    "reference_not_upstream",
                    f"`{reference.text}`: no node has run when the key is needed",
                    path,
                    hint="only inputs can be used here",
                )
            else:
                yield from self._input_problems(reference, path, None)

    def _agent_problems(self) -> Iterator[Problem]:
        seen: set[str] = set()
        for index, agent in enumerate(self._automation.agents):
            path = f"agents[{index}].agent_id"
            if not agent.agent_id.strip():
                yield _problem("agent_id_invalid", "the agent's id is blank", path)
            elif agent.agent_id in seen:
                yield _problem(
                    "agent_duplicate", f"there is already an agent `{agent.agent_id}`", path
                )
            seen.add(agent.agent_id)

    def _id_problems(self) -> Iterator[Problem]:
        for index, node in enumerate(self._automation.nodes):
            path = f"nodes[{index}].node_id"
            if not is_id(node.node_id):
                yield _problem("node_id_invalid", f"an id has {ID_RULE}", path, node)
            first = self._graph.index[node.node_id]
            if first != index:
                yield _problem(
                    "node_duplicate",
                    f"there is already a node `{node.node_id}`, nodes[{first}]",
                    path,
                    node,
                )

    # One node

    def _dependency_problems(self, node: Node, path: str) -> Iterator[Problem]:
        seen: set[str] = set()
        for place, name in enumerate(node.depends_on):
            where = f"{path}.depends_on[{place}]"
            if name not in self._graph.index:
                yield self._unknown_node("dependency_unknown", name, where, node)
            elif name in seen:
                yield _problem("dependency_duplicate", f"`{name}` is listed twice", where, node)
            seen.add(name)

    def _input_ref_problems(self, node: Node, index: int, path: str) -> Iterator[Problem]:
        aliases: set[str] = set()
        for place, ref in enumerate(node.input_refs):
            where = f"{path}.input_refs[{place}]"
            if ref.from_step_id not in self._graph.index:
                yield self._unknown_node(
                    "input_ref_unknown", ref.from_step_id, f"{where}.from_step_id", node
                )
            elif not self._graph.is_upstream(ref.from_step_id, index):
                yield _not_upstream(
                    "input_ref_not_upstream", ref.from_step_id, f"{where}.from_step_id", node
                )
            if not ref.alias.strip():
                yield _problem("input_alias_invalid", "the alias is blank", f"{where}.alias", node)
            elif ref.alias in aliases:
                yield _problem(
                    "input_alias_duplicate",
                    f"the alias `{ref.alias}` is used twice",
                    f"{where}.alias",
                    node,
                )
            aliases.add(ref.alias)

    def _performer_problems(self, node: Node, path: str) -> Iterator[Problem]:
        runs_nothing = node.kind in (NodeKind.APPROVAL, NodeKind.WAIT)
        if node.agent_id is None:
            if node.kind is NodeKind.AGENT:
                yield _problem(
                    "agent_missing",
                    "an agent node needs an `agent_id`",
                    path,
                    node,
                    hint="or an `action`: command, python or http",
                )
        elif node.agent_id not in self._agents and not runs_nothing:
            yield _problem(
                "agent_unknown",
                f"there is no agent `{node.agent_id}`",
                f"{path}.agent_id",
                node,
                hint=self._nearest_agent.hint(node.agent_id),
            )

    def _rework_problems(self, node: Node, path: str) -> Iterator[Problem]:
        try:
            gate = node.effective_gate
        except ValidationError:
            yield _problem(
                "gate_metadata_invalid",
                "the expiry policy of the approval in the metadata is not one",
                f"{path}.metadata.approval",
                node,
            )
            return
        if gate is None:
            return
        base = "metadata.approval" if node.gate is None else "gate"
        for place, name in enumerate(gate.rework_targets):
            if name not in self._graph.index:
                where = f"{path}.{base}.rework_targets[{place}]"
                yield self._unknown_node("rework_target_unknown", name, where, node)

    # References

    def _reference_problems(self, node: Node, index: int, path: str) -> Iterator[Problem]:
        for part, value, is_ours in _templates(node):
            for place, template in _texts_in(value):
                where = f"{path}.{part}{place}"
                # A published client's objective may hold `${…}` that means nothing to us.
                for text in find_malformed(template) if is_ours else ():
                    yield _malformed(text, where, node)
                for reference in find_references(template):
                    if reference.root == "inputs":
                        yield from self._input_problems(reference, where, node)
                    else:
                        yield from self._output_problems(reference, index, where, node)

    def _output_problems(
        self, reference: Reference, index: int, path: str, node: Node
    ) -> Iterator[Problem]:
        name = reference.node_id
        if name not in self._graph.index:
            yield _problem(
                "reference_unknown_node",
                f"`{reference.text}`: there is no node `{name}`",
                path,
                node,
                hint=self._nearest_node.hint(name),
            )
        elif not self._graph.is_upstream(name, index):
            yield _not_upstream("reference_not_upstream", name, path, node)

    def _input_problems(
        self, reference: Reference, path: str, node: Node | None
    ) -> Iterator[Problem]:
        names = self._input_names
        if names is None or not reference.path or reference.path[0] in names:
            return
        name = str(reference.path[0])
        yield _problem(
            "reference_unknown_input",
            f"`{reference.text}`: no input `{name}` is declared",
            path,
            node,
            hint=self._nearest_input.hint(name) or "declare it under `inputs`",
        )

    def _cycle_problems(self) -> Iterator[Problem]:
        for cycle in self._graph.cycles():
            first = self._automation.nodes[cycle[0]]
            ids = [self._automation.nodes[index].node_id for index in (*cycle, cycle[0])]
            if len(ids) > CYCLE_NODES_SHOWN_MAX:
                half = CYCLE_NODES_SHOWN_MAX // 2
                ids = [*ids[:half], f"({len(ids) - 2 * half} more)", *ids[-half:]]
            yield _problem(
                "dependency_cycle",
                f"nodes wait for each other in a circle: {' → '.join(ids)}",
                f"nodes[{cycle[0]}].depends_on",
                first,
                hint="each waits for the one behind its arrow; remove one of them",
            )

    def _unknown_node(self, code: str, name: str, path: str, node: Node) -> Problem:
        return _problem(
            code, f"there is no node `{name}`", path, node, hint=self._nearest_node.hint(name)
        )


class _Graph:
    """Who depends on whom, by position in the document. Unknown and repeated names are left out."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.index: dict[str, int] = {}
        for position, node in enumerate(nodes):
            self.index.setdefault(node.node_id, position)
        self._dependencies = [
            [self.index[name] for name in dict.fromkeys(node.depends_on) if name in self.index]
            for node in nodes
        ]
        self._order = self._topological_order()
        self._upstream = self._upstream_sets()

    def is_upstream(self, name: str, position: int) -> bool:
        """Whether the node called `name` is done before the one at `position` starts.

        Of nodes in or behind a cycle nothing can be said; the cycle is reported instead.
        """
        mask = self._upstream.get(position)
        return mask is None or bool(mask >> self.index[name] & 1)

    def cycles(self) -> Iterator[list[int]]:
        """Yield cycles that share no node, at least one wherever there are some.

        Each begins with its first node in the document and follows the dependencies.
        """
        settled = set(self._order)
        for start in range(len(self._dependencies)):
            walk: dict[int, int] = {}
            position = start
            while position not in settled and position not in walk:
                walk[position] = len(walk)
                # A node that was never free waits for another one that was not either.
                position = next(d for d in self._dependencies[position] if d not in self._free)
            if position in walk:
                cycle = list(walk)[walk[position] :]
                first = cycle.index(min(cycle))
                yield cycle[first:] + cycle[:first]
            settled.update(walk)

    def _topological_order(self) -> list[int]:
        waiting = [len(dependencies) for dependencies in self._dependencies]
        dependents: list[list[int]] = [[] for _ in self._dependencies]
        for position, dependencies in enumerate(self._dependencies):
            for dependency in dependencies:
                dependents[dependency].append(position)
        ready = deque(position for position, count in enumerate(waiting) if not count)
        order = []
        while ready:
            position = ready.popleft()
            order.append(position)
            for dependent in dependents[position]:
                waiting[dependent] -= 1
                if not waiting[dependent]:
                    ready.append(dependent)
        self._free = frozenset(order)
        return order

    def _upstream_sets(self) -> dict[int, int]:
        upstream: dict[int, int] = {}
        for position in self._order:
            mask = 0
            for dependency in self._dependencies[position]:
                mask |= upstream[dependency] | 1 << dependency
            upstream[position] = mask
        return upstream


def _templates(node: Node) -> Iterator[tuple[str, JsonValue, bool]]:
    yield "objective", node.objective, False
    if node.gate is not None and node.gate.instructions is not None:
        yield "gate.instructions", node.gate.instructions, False
    if node.for_each is not None:
        yield "for_each.items", node.for_each.items, True
    if node.action is not None:
        for name, value in node.action.model_dump().items():
            yield f"action.{name}", value, True


_Steps = tuple["_Steps", str] | None
"""How a part is reached: the way to what is around it, and the step from there."""


def _texts_in(value: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield the texts that may hold a reference, each behind the path that leads to it.

    The paths are only put together for those: what has none costs the same at any depth.
    """
    stack: list[tuple[_Steps, JsonValue]] = [(None, value)]
    while stack:
        steps, item = stack.pop()
        if isinstance(item, str):
            if "${" in item:
                yield _written(steps), item
        elif isinstance(item, Mapping):
            stack += reversed([((steps, f".{key}"), inner) for key, inner in item.items()])
        elif isinstance(item, Sequence):
            stack += reversed([((steps, f"[{at}]"), inner) for at, inner in enumerate(item)])


def _written(steps: _Steps) -> str:
    written: list[str] = []
    while steps is not None:
        steps, step = steps
        written.append(step)
    return "".join(reversed(written))


def _input_names(automation: Automation) -> Collection[str] | None:
    try:
        return declared_names(input_schema(automation.inputs))
    except InvalidAutomation:
        return None  # the declaration is wrong, and that is reported by itself


def _problem(
    code: str, message: str, path: str, node: Node | None = None, *, hint: str = ""
) -> Problem:
    return Problem(
        code=code, message=message, path=path, hint=hint, node_id=node.node_id if node else ""
    )


def _malformed(text: str, path: str, node: Node | None) -> Problem:
    return _problem(
        "reference_malformed",
        f"`{text}` is no reference",
        path,
        node,
        hint="write ${inputs.name} or ${nodes.id.output.name}; $${ stands for a plain ${",
    )


def _not_upstream(code: str, name: str, path: str, node: Node) -> Problem:
    if name == node.node_id:
        return _problem(code, "a node cannot use its own output", path, node)
    return _problem(
        code,
        f"node `{name}` need not be done when this node starts",
        path,
        node,
        hint=f"add `{name}` to `depends_on`",
    )
