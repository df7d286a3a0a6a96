"""Commands on what is configured: component, config, row, state, project, token."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vaka_server.cli import text
from vaka_server.cli.client import AuditFilter, Document, NewToken, ProjectChange
from vaka_server.cli.secrets import sealed
from vaka_server.cli.session import Absent, Session, Usage, command, say

Component = Annotated[str, typer.Argument(help="Id of the component.")]
Config = Annotated[str, typer.Argument(help="Id of the configuration.")]
RowId = Annotated[str, typer.Argument(metavar="ROW", help="Id of the row.")]
Content = Annotated[
    str | None,
    typer.Option("--configuration", help="File with the configuration in JSON; - is the input."),
]
Name = Annotated[str | None, typer.Option(help="Name.")]
Description = Annotated[str | None, typer.Option(help="Description.")]
Change = Annotated[str | None, typer.Option("--change", help="Why, for the list of versions.")]
Disabled = Annotated[bool | None, typer.Option("--disabled/--enabled", help="Whether it runs.")]
Plain = Annotated[
    bool, typer.Option("--plain", help="Store secrets as they are, without encrypting them.")
]
Version = Annotated[int, typer.Argument(min=1, help="Number of the version.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder.")]
StateRow = Annotated[str | None, typer.Option("--row", help="Of this row.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    component = group(app, "component", "Components: images and how to run them.")
    command(component, "add")(component_add)
    command(component, "list")(component_list)
    command(component, "show")(component_show)
    config = group(app, "config", "Stored configurations of components.")
    command(config, "create")(config_create)
    command(config, "put")(config_put)
    command(config, "get")(config_get)
    command(config, "list")(config_list)
    command(config, "delete")(config_delete)
    command(config, "trash")(config_trash)
    command(config, "restore")(config_restore)
    command(config, "versions")(config_versions)
    command(config, "rollback")(config_rollback)
    command(config, "copy")(config_copy)
    command(config, "metadata")(config_metadata)
    row = group(app, "row", "Rows of configurations.")
    command(row, "create")(row_create)
    command(row, "put")(row_put)
    command(row, "get")(row_get)
    command(row, "list")(row_list)
    command(row, "delete")(row_delete)
    command(row, "versions")(row_versions)
    command(row, "rollback")(row_rollback)
    command(row, "copy")(row_copy)
    state = group(app, "state", "What components keep between runs.")
    command(state, "get")(state_get)
    command(state, "set")(state_set)
    project = group(app, "project", "Projects: who has what, features and limits.")
    command(project, "create")(project_create)
    command(project, "list")(project_list)
    command(project, "show")(project_show)
    command(project, "set")(project_set)
    command(project, "export")(project_export)
    command(project, "import")(project_import)
    branch = group(app, "branch", "Development branches.")
    command(branch, "create")(branch_create)
    command(branch, "list")(branch_list)
    command(branch, "delete")(branch_delete)
    vault = group(app, "vault", "Variables of all configurations, as {{ vault.name }}.")
    command(vault, "set")(vault_set)
    command(vault, "list")(vault_list)
    command(vault, "delete")(vault_delete)
    token = group(app, "token", "Who may use the server.")
    command(token, "create")(token_create)
    command(token, "list")(token_list)
    command(token, "refresh")(token_refresh)
    command(token, "revoke")(token_revoke)
    command(app, "audit")(audit)


def group(
    app: typer.Typer, name: str, help_text: str, *, cls: type[TyperGroup] = TyperGroup
) -> typer.Typer:
    """A group of commands."""
    made = typer.Typer(
        name=name, help=help_text, no_args_is_help=True, rich_markup_mode=None, cls=cls
    )
    app.add_typer(made)
    return made


# -- components ------------------------------------------------------------------------------------


async def component_add(
    session: Session,
    file: Annotated[Path, typer.Argument(help="File with the definition in JSON; - is the input.")],
) -> None:
    """Register a component, or replace its definition."""
    document = read_document(str(file))
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise Usage(f"{file}: a component is a JSON object with an `id`.")
    async with session.client() as client:
        stored = await client.put_component(document)
    session.show(stored, lambda: f"Component {text.clean(stored['id'])} is registered.")


async def component_list(session: Session) -> None:
    """List the registered components."""
    async with session.client() as client:
        found = await client.components()
    if session.json:
        say(text.to_json(found))
        return
    rows = [{**each, "image": each["data"].get("definition", {}).get("uri")} for each in found]
    session.show_table(rows, {"id": "ID", "type": "TYPE", "name": "NAME", "image": "IMAGE"})


async def component_show(session: Session, component: Component) -> None:
    """Show a component's definition."""
    async with session.client() as client:
        say(text.to_json(await client.component(component)))


