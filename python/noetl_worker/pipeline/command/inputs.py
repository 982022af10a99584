"""What a tool is given: its config with all of the command's input, and the values that its templates see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from noetl_worker.errors import ConfigurationError, TemplateError
from noetl_worker.models.command import Command
from noetl_worker.models.spellings import inputs_of
from noetl_worker.models.wire import JsonValue
from noetl_worker.pipeline.command.credentials import CommandCredentials, keychain_names_in
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.text.templates import template
from noetl_worker.text.templates.redacted import check_given
from noetl_worker.tools.contract import Render, ToolValues

_Given = tuple[str, JsonValue]
"""(the field, its value)"""


@dataclass(slots=True, eq=False, repr=False)
class Inputs:
    """The failure of one command."""

    command: Command
    credentials: CommandCredentials
    worker_id: str
    fields_of: Callable[[str], frozenset[str]]
    """Those of a kind."""
    is_strict: bool
    """Whether an undefined variable is an error."""

    async def of(
        self, config: Mapping[str, JsonValue], given: Mapping[str, JsonValue]
    ) -> tuple[Mapping[str, JsonValue], ToolValues]:
        """The config with all of the command's input, rendered, and the values to render the rest of it with."""
        has_templates = self.command.marks.templates
        templates: Mapping[str, JsonValue] | None = {"config": config, "input": given} if has_templates else None
        # A template in the input sees the values beside it, no template: it would find its own text.
        plain = (
            {name: value for name, value in given.items() if not template.has_template(value)}
            if has_templates
            else given
        )
        values = await self._values(plain, templates)
        in_spec, as_text = self._inputs_of(config)
        if not has_templates and not in_spec and not as_text:
            return ({**config, "input": given} if given else config), values
        inputs = self._merged(in_spec, as_text, given, values.variables)
        if in_spec or as_text or len(plain) < len(given):
            config = self._without_inputs(config)
            values = await self._values(inputs, templates)
        if inputs:
            config = {**config, "input": inputs}
            render = values.render  # the input is data by now: it is not rendered a second time
            values.render = lambda value, extra=None: value if value is inputs else render(value, extra)
        return config, values

    async def _values(self, given: Mapping[str, JsonValue], templates: Mapping[str, JsonValue] | None) -> ToolValues:
        """`given`: the input that templates see; `templates`: where some may be."""
        command, strict, rules = self.command, self.is_strict, RULES[self.command.dialect]
        variables: dict[str, JsonValue] = {
            # The input has been rendered by the plane; what is in braces there now is data (or had no value).
            **command.variables,
            **given,
            # Metadata wins over variables of the same name (protocol/command.md#names). The id is a number on one
            # plane.
            "execution_id": str(command.execution_id) if rules.ids_are_text else command.execution_id,
            "step": command.step,
            "server_url": command.server_url,
            "worker_id": self.worker_id,
            "command_id": command.command_id,
        }
        names = keychain_names_in(templates) if templates is not None else None
        if names or (names is not None and "keychain" not in variables):
            variables["keychain"] = await self.credentials.keychain_names(names)

        def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
            return template.render(value, {**variables, **extra} if extra else variables, strict=strict)

        return ToolValues(variables, given, checked(render, command.redacted) if command.redacted else render, strict)

    def _without_inputs(self, config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """The config, and what it has under `spec`, without what `_merged` has taken from it."""
        left = {name: value for name, value in config.items() if name not in self._inputs}
        spec = left.get("spec")
        return {**left, "spec": self._without_inputs(spec)} if isinstance(spec, Mapping) else left

    @property
    def _inputs(self) -> tuple[str, ...]:
        return inputs_of(self.fields_of(self.command.kind))

    def _inputs_of(self, config: Mapping[str, JsonValue]) -> tuple[list[_Given], list[_Given]]:
        """Inputs that the config still has: objects under `spec`, and one text at the top that is to give an object."""
        if "args" not in config and "input" not in config and "spec" not in config:
            return [], []
        names = self._inputs
        spec = config.get("spec")
        below: Mapping[str, JsonValue] = spec if isinstance(spec, Mapping) else {}
        in_spec = [(name, below[name]) for name in names if isinstance(below.get(name), Mapping)]
        return in_spec, [(name, config[name]) for name in names if isinstance(config.get(name), str)]

    def _merged(
        self,
        in_spec: Sequence[_Given],
        as_text: Sequence[_Given],
        given: Mapping[str, JsonValue],
        variables: Mapping[str, JsonValue],
    ) -> dict[str, JsonValue]:
        """All inputs, rendered, as one. Which one wins is the plane's, as with objects (`command._input`)."""
        kind, commands = self.command.kind, [("input", given)]
        above = [*as_text, *commands] if RULES[self.command.dialect].step_input_wins else [*commands, *as_text]
        merged: dict[str, JsonValue] = {}
        for name, value in [*in_spec, *above]:
            try:
                values = self._rendered(value, variables)
            except TemplateError as error:
                raise TemplateError(f"{kind}: field {name!r}: {error}") from error
            if values is not None and not isinstance(values, Mapping):
                raise ConfigurationError(f"{kind}: field {name!r} must be an object, not {type(values).__name__}")
            merged.update(values or {})
        return merged

    def _rendered(self, value: JsonValue, variables: Mapping[str, JsonValue]) -> JsonValue:
        """An input, rendered. What is missing is null, and on the Python plane an empty text (recorded: view-*)."""
        missing = RULES[self.command.dialect].tools.missing_value if isinstance(value, Mapping) else None
        rendered = template.render(value, variables, strict=self.is_strict, undefined=missing)
        if self.command.redacted:
            check_given(rendered, self.command.redacted)
        return rendered


def checked(render: Render, redacted: Sequence[str]) -> Render:
    """For commands with values that the plane has taken out: what is rendered has none in it, or raises."""

    def render_and_check(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
        rendered = render(value, extra)
        check_given(rendered, redacted)
        return rendered

    return render_and_check
