"""What attackers are given: embeddings at the precision of their release, on scales that attackers can use."""
