"""What is kept: tables, migrations and the database of intentions."""
