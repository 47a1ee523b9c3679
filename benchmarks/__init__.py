"""The road from a notebook's measurement to a table: run, records, tables, claims, speed."""
