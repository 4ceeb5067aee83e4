"""``windward``: what a person types. kubectl's verbs, kubectl's feel; stdout is data, stderr is talk.

Exit status: 0 done; 1 refused or failed, with one clear line; 2 the command line itself is wrong.
Only this module is imported for ``--help``: each command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(
    name="windward",
    help="Windward, a service mesh: apply configuration, look at proxies, run a local mesh.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
proxy = typer.Typer(
    help="What the Envoys of the mesh have.", no_args_is_help=True, rich_markup_mode=None
)
mesh = typer.Typer(
    help="A whole mesh on this machine.", no_args_is_help=True, rich_markup_mode=None
)
token = typer.Typer(
    help="Join tokens for new workloads.", no_args_is_help=True, rich_markup_mode=None
)
workload = typer.Typer(
    help="Machines outside, as workloads of the mesh.", no_args_is_help=True, rich_markup_mode=None
)
debug = typer.Typer(
    help="What Pilot knows and what it has been doing.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(proxy, name="proxy")
app.add_typer(debug, name="debug")
app.add_typer(mesh, name="mesh")
app.add_typer(token, name="token")
app.add_typer(workload, name="workload")


class Output(str, Enum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class MeshMode(str, Enum):
    NAMESPACES = "namespaces"
    LOOPBACK = "loopback"


class MeshInterception(str, Enum):
    REDIRECT = "redirect"
    TPROXY = "tproxy"


ContextOption = Annotated[
    Optional[str],
    typer.Option(
        "--context",
        help="Context file of the mesh. Default: $WINDWARD_CONTEXT, then .windward/mesh/context.json.",
    ),
]
NamespaceOption = Annotated[
    Optional[str],
    typer.Option("--namespace", "-n", help="Namespace; for apply: of objects that name none."),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]
FilesOption = Annotated[
    list[str],
    typer.Option(
        "--filename", "-f", help="YAML file or folder, or - for standard input. Repeatable."
    ),
]
KindArgument = Annotated[
    str, typer.Argument(help="Kind, plural or short name, e.g. virtualservice or vs; or all.")
]
OptionalName = Annotated[
    Optional[str], typer.Argument(help="Name; without it every object of the kind.")
]
DirectoryOption = Annotated[Path, typer.Option("--directory", help="The mesh's own folder.")]
InterceptionOption = Annotated[
    MeshInterception,
    typer.Option(
        help="How iptables sends traffic to Envoy, in namespaces; with tproxy applications see their clients' own addresses."
    ),
]

DEFAULT_DIRECTORY = Path(".windward/mesh")
DEFAULT_TOPOLOGY = Path("samples/bookshop/topology.yaml")


@app.command()
def apply(
    filename: FilesOption,
    namespace: NamespaceOption = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the object's history.")] = "",
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """Store objects: all of them, or none if one is refused."""
    from windward.cli import objects

    objects.apply(filename, namespace, reason, output.value, context)


@app.command()
def validate(
    filename: FilesOption,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say what `apply` would say of files, without a mesh."""
    from windward.cli import validation

    validation.validate(filename, namespace, output.value)


