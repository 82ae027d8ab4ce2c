"""What a crystal does to every incident wave, at any strain."""
