"""One user's events: the bridge that orders them, the log that keeps them, and the sockets that carry them."""
