"""`./solon constitution`: its commands."""

import typer

from flows.commands import constitution_diff, constitution_files, constitution_show, publish, watch_constitutions

constitution_app = typer.Typer(help="Read, check, compare, import and publish constitutions.", no_args_is_help=True)
constitution_app.command("check")(constitution_files.check)
constitution_app.command("show")(constitution_show.show)
constitution_app.command("diff")(constitution_diff.diff)
constitution_app.command("publish")(publish.publish)
constitution_app.command("watch")(watch_constitutions.watch)
constitution_app.command("import")(constitution_files.import_files)
constitution_app.command("export")(constitution_files.export_files)