# -- configurations --------------------------------------------------------------------------------


async def config_create(
    session: Session,
    component: Component,
    id_: Annotated[str | None, typer.Option("--id", help="Id; one is made when not given.")] = None,
    name: Name = None,
    description: Description = None,
    configuration: Content = None,
    disabled: Disabled = None,
    change: Change = None,
    plain: Plain = False,
) -> None:
    """Store a configuration. Secrets in it that are not encrypted are, when there are keys."""
    body = _body(
        configurationId=id_,
        name=name or id_ or "Configuration",
        description=description,
        isDisabled=disabled,
        changeDescription=change,
    )
    content = _content(configuration)
    async with session.client() as client:
        if content is not None:
            body["configuration"] = await sealed(client, component, content, plain=plain)
        stored = await client.create_config(component, body)
    session.show(stored, lambda: text.clean(stored["id"]))


async def config_put(
    session: Session,
    component: Component,
    config: Config,
    name: Name = None,
    description: Description = None,
    configuration: Content = None,
    disabled: Disabled = None,
    change: Change = None,
    expected_version: Annotated[
        int | None, typer.Option(help="Refuse when the current version is another one.")
    ] = None,
    plain: Plain = False,
) -> None:
    """Change a configuration; what is not given stays. Secrets are encrypted, when there are keys."""
    body = _body(
        name=name,
        description=description,
        isDisabled=disabled,
        changeDescription=change,
        expectedVersion=expected_version,
    )
    content = _content(configuration)
    async with session.client() as client:
        if content is not None:
            body["configuration"] = await sealed(client, component, content, plain=plain)
        stored = await client.update_config(component, config, body)
    session.show(stored, lambda: f"Version {stored['version']}.")


async def config_get(
    session: Session,
    component: Component,
    config: Config,
    version: Annotated[int | None, typer.Option(help="An older version.")] = None,
) -> None:
    """Print a configuration: its content, or with --json all of it."""
    async with session.client() as client:
        found = await client.config(component, config, version)
    session.show(found, lambda: text.to_json(found["configuration"]))


async def config_list(
    session: Session,
    component: Annotated[str | None, typer.Argument(help="Only of this component.")] = None,
) -> None:
    """List configurations."""
    async with session.client() as client:
        found = await client.configs(component)
    columns = {
        "componentId": "COMPONENT",
        "id": "CONFIG",
        "version": "VERSION",
        "isDisabled": "DISABLED",
        "name": "NAME",
    }
    session.show_table(found, columns)


async def config_delete(session: Session, component: Component, config: Config) -> None:
    """Move a configuration to the trash, or remove it from there for good."""
    async with session.client() as client:
        await client.delete_config(component, config)
    session.show({"id": config}, lambda: f"Configuration {text.clean(config)} is deleted.")


async def config_trash(
    session: Session,
    component: Annotated[str | None, typer.Argument(help="Only of this component.")] = None,
) -> None:
    """List what is in the trash."""
    async with session.client() as client:
        found = await client.trash(component)
    columns = {"componentId": "COMPONENT", "id": "CONFIG", "version": "VERSION", "name": "NAME"}
    session.show_table(found, columns)


async def config_restore(session: Session, component: Component, config: Config) -> None:
    """Take a configuration out of the trash."""
    async with session.client() as client:
        restored = await client.restore_config(component, config)
    session.show(restored, lambda: f"Version {restored['version']}.")


