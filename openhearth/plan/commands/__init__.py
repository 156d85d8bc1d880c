"""What the commands of `hearth plan` print: each module has one `X_command` that gives an exit status."""
