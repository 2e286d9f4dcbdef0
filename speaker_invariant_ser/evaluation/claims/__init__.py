"""Check what reports and results state against the files beside them and against itself: anyone can write any number."""