async def config_rollback(
    session: Session, component: Component, config: Config, version: Version, change: Change = None
) -> None:
    """Make an older version what the configuration is; its state stays."""
    body = _body(changeDescription=change)
    async with session.client() as client:
        changed = await client.rollback_config(component, config, version, body)
    session.show(changed, lambda: f"Version {changed['version']}.")


async def config_copy(
    session: Session,
    component: Component,
    config: Config,
    version: Annotated[int | None, typer.Option(help="A version; else the current one.")] = None,
    name: Name = None,
    description: Description = None,
    change: Change = None,
) -> None:
    """Copy a configuration with its rows to a new one, and print its id."""
    body = _body(name=name, description=description, changeDescription=change)
    async with session.client() as client:
        if version is None:
            version = int((await client.config(component, config))["version"])
        made = await client.copy_config(component, config, version, body)
    session.show(made, lambda: text.clean(made["id"]))


async def config_metadata(
    session: Session,
    component: Component,
    config: Config,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key; may be repeated."),
    ] = None,
    delete: Annotated[
        list[str] | None,
        typer.Option("--delete", metavar="KEY", help="Remove a key; may be repeated."),
    ] = None,
) -> None:
    """Show what is said of a configuration, once it is changed as the options say."""
    values: dict[str, str] = {}
    for each in set_ or ():
        key, equals, value = each.partition("=")
        if not (key and equals):
            raise Usage(f"--set {each}: is a key, = and a value.")
        values[key] = value
    owner = (component, config)
    async with session.client() as client:
        found = await client.metadata(owner)
        for key in delete or ():
            entry = next((each for each in found if each["key"] == key), None)
            if entry is None:
                raise Absent(f"Configuration {config} has no metadata {key}.")
            await client.delete_metadata(owner, entry["id"])
        if values:
            await client.put_metadata(owner, values)
        found = await client.metadata(owner)
    session.show_table(found, {"key": "KEY", "value": "VALUE", "timestamp": "WRITTEN"})


async def config_versions(session: Session, component: Component, config: Config) -> None:
    """List the versions of a configuration, newest first."""
    async with session.client() as client:
        found = await client.config_versions(component, config)
    columns = {"version": "VERSION", "created": "CREATED", "changeDescription": "CHANGE"}
    session.show_table(found, columns)


# -- rows ------------------------------------------------------------------------------------------


async def row_create(
    session: Session,
    component: Component,
    config: Config,
    id_: Annotated[str | None, typer.Option("--id", help="Id; one is made when not given.")] = None,
    name: Name = None,
    description: Description = None,
    configuration: Content = None,
    disabled: Disabled = None,
    change: Change = None,
    plain: Plain = False,
) -> None:
    """Store a row. Secrets in it that are not encrypted are, when there are keys."""
    body = _body(
        rowId=id_,
        name=name,
        description=description,
        isDisabled=disabled,
        changeDescription=change,
    )
    content = _content(configuration)
    async with session.client() as client:
        if content is not None:
            body["configuration"] = await sealed(client, component, content, plain=plain)
        stored = await client.create_row(component, config, body)
    session.show(stored, lambda: text.clean(stored["id"]))


async def row_put(
    session: Session,
    component: Component,
    config: Config,
    row: RowId,
    name: Name = None,
    description: Description = None,
    configuration: Content = None,
    disabled: Disabled = None,
    change: Change = None,
    plain: Plain = False,
) -> None:
    """Change a row; what is not given stays. Secrets are encrypted, when there are keys."""
    body = _body(
        name=name,
        description=description,
        isDisabled=disabled,
        changeDescription=change,
    )
    content = _content(configuration)
    async with session.client() as client:
        if content is not None:
            body["configuration"] = await sealed(client, component, content, plain=plain)
        stored = await client.update_row(component, config, row, body)
    session.show(stored, lambda: f"Version {stored['version']}.")


async def row_get(session: Session, component: Component, config: Config, row: RowId) -> None:
    """Print a row: its content, or with --json all of it."""
    async with session.client() as client:
        found = (await client.config(component, config))["rows"]
    wanted = next((each for each in found if each["id"] == row), None)
    if wanted is None:
        raise Absent(f"Row {row} not found in configuration {config}.")
    session.show(wanted, lambda: text.to_json(wanted["configuration"]))


