"""The subcommands of `./solon`, a file for each subject. Each prints for people, or JSON where asked."""
