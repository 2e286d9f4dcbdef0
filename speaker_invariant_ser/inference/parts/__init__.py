"""Parts of recordings: windows, segments, speech; decoded block by block."""