async def row_list(session: Session, component: Component, config: Config) -> None:
    """List the rows of a configuration, in their order."""
    async with session.client() as client:
        found = (await client.config(component, config))["rows"]
    columns = {"id": "ROW", "version": "VERSION", "isDisabled": "DISABLED", "name": "NAME"}
    session.show_table(found, columns)


async def row_delete(
    session: Session, component: Component, config: Config, row: RowId, change: Change = None
) -> None:
    """Remove a row."""
    async with session.client() as client:
        await client.delete_row(component, config, row, _body(changeDescription=change))
    session.show({"id": row}, lambda: f"Row {text.clean(row)} is deleted.")


async def row_versions(session: Session, component: Component, config: Config, row: RowId) -> None:
    """List the versions of a row, newest first."""
    async with session.client() as client:
        found = await client.row_versions(component, config, row)
    columns = {"version": "VERSION", "created": "CREATED", "changeDescription": "CHANGE"}
    session.show_table(found, columns)


async def row_rollback(
    session: Session,
    component: Component,
    config: Config,
    row: RowId,
    version: Version,
    change: Change = None,
) -> None:
    """Make an older version what the row is; its state stays."""
    body = _body(changeDescription=change)
    async with session.client() as client:
        changed = await client.rollback_row(component, config, row, version, body)
    session.show(changed, lambda: f"Version {changed['version']}.")


async def row_copy(
    session: Session,
    component: Component,
    config: Config,
    row: RowId,
    version: Version,
    to: Annotated[
        str | None, typer.Option(help="Configuration of the component that gets it.")
    ] = None,
    change: Change = None,
) -> None:
    """Copy a version of a row to a new row, and print its id."""
    body = _body(targetConfigId=to, changeDescription=change)
    async with session.client() as client:
        made = await client.copy_row(component, config, row, version, body)
    session.show(made, lambda: text.clean(made["id"]))


# -- state -----------------------------------------------------------------------------------------


async def state_get(
    session: Session, component: Component, config: Config, row: StateRow = None
) -> None:
    """Print the stored state; with --json also its version."""
    async with session.client() as client:
        found = await client.state(component, config, row)
    session.show(found, lambda: text.to_json(found["state"]))


async def state_set(
    session: Session,
    component: Component,
    config: Config,
    file: Annotated[str, typer.Argument(help="File with the state in JSON; - is the input.")],
    row: StateRow = None,
    expected_version: Annotated[
        int | None, typer.Option(help="Refuse when the stored version is another one.")
    ] = None,
) -> None:
    """Replace the stored state."""
    body = _body(state=read_document(file), expectedVersion=expected_version)
    async with session.client() as client:
        await client.put_state(component, config, row, body)
        stored = await client.state(component, config, row)
    session.show(stored, lambda: f"Version {stored['version']}.")


# -- project ---------------------------------------------------------------------------------------


async def project_show(session: Session) -> None:
    """Show the project's features and limits."""
    async with session.client() as client:
        found = await client.project()
    session.show(found, lambda: _project_text(found))


async def project_create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name.")],
    feature: Annotated[
        list[str] | None, typer.Option(help="Have this feature; may be repeated.")
    ] = None,
) -> None:
    """Make a project and print the secret of its first admin token, which is shown only now."""
    async with session.client() as client:
        made = await client.create_project(name, feature or [])
    session.show(made, lambda: str(made["token"]))


async def project_list(session: Session) -> None:
    """List the projects of the installation."""
    async with session.client() as client:
        found = await client.projects()
    session.show_table(found, {"id": "PROJECT", "created": "CREATED", "name": "NAME"})


