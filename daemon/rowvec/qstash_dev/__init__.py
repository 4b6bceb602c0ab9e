"""A QStash of one's own: for tests and for developing offline. Nothing in production imports it."""
