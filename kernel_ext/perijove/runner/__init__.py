"""What runs inside a job: a cell, a notebook, or a function.

``python -m perijove.runner cell|notebook|function`` finds what to run in ``$PERIJOVE_JOB_DIR/input``, writes
results to ``output`` and rich output, as it comes, to ``display.jsonl`` (docs/architecture.md). Plain text
also goes to the real standard output and error, so that the log alone tells the story too.
"""
