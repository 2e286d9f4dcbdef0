"""Tables, folders and databases of the user: what their columns hold, and which names mean the same."""
