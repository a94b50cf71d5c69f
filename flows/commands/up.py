"""`./solon up` and `./solon down`: Prefect's server and workers on this machine."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.console import console

HomeOption = Annotated[Path, typer.Option("--home", help="Folder of the server's database, password and logs.")]
PortOption = Annotated[int | None, typer.Option("--port", min=1, max=65535, help="4200, or the one it had before.")]


def up(port: PortOption = None, home: HomeOption = Path(".solon")) -> None:
    """Start Prefect's server and workers, and deploy every flow; what runs already is left alone."""
    from deployments import machine

    done = machine.up(home, port)
    console.print("started: " + ", ".join(done.started) if done.started else "everything ran already", markup=False)
    counts = Counter(done.deployed.values())
    console.print("deployments and automations: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    ui = done.url.removesuffix("/api")
    where = "" if home == Path(".solon") else f" --home {home}"
    print(
        f"\n{ui}\n"
        f"  log in with the line in {done.password_file}\n"
        f"  then: Deployments, align, micro, Run, Custom run\n"
        f"  store: a run that names none writes to .solon/store; ./solon commands use this server while it runs\n"
        f"Logs are in {done.password_file.parent / 'logs'}. Nothing restarts a process that died: ./solon up{where} "
        f"starts what is missing.\n./solon down{where} stops it all, runs too."
    )


def down(home: HomeOption = Path(".solon")) -> None:
    """Stop the server, the workers and the runs that they started; nothing else."""
    from deployments import machine

    stopped = machine.down(home)
    for what in stopped:
        print(f"stopped {what}")
    if not stopped:
        print(f"nothing runs for {home}")
