"""Merging of a command's input into the config of its tool, and the values that templates in the config see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from noetl_worker.errors import ConfigurationError, TemplateError
from noetl_worker.models.command import Command
from noetl_worker.models.spellings import input_names
from noetl_worker.models.wire import JsonValue
from noetl_worker.pipeline.command.credentials import CommandCredentials, keychain_names_in
from noetl_worker.process.threads import off_loop
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.text.templates import template
from noetl_worker.text.templates.redacted import check_given
from noetl_worker.tools.contract import Render, ToolValues

_Given = tuple[str, JsonValue]
"""An input in a tool's config: the name of its field (`input` or `args`), and its value."""


@dataclass(slots=True, eq=False, repr=False)
class Inputs:
    """Merger of a command's input into its tool's config. Templates in the input are rendered first."""

    command: Command
    credentials: CommandCredentials
    worker_id: str
    fields_of: Callable[[str], frozenset[str]]
    """Function that returns the field names of a tool kind."""
    is_strict: bool
    """True if an undefined variable in a template is an error."""

    async def merge(
        self, config: Mapping[str, JsonValue], given: Mapping[str, JsonValue]
    ) -> tuple[Mapping[str, JsonValue], ToolValues]:
        """Return the config with the command's input merged into it, and the values for rendering the config."""
        size, has_templates, plain, names = self.command.size, self.command.marks.templates, given, None
        if has_templates:
            read = partial(_read_templates, config, given)
            names, plain = await off_loop(size, read)
        values = await self._values(plain, names)
        in_spec, as_text = self._find_inputs(config)
        if not has_templates and not in_spec and not as_text:
            return ({**config, "input": given} if given else config), values
        merge = partial(self._merged, in_spec, as_text, given, values.variables)
        inputs = await off_loop(size, merge)
        if in_spec or as_text or len(plain) < len(given):
            config = self._drop_inputs(config)
            values = await self._values(inputs, names)
        if inputs:
            config = {**config, "input": inputs}
            render = values.render  # the merged input is rendered already: it must not be rendered again
            values.render = lambda value, extra=None: value if value is inputs else render(value, extra)
        return config, values

    async def _values(self, given: Mapping[str, JsonValue], names: set[str] | None) -> ToolValues:
        """Return the values that templates see: the variables, the input, the command's metadata, and the keychain.

        Args:
            given: the input that templates see.
            names: the keychain entries that the templates name; None if no template mentions the keychain.
        """
        command, strict, rules = self.command, self.is_strict, RULES[self.command.dialect]
        variables: dict[str, JsonValue] = {
            # The plane has rendered the variables. Braces that are left are data, or a template without a value.
            **command.variables,
            **given,
            # Metadata replaces variables of the same name (protocol/command.md#names).
            "execution_id": str(command.execution_id) if rules.ids_are_text else command.execution_id,
            "step": command.step,
            "server_url": command.server_url,
            "worker_id": self.worker_id,
            "command_id": command.command_id,
        }
        if names or (names is not None and "keychain" not in variables):
            variables["keychain"] = await self.credentials.keychain_values(names)

        def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
            return template.render(value, {**variables, **extra} if extra else variables, strict=strict)

        return ToolValues(variables, given, checked(render, command.redacted) if command.redacted else render, strict)

    def _drop_inputs(self, config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the config without the fields `input` and `args`, both at the top level and inside `spec`."""
        left = {name: value for name, value in config.items() if name not in self._inputs}
        spec = left.get("spec")
        return {**left, "spec": self._drop_inputs(spec)} if isinstance(spec, Mapping) else left

    @property
    def _inputs(self) -> tuple[str, ...]:
        return input_names(self.fields_of(self.command.kind))

    def _find_inputs(self, config: Mapping[str, JsonValue]) -> tuple[list[_Given], list[_Given]]:
        """Return the config's input fields that have to be rendered, as two lists of (field, value).

        The first list has the fields in the config's `spec` whose value is an object. The second list has the config's
        own fields whose value is a string, which should be a template that renders to an object.
        """
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
        """Return all inputs, rendered and merged.

        The command, the tool's config and the config's `spec` may have inputs. For a key in several of them, the
        plane's rule `step_input_wins` decides between command and config. A value from `spec` counts only if no other
        input has the key.
        """
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
        """Render one input. An undefined variable is an error if `is_strict`, and otherwise becomes null. But in an
        input that is an object, such a variable becomes an empty string on the Python plane (recorded: view-*)."""
        missing = RULES[self.command.dialect].tools.missing_value if isinstance(value, Mapping) else None
        rendered = template.render(value, variables, strict=self.is_strict, undefined=missing)
        if self.command.redacted:
            check_given(rendered, self.command.redacted)
        return rendered


def _read_templates(
    config: Mapping[str, JsonValue], given: Mapping[str, JsonValue]
) -> tuple[set[str] | None, Mapping[str, JsonValue]]:
    """Return the names of the keychain entries that the command's templates use, and the inputs without templates.

    Only the inputs without templates may be variables of other templates, because the rest is not rendered yet. The
    names are None if no template mentions the keychain.

    Args:
        config: the config of the command's tool.
        given: the command's input.
    """
    plain = {name: value for name, value in given.items() if not template.has_template(value)}
    return keychain_names_in([config, given]), plain


def checked(render: Render, redacted: Sequence[str]) -> Render:
    """Return a function that calls `render`, and raises RedactedValue if the rendered value contains a value that the
    plane redacted.

    Args:
        redacted: paths where the plane put "[REDACTED]" in place of a value.
    """

    def render_and_check(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
        rendered = render(value, extra)
        check_given(rendered, redacted)
        return rendered

    return render_and_check
