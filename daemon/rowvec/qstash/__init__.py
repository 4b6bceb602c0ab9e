"""QStash: a carrier, never the truth."""
