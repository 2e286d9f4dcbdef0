"""Audio files as they are: containers, codecs, channels, what headers get wrong, and why a file cannot be read."""
