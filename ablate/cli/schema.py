"""`ablate schema`: what a study file may hold, for editors."""

import json

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors.

    It gives completion, and shows mistakes while you type. Editors with tombi or taplo (Even Better TOML)
    take it from a first line "#:schema ./ablate.schema.json" in the study.

    \b
    Example:
      ablate schema > studies/ablate.schema.json
    """
    from ablate.study.schema import schema as schema_of_studies

    click.echo(json.dumps(schema_of_studies(), indent=1, ensure_ascii=False))
