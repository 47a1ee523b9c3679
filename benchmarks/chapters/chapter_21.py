"""Chapter 21: everything in one table. It trains nothing and records nothing."""

TABLES = {}

COLUMNS = {}

CLAIMS = []
