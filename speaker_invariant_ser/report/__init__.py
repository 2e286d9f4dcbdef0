"""Reports of evaluations and audits as pages, Markdown and JSON, and the tables that the console shares with them."""
