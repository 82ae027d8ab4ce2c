"""What a run costs, where its results are, and the machines it runs on."""
