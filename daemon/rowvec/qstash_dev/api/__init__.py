"""The HTTP side of the local QStash: one file a part of the API."""
