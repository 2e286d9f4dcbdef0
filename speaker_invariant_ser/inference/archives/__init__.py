"""Archives of recordings: worker processes, tables that survive interruptions, clusters."""