async def project_set(
    session: Session,
    feature: Annotated[
        list[str] | None, typer.Option(help="Have this feature; may be repeated.")
    ] = None,
    no_feature: Annotated[
        list[str] | None, typer.Option(help="Do without this feature; may be repeated.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set a limit; may be repeated.")
    ] = None,
    no_limit: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take a limit away; may be repeated.")
    ] = None,
) -> None:
    """Change the project's features and limits, on the host of the server while that is stopped."""
    if not (feature or no_feature or limit or no_limit):
        raise Usage("Say what is to change: --feature, --no-feature, --limit or --no-limit.")
    limits: dict[str, Any] = dict.fromkeys(no_limit or ())
    for each in limit or ():
        name, equals, value = each.partition("=")
        if not (name and equals and re.fullmatch(r"[0-9]{1,18}", value)):
            raise Usage(f"--limit {each}: is a name, = and a whole number.")
        limits[name] = int(value)
    wanted = ProjectChange(tuple(feature or ()), tuple(no_feature or ()), limits)
    async with session.client() as client:
        changed = await client.update_project(wanted)
    session.show(changed, lambda: _project_text(changed))


async def project_export(session: Session, target: Folder) -> None:
    """Write configurations, rows, metadata and variables of the vault to a folder.

    Secrets are written as the ciphers that they are. What the folder has of an earlier export and the
    project no longer has is removed from it.
    """
    from vaka_server.cli import project  # noqa: PLC0415 - it loads the engine

    await project.export(session, target)


async def project_import(
    session: Session,
    source: Folder,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    delete: Annotated[
        bool,
        typer.Option("--delete", help="Delete what the folder does not have; to the trash."),
    ] = False,
    change: Annotated[
        str, typer.Option("--change", help="Why, for the list of versions.")
    ] = "Imported from a folder",
) -> None:
    """Make the project what a folder says; a second time there is nothing to do."""
    from vaka_server.cli import project  # noqa: PLC0415 - it loads the engine

    await project.import_(session, source, dry_run=dry_run, delete=delete, change=change)


def _project_text(project: Document) -> str:
    lines = [f"Project {text.clean(str(project['name']))}"]
    lines += [f"feature  {text.clean(name)}" for name in project["features"]]
    lines += [
        f"limit    {text.clean(name)}={limit['value']}" for name, limit in project["limits"].items()
    ]
    return "\n".join(lines)


# -- tokens ----------------------------------------------------------------------------------------


async def token_create(
    session: Session,
    description: Annotated[str, typer.Option(help="What it is for.")],
    role: Annotated[str, typer.Option(help="admin, run or read.")] = "run",
    expires_in: Annotated[int | None, typer.Option(min=1, help="Seconds until it ends.")] = None,
    component: Annotated[
        list[str] | None, typer.Option(help="Only for this component; may be repeated.")
    ] = None,
    bucket: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=read|write", help="Only for this bucket; may be repeated."),
    ] = None,
) -> None:
    """Make a token and print its secret, which is shown only now.

    With the role admin and neither --component nor --bucket it is a master token of the project.
    """
    if role not in {"admin", "run", "read"}:
        raise Usage("--role is one of admin, run and read.")
    permissions = {}
    for each in bucket or ():
        bucket_id, _, permission = each.rpartition("=")
        if not bucket_id or permission not in {"read", "write"}:
            raise Usage(f"--bucket {each}: is a bucket, = and read or write.")
        permissions[bucket_id] = permission
    wanted = NewToken(
        description,
        role,
        expires_in,
        tuple(component) if component else None,
        permissions or None,
    )
    async with session.client() as client:
        made = await client.create_token(wanted)
    session.show(made, lambda: str(made["token"]))


async def token_list(session: Session) -> None:
    """List tokens, without their secrets."""
    async with session.client() as client:
        found = await client.tokens()
    columns = {
        "id": "TOKEN",
        "role": "ROLE",
        "created": "CREATED",
        "expires": "EXPIRES",
        "description": "DESCRIPTION",
    }
    session.show_table(found, columns)


async def token_refresh(
    session: Session,
    token_id: Annotated[str, typer.Argument(metavar="TOKEN", help="Id of the token.")],
) -> None:
    """Give a token another secret and print it; the one that it had ends at once."""
    async with session.client() as client:
        changed = await client.refresh_token(token_id)
    session.show(changed, lambda: str(changed["token"]))


async def token_revoke(
    session: Session,
    token_id: Annotated[str, typer.Argument(metavar="TOKEN", help="Id of the token.")],
) -> None:
    """End a token, at once."""
    async with session.client() as client:
        await client.revoke_token(token_id)
    session.show({"id": token_id}, lambda: f"Token {text.clean(token_id)} is revoked.")