@app.command()
def get(
    kind: KindArgument,
    name: OptionalName = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """List objects, or print one. Without -n: every namespace."""
    from windward.cli import objects

    objects.get(kind, name, namespace, output.value, context)


@app.command()
def describe(
    kind: KindArgument,
    name: Annotated[str, typer.Argument(help="Name.")],
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """One object with its status at the context's Pilot: which proxies have it, who has accepted it, who refuses it and why."""
    from windward.cli import objects

    objects.describe(kind, name, namespace, output.value, context)


@app.command()
def delete(
    kind: Annotated[Optional[str], typer.Argument(help="Kind; or give -f instead.")] = None,
    name: Annotated[Optional[str], typer.Argument(help="Name.")] = None,
    filename: Annotated[
        Optional[list[str]], typer.Option("--filename", "-f", help="Delete what these files name.")
    ] = None,
    namespace: NamespaceOption = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the object's history.")] = "",
    context: ContextOption = None,
) -> None:
    """Remove objects: all that are named, or none if one does not exist."""
    from windward.cli import objects

    objects.delete(kind, name, filename or [], namespace, reason, context)


@proxy.command("status")
def proxy_status(output: OutputOption = Output.TABLE, context: ContextOption = None) -> None:
    """Every proxy that the Pilot of the context serves, and how far it is in sync, a column a resource type."""
    from windward.cli import proxies

    proxies.status(output.value, context)


@proxy.command("config")
def proxy_config(
    name: Annotated[
        str, typer.Argument(help="Proxy: its node id, or a part of it that names it alone.")
    ],
    kind: Annotated[
        Optional[str],
        typer.Argument(
            help="clusters, endpoints, listeners, routes, extensions or secrets; default all."
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """What one proxy was sent, and which of your objects each resource was built from."""
    from windward.cli import proxies

    proxies.config(name, kind, output.value, context)


LimitOption = Annotated[int, typer.Option(min=1, max=100_000, help="Rows at most.")]
HostOption = Annotated[str, typer.Option(help="Of this host only.")]
NameOption = Annotated[str, typer.Option(help="Of this name only.")]


@debug.command("events")
def debug_events(
    kind: Annotated[
        str, typer.Argument(help="Kind, e.g. VirtualService or workload; default all.")
    ] = "",
    name: Annotated[str, typer.Argument(help="Name; default all.")] = "",
    namespace: NamespaceOption = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """The last pushes, the newest first: what changed, what that moved, and how long proxies took to accept it."""
    from windward.cli import debug as views

    query = {"kind": views.cause(kind), "name": name, "namespace": namespace}
    views.show("events", query, limit, output.value, context)


@debug.command("services")
def debug_services(
    host: HostOption = "",
    namespace: NamespaceOption = None,
    limit: LimitOption = 1000,
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """The registry: services, their ports and addresses, and how many endpoints are healthy."""
    from windward.cli import debug as views

    views.show("services", {"host": host, "namespace": namespace}, limit, output.value, context)


@debug.command("endpoints")
def debug_endpoints(
    host: HostOption = "",
    namespace: NamespaceOption = None,
    limit: LimitOption = 1000,
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """What is behind each service: address, health, and the state of its lease."""
    from windward.cli import debug as views

    views.show("endpoints", {"host": host, "namespace": namespace}, limit, output.value, context)


@debug.command("scopes")
def debug_scopes(
    namespace: NamespaceOption = None,
    limit: LimitOption = 1000,
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """Who shares what configuration, how large it is, and what a Sidecar narrows it to."""
    from windward.cli import debug as views

    views.show("scopes", {"namespace": namespace}, limit, output.value, context)


@debug.command("connections")
def debug_connections(
    namespace: NamespaceOption = None,
    limit: LimitOption = 1000,
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """Open xDS streams: whose, since when, and what they follow."""
    from windward.cli import debug as views

    views.show("connections", {"namespace": namespace}, limit, output.value, context)


@debug.command("refusals")
def debug_refusals(
    limit: LimitOption = 1000,
    output: OutputOption = Output.TABLE,
    context: ContextOption = None,
) -> None:
    """What Envoys refuse now, and which object and field is to blame."""
    from windward.cli import debug as views

    views.show("refusals", {}, limit, output.value, context)


@debug.command("pushes")
def debug_pushes(output: OutputOption = Output.TABLE, context: ContextOption = None) -> None:
    """Where Pilot is: its version and revision, how many proxies are in sync, how long pushes take."""
    from windward.cli import debug as views

    views.show("status", {}, 100, output.value, context)


@mesh.command("up")
def mesh_up(
    directory: DirectoryOption = DEFAULT_DIRECTORY,
    topology: Annotated[Path, typer.Option(help="What to run.")] = DEFAULT_TOPOLOGY,
    mode: Annotated[
        Optional[MeshMode], typer.Option(help="Default: namespaces when root, else loopback.")
    ] = None,
    interception: InterceptionOption = MeshInterception.REDIRECT,
    prove: Annotated[bool, typer.Option(help="Prove that it is a mesh when it is up.")] = True,
    gateway_port: Annotated[int, typer.Option(help="Port of the gateway on 127.0.0.1.")] = 8080,
) -> None:
    """Run a mesh of real parts with a sample application, until Ctrl-C."""
    from windward.cli import meshes

    what = meshes.Wanted(
        directory, topology, mode.value if mode else None, interception.value, gateway_port
    )
    meshes.up(what, prove=prove)


@mesh.command("prove")
def mesh_prove(
    output: Annotated[Path, typer.Option(help="Where the proof goes, as JSON.")] = Path(
        "build/prove.json"
    ),
    directory: DirectoryOption = DEFAULT_DIRECTORY,
    topology: Annotated[Path, typer.Option(help="What to run.")] = DEFAULT_TOPOLOGY,
    mode: Annotated[
        Optional[MeshMode], typer.Option(help="Default: namespaces when root, else loopback.")
    ] = None,
    interception: InterceptionOption = MeshInterception.REDIRECT,
) -> None:
    """Bring a mesh up, prove it, print and write the proof, take it down. Exit 0 if all of it holds."""
    from windward.cli import meshes

    what = meshes.Wanted(directory, topology, mode.value if mode else None, interception.value, 0)
    meshes.prove(output, what)


@mesh.command("down")
def mesh_down(directory: DirectoryOption = DEFAULT_DIRECTORY) -> None:
    """Stop the mesh that runs in a folder."""
    from windward.cli import meshes

    meshes.down(directory)


@mesh.command("status")
def mesh_status(output: OutputOption = Output.TABLE, context: ContextOption = None) -> None:
    """Where each part of the mesh is, and whether it answers."""
    from windward.cli import meshes

    meshes.status(output.value, context)


@token.command("create")
def token_create(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The workload's namespace.")],
    service_account: Annotated[
        str, typer.Option("--service-account", "-s", help="Its service account.")
    ],
    ttl: Annotated[str, typer.Option(help="How long the token may be used, e.g. 10m.")] = "10m",
    uses: Annotated[int, typer.Option(min=1, help="How often it may be used.")] = 1,
    context: ContextOption = None,
) -> None:
    """Print a join token: its bearer may obtain this identity's first certificate. It is shown once."""
    from windward.cli import tokens

    tokens.create(namespace, service_account, ttl, uses, context)


@workload.command("onboard")
def workload_onboard(
    name: Annotated[str, typer.Argument(help="The workload's name, unique in its namespace.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")],
    service_account: Annotated[
        str, typer.Option("--service-account", "-s", help="Its service account.")
    ],
    group: Annotated[
        Optional[str],
        typer.Option(help="Its WorkloadGroup; made if there is none. Default: NAME."),
    ] = None,
    labels: Annotated[str, typer.Option(help="Its labels, name=value by comma.")] = "",
    address: Annotated[
        str, typer.Option(help="Its IP address. Default: found out there, as it reaches Pilot.")
    ] = "",
    locality: Annotated[str, typer.Option(help="Where it is: region/zone/subzone.")] = "",
    probe_commands: Annotated[
        bool, typer.Option(help="Let its group's readiness probe run commands there.")
    ] = False,
    ttl: Annotated[str, typer.Option(help="How long its token may be used, e.g. 1h.")] = "1h",
    output: Annotated[
        Optional[Path], typer.Option("--output", help="Folder to make. Default: NAME.")
    ] = None,
    pilot: Annotated[
        Optional[list[str]],
        typer.Option(help="Pilot's host:port as the machine reaches it. Repeatable."),
    ] = None,
    citadel: Annotated[
        Optional[str], typer.Option(help="Citadel's host:port for callers with a token.")
    ] = None,
    citadel_mtls: Annotated[
        Optional[str], typer.Option(help="Citadel's host:port for callers with a certificate.")
    ] = None,
    context: ContextOption = None,
) -> None:
    """Make a folder that turns a machine into a workload of the mesh: copy it there, run its start.sh as root."""
    from windward.cli import workloads
    from windward.cli.machine import Machine

    workloads.onboard(
        Machine(
            name=name,
            namespace=namespace,
            service_account=service_account,
            group=group or name,
            labels=workloads.parse_labels(labels),
            address=address,
            locality=locality,
            probe_commands=probe_commands,
        ),
        output or Path(name),
        ttl,
        pilots=pilot or [],
        citadel_tls=citadel,
        citadel_mtls=citadel_mtls,
        context=context,
    )


@app.command()
def version() -> None:
    """Print the version."""
    from windward import __version__

    typer.echo(f"windward {__version__}")


def main() -> None:
    """Entry point: errors meant for people become one line and exit status 1."""
    try:
        app()
    except Exception as error:
        from windward.cli.failures import explain

        line = explain(error)
        if line is None:
            raise
        typer.echo(f"windward: {line}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
