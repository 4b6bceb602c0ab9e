"""rowvec keeps vector embeddings true to the rows of a Postgres database."""