async def audit(
    session: Session,
    kind: Annotated[
        str | None,
        typer.Option(help="Of this kind, such as token.created, or token for all of it."),
    ] = None,
    of_token: Annotated[
        str | None, typer.Option("--of-token", metavar="ID", help="Done with this token, or to it.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Then or later, such as 2024-01-31 or '-1 day'.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Of all projects, and of none: for the first one's admins."),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 100,
) -> None:
    """Show the audit log: who did what, newest first."""
    wanted = AuditFilter(kind, of_token, since, everything, limit)
    async with session.client() as client:
        found = await client.audit(wanted)
    if session.json:
        session.show(found, str)
        return
    rows = [
        {
            **each,
            "by": each["token"]["description"] or "",
            "of": ", ".join(f"{name} {value}" for name, value in each["subject"].items()),
        }
        for each in found
    ]
    columns = {"time": "TIME", "kind": "WHAT", "of": "OF", "by": "BY", "address": "FROM"}
    session.show_table(rows, columns)


# -- branches --------------------------------------------------------------------------------------


async def branch_create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name of the branch; unique in the project.")],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Create a development branch, and print its id."""
    async with session.client() as client:
        made = await client.create_branch(name, description)
    session.show(made, lambda: str(made["id"]))


async def branch_list(session: Session) -> None:
    """List the branches, the default one first."""
    async with session.client() as client:
        found = await client.branches()
    columns = {"id": "ID", "name": "NAME", "isDefault": "DEFAULT", "description": "DESCRIPTION"}
    session.show_table(found, columns)


async def branch_delete(
    session: Session, branch: Annotated[str, typer.Argument(help="Id of the branch.")]
) -> None:
    """Delete a development branch with all that only it has.

    Tables and files that carry its id as a prefix stay.
    """
    async with session.client() as client:
        await client.delete_branch(branch)
    session.show({"id": branch}, lambda: f"Branch {text.clean(branch)} is deleted.")


# -- the vault -------------------------------------------------------------------------------------

Variable = Annotated[str, typer.Argument(metavar="NAME", help="Name of the variable.")]
OfBranch = Annotated[str | None, typer.Option(help="Id of a development branch.")]


async def vault_set(
    session: Session,
    name: Variable,
    value: Annotated[str, typer.Argument(help="Its value; - is the input.")],
    branch: OfBranch = None,
    encrypted: Annotated[
        bool, typer.Option("--encrypted", help="Keep the value encrypted; jobs decrypt it.")
    ] = False,
) -> None:
    """Set a variable of the vault."""
    given = sys.stdin.read().removesuffix("\n") if value == "-" else value
    async with session.client() as client:
        made = await client.put_vault_variable(name, given, branch, is_encrypted=encrypted)
    session.show(made, lambda: f"{{{{ vault.{text.clean(name)} }}}} is set.")


async def vault_list(session: Session, branch: OfBranch = None) -> None:
    """List the variables of the vault that jobs see."""
    async with session.client() as client:
        found = await client.vault(branch)
    columns = {"name": "NAME", "branch": "BRANCH", "isEncrypted": "ENCRYPTED", "value": "VALUE"}
    session.show_table(found, columns)


async def vault_delete(session: Session, name: Variable, branch: OfBranch = None) -> None:
    """Remove a variable of the vault."""
    async with session.client() as client:
        await client.delete_vault_variable(name, branch)
    session.show({"name": name}, lambda: f"{{{{ vault.{text.clean(name)} }}}} is removed.")


# -- input -----------------------------------------------------------------------------------------


def read_document(path: str) -> Any:
    """The JSON in a file, or in the standard input for `-`.

    Raises:
        Usage: it is not JSON.
    """
    content = sys.stdin.read() if path == "-" else Path(path).read_text()
    try:
        return json.loads(content)
    except ValueError as error:
        raise Usage(f"{path}: this is not JSON: {error}.") from error


def _content(path: str | None) -> Any:
    return None if path is None else read_document(path)


def _body(**members: Any) -> Document:
    return {name: value for name, value in members.items() if value is not None}
