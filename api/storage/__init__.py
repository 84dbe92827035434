"""What the service remembers: SQLAlchemy tables on SQLite, and a content-addressed blob store."""
