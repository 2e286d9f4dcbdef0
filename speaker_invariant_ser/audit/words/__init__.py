"""What the conclusions of an audit are called in words."""
